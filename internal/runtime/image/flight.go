package image

import (
	"context"
	"sync"
)

// flights lets callers who want the same thing at the same time share one piece of work. The zero value is ready.
type flights struct {
	mu   sync.Mutex
	now  map[string]*flight
	runs sync.WaitGroup
}

type flight struct {
	done   chan struct{} // closed when id and err are set
	cancel context.CancelFunc
	id     string
	err    error

	mu        sync.Mutex // guards what follows
	waiting   int
	next      int
	listeners map[int]func(Progress)
}

// do runs work under key, or joins the run under way. The run's context ends when every caller's has ended.
func (f *flights) do(
	ctx context.Context, key string, listen func(Progress), work func(context.Context, func(Progress)) (string, error),
) (string, error) {
	f.mu.Lock()
	if f.now == nil {
		f.now = map[string]*flight{}
	}
	fl := f.now[key]
	if fl == nil {
		fl = &flight{done: make(chan struct{}), listeners: map[int]func(Progress){}}
		f.now[key] = fl
		run, cancel := context.WithCancel(context.WithoutCancel(ctx))
		fl.cancel = cancel
		f.runs.Go(func() {
			fl.id, fl.err = work(run, fl.tell)
			f.drop(key, fl)
			cancel()
			close(fl.done)
		})
	}
	leave := fl.join(listen)
	f.mu.Unlock()

	select {
	case <-fl.done:
		leave()
		return fl.id, fl.err
	case <-ctx.Done():
	}
	f.mu.Lock()
	if leave() {
		if f.now[key] == fl {
			delete(f.now, key)
		}
		fl.cancel()
	}
	f.mu.Unlock()
	return "", ctx.Err()
}

func (f *flights) drop(key string, fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now[key] == fl {
		delete(f.now, key)
	}
}

// join adds a caller; leave takes it away and reports whether it was the last.
func (fl *flight) join(listen func(Progress)) (leave func() (last bool)) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.waiting++
	n := fl.next
	fl.next++
	if listen != nil {
		fl.listeners[n] = listen
	}
	return func() bool {
		fl.mu.Lock()
		defer fl.mu.Unlock()
		fl.waiting--
		delete(fl.listeners, n)
		return fl.waiting == 0
	}
}

func (fl *flight) tell(p Progress) {
	fl.mu.Lock()
	fns := make([]func(Progress), 0, len(fl.listeners))
	for _, fn := range fl.listeners {
		fns = append(fns, fn)
	}
	fl.mu.Unlock()
	for _, fn := range fns {
		fn(p)
	}
}
