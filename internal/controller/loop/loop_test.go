package loop

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/tools/cache"
)

func TestRetriesFailuresAndStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var calls atomic.Int32
	done := make(chan struct{})
	l := New("test", nil, slog.New(slog.DiscardHandler), func(_ context.Context, key string) error {
		if key != "a" {
			t.Errorf("key %q", key)
		}
		if calls.Add(1) < 3 {
			return errors.New("not yet")
		}
		close(done)
		return nil
	})
	l.Add("a")
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx, 2) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatalf("gave up after %d calls", calls.Load())
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Run does not return")
	}
}

func TestDeleted(t *testing.T) {
	s := "x"
	if got, ok := Deleted[*string](&s); !ok || got != &s {
		t.Error("plain object")
	}
	if got, ok := Deleted[*string](cache.DeletedFinalStateUnknown{Obj: &s}); !ok || got != &s {
		t.Error("tombstone")
	}
	if _, ok := Deleted[*string](7); ok {
		t.Error("wrong type taken")
	}
}
