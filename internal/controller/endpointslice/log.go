package endpointslice

import (
	"context"
	"log/slog"

	"github.com/go-logr/logr"
)

// slogSink lets the library write its warnings and errors to our log. It calls it information that a node has no zone.
func slogSink(log *slog.Logger) logr.LogSink {
	return logr.FromSlogHandler(warnings{log.Handler()}).GetSink()
}

type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return (l >= slog.LevelWarn || w.Handler.Enabled(ctx, slog.LevelDebug)) && w.Handler.Enabled(ctx, l)
}

func (w warnings) WithAttrs(a []slog.Attr) slog.Handler { return warnings{w.Handler.WithAttrs(a)} }
func (w warnings) WithGroup(name string) slog.Handler   { return warnings{w.Handler.WithGroup(name)} }
