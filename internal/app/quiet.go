package app

import (
	"context"
	"log/slog"
	"strings"
)

// quiet lets only records of its level or above through, and of those not what Kubernetes' libraries call errors though a client has merely
// gone away, or an event came after its namespace was gone. All are there at debug.
type quiet struct {
	slog.Handler
	level *slog.LevelVar
}

// routine are fragments of messages, or of their err, that say nothing went wrong here.
var routine = []string{
	"use of closed network connection",
	"error executing command in container",
	"http: Handler timeout",
	"Post-timeout activity",
	"post-timeout activity",
	"Server rejected event",
	"from runtime service failed", // whoever made the call tells it
	"from image service failed",
	"container event",
}

func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= q.level.Level() && q.Handler.Enabled(ctx, l)
}

// Handle looks at the level once more: errors come here unasked.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < q.level.Level() || !q.Handler.Enabled(ctx, slog.LevelDebug) && isRoutine(r) {
		return nil
	}
	return q.Handler.Handle(ctx, r)
}

func isRoutine(r slog.Record) bool {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "err" {
			text += " " + a.Value.String()
		}
		return true
	})
	for _, f := range routine {
		if strings.Contains(text, f) {
			return true
		}
	}
	return false
}

func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a), q.level} }
func (q quiet) WithGroup(name string) slog.Handler   { return quiet{q.Handler.WithGroup(name), q.level} }
