// Package events hands what happens to containers to whoever wants to know.
//
// It may import the CRI's types alone. Invariant: nobody who listens is waited for.
package events

import (
	"context"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Subscribers get each event, in order. The zero value is ready.
type Subscribers struct {
	mu  sync.Mutex // guards all
	all map[*queue]bool
}

type queue struct {
	wake chan struct{}

	mu     sync.Mutex // guards events
	events []*runtimeapi.ContainerEventResponse
}

// Send hands an event to all who listen.
func (s *Subscribers) Send(ev *runtimeapi.ContainerEventResponse) {
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

// Len is how many listen.
func (s *Subscribers) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// Get is the CRI's GetContainerEvents: it sends what happens to ch until ctx ends. The callback, if there is one, is called with nil once
// nothing that happens from then on can be missed.
func (s *Subscribers) Get(ctx context.Context, ch chan *runtimeapi.ContainerEventResponse,
	established func(runtimeapi.RuntimeService_GetContainerEventsClient)) error {
	q := &queue{wake: make(chan struct{}, 1)}
	s.add(q)
	defer s.remove(q)
	if established != nil {
		established(nil)
	}
	for {
		for _, ev := range q.take() {
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

func (s *Subscribers) add(q *queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*queue]bool{}
	}
	s.all[q] = true
}

func (s *Subscribers) remove(q *queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, q)
}

func (q *queue) take() []*runtimeapi.ContainerEventResponse {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch := q.events
	q.events = nil
	return batch
}
