package runtime

import (
	"context"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// events hands each event to every subscriber, in order, and never waits for one.
type events struct {
	mu   sync.Mutex
	subs map[*subscriber]bool
}

type subscriber struct {
	mu    sync.Mutex
	queue []*runtimeapi.ContainerEventResponse
	wake  chan struct{}
}

func (e *events) send(ev *runtimeapi.ContainerEventResponse) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for s := range e.subs {
		s.mu.Lock()
		s.queue = append(s.queue, ev)
		s.mu.Unlock()
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// GetContainerEvents sends what happens to ch until ctx ends. The callback, if there is one, is called with nil once nothing that happens
// from then on can be missed.
func (r *Runtime) GetContainerEvents(ctx context.Context, ch chan *runtimeapi.ContainerEventResponse,
	established func(runtimeapi.RuntimeService_GetContainerEventsClient)) error {
	s := &subscriber{wake: make(chan struct{}, 1)}
	r.events.mu.Lock()
	if r.events.subs == nil {
		r.events.subs = map[*subscriber]bool{}
	}
	r.events.subs[s] = true
	r.events.mu.Unlock()
	defer func() {
		r.events.mu.Lock()
		defer r.events.mu.Unlock()
		delete(r.events.subs, s)
	}()
	if established != nil {
		established(nil)
	}
	for {
		s.mu.Lock()
		batch := s.queue
		s.queue = nil
		s.mu.Unlock()
		for _, ev := range batch {
			select {
			case ch <- ev:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tell sends an event about a container, or about a sandbox by its own ID, with the state of the whole Pod.
func (r *Runtime) tell(kind runtimeapi.ContainerEventType, id string, sb *sandbox) {
	r.mu.Lock()
	ev := &runtimeapi.ContainerEventResponse{ContainerId: id, ContainerEventType: kind, CreatedAt: r.cfg.Clock.Now().UnixNano(),
		PodSandboxStatus: sandboxStatus(&sb.rec)}
	for _, c := range r.containersOf(sb) {
		ev.ContainersStatuses = append(ev.ContainersStatuses, containerStatus(&c.rec))
	}
	r.mu.Unlock()
	r.events.send(ev)
}
