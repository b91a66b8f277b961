package endpointslice

import (
	"log/slog"

	"github.com/go-logr/logr"
)

// slogSink lets the library write to our log.
func slogSink(log *slog.Logger) logr.LogSink { return logr.FromSlogHandler(log.Handler()).GetSink() }
