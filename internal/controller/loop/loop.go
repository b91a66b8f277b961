// Package loop is what every controller has in common: a queue of keys, workers that hand each key to one function, and back-off
// when that function fails.
//
// It imports client-go only. Invariants: one key is never worked on twice at the same time; an event becomes work at once (no
// ticks); a key that fails comes back after 5 ms, then twice as long each time.
package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
)

// The back-off after errors: the first retry comes fast, since most errors are conflicts with a write that is already on its way
// to the cache.
const (
	firstRetry = 5 * time.Millisecond
	lastRetry  = time.Minute
)

// ErrStale, wrapped in what a sync function returns, says that a cache has not caught up with an earlier write. The key comes back
// soon, and nothing is logged as wrong.
var ErrStale = errors.New("the cache is behind")

// Loop hands keys to a function. Make one with New.
type Loop[K comparable] struct {
	name  string
	sync  func(ctx context.Context, key K) error
	queue workqueue.TypedRateLimitingInterface[K]
	log   *slog.Logger
}

// New returns a Loop that calls sync for each key that is added. The name is for the log. A nil clk is the real clock.
func New[K comparable](name string, clk clock.WithTicker, log *slog.Logger, sync func(ctx context.Context, key K) error) *Loop[K] {
	if clk == nil {
		clk = clock.RealClock{}
	}
	// The queue gets no name: named queues keep a ticker for their metrics.
	queue := workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[K](firstRetry, lastRetry),
		workqueue.TypedRateLimitingQueueConfig[K]{Clock: clk},
	)
	return &Loop[K]{name: name, sync: sync, queue: queue, log: log}
}

// Add asks for key to be worked on now. Adding a key that waits already changes nothing.
func (l *Loop[K]) Add(key K) { l.queue.Add(key) }

// AddAfter asks for key to be worked on after d. Zero or less is now.
func (l *Loop[K]) AddAfter(key K, d time.Duration) { l.queue.AddAfter(key, d) }

// Run waits until the caches hold their first list, then works with the given number of workers until ctx ends, and returns once
// the last worker has returned.
func (l *Loop[K]) Run(ctx context.Context, workers int, synced ...cache.DoneChecker) error {
	stop := context.AfterFunc(ctx, l.queue.ShutDown)
	defer func() {
		if stop() {
			l.queue.ShutDown()
		}
	}()
	if !Synced(ctx, synced...) {
		return nil
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for l.next(ctx) {
			}
		})
	}
	wg.Wait()
	return nil
}

// next works on one key. It returns false when the queue is closed and drained.
func (l *Loop[K]) next(ctx context.Context) bool {
	key, closed := l.queue.Get()
	if closed {
		return false
	}
	defer l.queue.Done(key)
	if ctx.Err() != nil {
		return true
	}
	err := l.sync(ctx, key)
	switch {
	case err == nil:
		l.queue.Forget(key)
	case ctx.Err() != nil:
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		// Nothing can be made in a namespace that goes away; its deletion brings the next event.
		l.queue.Forget(key)
	case apierrors.IsConflict(err), errors.Is(err, ErrStale):
		l.log.Debug("behind, trying again", "controller", l.name, "key", fmt.Sprint(key), "err", err)
		l.queue.AddRateLimited(key)
	default:
		l.log.Warn("sync failed, trying again", "controller", l.name, "key", fmt.Sprint(key), "err", err)
		l.queue.AddRateLimited(key)
	}
	return true
}

// Synced waits, without polling, until all checkers are done. It returns false if ctx ended first.
func Synced(ctx context.Context, checkers ...cache.DoneChecker) bool {
	for _, c := range checkers {
		select {
		case <-c.Done():
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

// Deleted unwraps an object that a delete event carries: the object itself, or the last known state of one whose deletion was
// missed. The bool is false if it is not a T.
func Deleted[T any](obj any) (T, bool) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	t, ok := obj.(T)
	return t, ok
}

// Handlers makes typed event handlers for an informer: add(new), update(old, new), remove(last). Any may be nil. Resync events,
// where nothing changed, are passed on.
func Handlers[T any](add func(T), update func(before, after T), remove func(T)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if t, ok := obj.(T); ok && add != nil {
				add(t)
			}
		},
		UpdateFunc: func(before, after any) {
			b, ok1 := before.(T)
			a, ok2 := after.(T)
			if ok1 && ok2 && update != nil {
				update(b, a)
			}
		},
		DeleteFunc: func(obj any) {
			if t, ok := Deleted[T](obj); ok && remove != nil {
				remove(t)
			}
		},
	}
}
