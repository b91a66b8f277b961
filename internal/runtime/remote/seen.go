package remote

import (
	"cmp"
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// sandboxSeen is what was last told of a sandbox and its containers, by their IDs.
type sandboxSeen struct {
	status     *runtimeapi.PodSandboxStatus
	containers map[string]*runtimeapi.ContainerStatus
}

func seen(sb *runtimeapi.PodSandboxStatus, containers []*runtimeapi.ContainerStatus) *sandboxSeen {
	s := &sandboxSeen{status: sb, containers: map[string]*runtimeapi.ContainerStatus{}}
	for _, c := range containers {
		s.containers[c.GetId()] = c
	}
	return s
}

// differs says whether the lists show another state than s, which is nil for a sandbox that nothing was told of.
func (s *sandboxSeen) differs(sb *runtimeapi.PodSandbox, containers []*runtimeapi.Container) bool {
	if s == nil || s.status.GetState() != sb.GetState() || len(s.containers) != len(containers) {
		return true
	}
	for _, c := range containers {
		if have := s.containers[c.GetId()]; have == nil || have.GetState() != c.GetState() {
			return true
		}
	}
	return false
}

// change is one thing that happened to a container, or to a sandbox by its own ID.
type change struct {
	id   string
	kind runtimeapi.ContainerEventType
}

// changes are what led from one state to the next; either may be nil. The sandbox's own comes last if it ended, and first otherwise.
func changes(before, after *sandboxSeen) []change {
	var list []change
	was, is := map[string]*runtimeapi.ContainerStatus{}, map[string]*runtimeapi.ContainerStatus{}
	if before != nil {
		was = before.containers
	}
	if after != nil {
		is = after.containers
	}
	for id, c := range is {
		if have := was[id]; have == nil || have.GetState() != c.GetState() {
			list = append(list, change{id, kindOf(c.GetState())})
		}
	}
	for id := range was {
		if is[id] == nil {
			list = append(list, change{id, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT})
		}
	}
	slices.SortFunc(list, func(a, b change) int { return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.id, b.id)) })
	switch {
	case after == nil:
		list = append(list, change{before.status.GetId(), runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT})
	case after.status.GetState() == runtimeapi.PodSandboxState_SANDBOX_NOTREADY:
		if before == nil || before.status.GetState() != after.status.GetState() {
			list = append(list, change{after.status.GetId(), runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT})
		}
	case before == nil || before.status.GetState() != after.status.GetState():
		list = slices.Insert(list, 0, change{after.status.GetId(), runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT})
	}
	return list
}

func kindOf(s runtimeapi.ContainerState) runtimeapi.ContainerEventType {
	switch s {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT
	}
	return runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT
}

// vanished are the ends of those containers that had not ended when they were last seen and are no longer there.
func vanished(before *sandboxSeen, after []*runtimeapi.ContainerStatus, now time.Time) []*runtimeapi.ContainerStatus {
	if before == nil {
		return nil
	}
	var list []*runtimeapi.ContainerStatus
	for id, c := range before.containers {
		if c.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED || slices.ContainsFunc(after, func(a *runtimeapi.ContainerStatus) bool { return a.GetId() == id }) {
			continue
		}
		list = append(list, &runtimeapi.ContainerStatus{Id: id, Metadata: c.GetMetadata(), State: runtimeapi.ContainerState_CONTAINER_EXITED, CreatedAt: c.GetCreatedAt(),
			StartedAt: c.GetStartedAt(), FinishedAt: now.UnixNano(), ExitCode: 137, Image: c.GetImage(), ImageRef: c.GetImageRef(), ImageId: c.GetImageId(),
			Labels: c.GetLabels(), Annotations: c.GetAnnotations(), Mounts: c.GetMounts(), LogPath: c.GetLogPath(), Reason: "ContainerStatusUnknown",
			Message: "The container was removed from the runtime before its end was seen"})
	}
	slices.SortFunc(list, func(a, b *runtimeapi.ContainerStatus) int { return cmp.Compare(a.GetId(), b.GetId()) })
	return list
}
