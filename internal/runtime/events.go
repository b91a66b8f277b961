package runtime

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// GetContainerEvents sends what happens to ch until ctx ends. The callback, if there is one, is called with nil once nothing that happens
// from then on can be missed.
func (r *Runtime) GetContainerEvents(ctx context.Context, ch chan *runtimeapi.ContainerEventResponse,
	established func(runtimeapi.RuntimeService_GetContainerEventsClient)) error {
	return r.events.Get(ctx, ch, established)
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
	r.events.Send(ev)
}
