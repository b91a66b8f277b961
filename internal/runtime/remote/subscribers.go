package remote

import (
	"context"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// subscribers get each event, in order; none is waited for.
type subscribers struct {
	mu  sync.Mutex // guards all
	all map[*queue]bool
}

type queue struct {
	wake chan struct{}

	mu     sync.Mutex // guards events
	events []*runtimeapi.ContainerEventResponse
}

func (s *subscribers) send(ev *runtimeapi.ContainerEventResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for q := range s.all {
		q.mu.Lock()
		q.events = append(q.events, ev)
		q.mu.Unlock()
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
}

func (s *subscribers) add() (q *queue, remove func()) {
	q = &queue{wake: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*queue]bool{}
	}
	s.all[q] = true
	return q, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.all, q)
	}
}

// GetContainerEvents sends what happens to ch until ctx ends, as long as Run does its part. The callback, if there is one, is called with
// nil once nothing that happens from then on can be missed. An event may be told late, and more than once.
func (r *Runtime) GetContainerEvents(ctx context.Context, ch chan *runtimeapi.ContainerEventResponse,
	established func(runtimeapi.RuntimeService_GetContainerEventsClient)) error {
	q, remove := r.subs.add()
	defer remove()
	if established != nil {
		established(nil)
	}
	for {
		q.mu.Lock()
		batch := q.events
		q.events = nil
		q.mu.Unlock()
		for _, ev := range batch {
			select {
			case ch <- ev:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
