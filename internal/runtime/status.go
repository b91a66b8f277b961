package runtime

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// containersOf lists a sandbox's containers, oldest first. Runtime.mu is held.
func (r *Runtime) containersOf(sb *sandbox) []*container { return slices.Clone(sb.containers) }

func sandboxState(rec *sandboxRecord) runtimeapi.PodSandboxState {
	if rec.Ready {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}

func sandboxStatus(rec *sandboxRecord) *runtimeapi.PodSandboxStatus {
	c := rec.Config
	s := &runtimeapi.PodSandboxStatus{Id: rec.ID, Metadata: c.GetMetadata(), State: sandboxState(rec), CreatedAt: rec.CreatedAt,
		Labels: c.GetLabels(), Annotations: c.GetAnnotations(), RuntimeHandler: rec.Handler, Network: &runtimeapi.PodSandboxNetworkStatus{},
		Linux: &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: c.GetLinux().GetSecurityContext().GetNamespaceOptions()}}}
	for i, ip := range rec.IPs {
		if i == 0 {
			s.Network.Ip = ip.String()
		} else {
			s.Network.AdditionalIps = append(s.Network.AdditionalIps, &runtimeapi.PodIP{Ip: ip.String()})
		}
	}
	return s
}

func containerStatus(rec *containerRecord) *runtimeapi.ContainerStatus {
	c := rec.Config
	s := &runtimeapi.ContainerStatus{Id: rec.ID, Metadata: c.GetMetadata(), State: rec.State, CreatedAt: rec.CreatedAt, StartedAt: rec.StartedAt,
		FinishedAt: rec.FinishedAt, ExitCode: rec.ExitCode, Image: c.GetImage(), ImageRef: rec.ImageRef, ImageId: rec.ImageID, Reason: rec.Reason,
		Message: rec.Message, Labels: c.GetLabels(), Annotations: c.GetAnnotations(), Mounts: c.GetMounts(), LogPath: rec.LogPath,
		StopSignal: c.GetStopSignal(), Resources: &runtimeapi.ContainerResources{Linux: rec.Resources}}
	u := &runtimeapi.LinuxContainerUser{Uid: int64(rec.User.UID), Gid: int64(rec.User.GID)}
	for _, g := range rec.User.Groups {
		u.SupplementalGroups = append(u.SupplementalGroups, int64(g))
	}
	s.User = &runtimeapi.ContainerUser{Linux: u}
	return s
}

// PodSandboxStatus tells a sandbox's state with that of its containers. Verbose adds info "pid" (of pause) and "netns".
func (r *Runtime) PodSandboxStatus(_ context.Context, id string, verbose bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	sb, err := r.findSandbox(id)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	resp := &runtimeapi.PodSandboxStatusResponse{Status: sandboxStatus(&sb.rec), Timestamp: r.cfg.Clock.Now().UnixNano()}
	for _, c := range r.containersOf(sb) {
		resp.ContainersStatuses = append(resp.ContainersStatuses, containerStatus(&c.rec))
	}
	if verbose {
		pid := 0
		if sb.rec.Ready {
			pid = sb.rec.PausePID
		}
		resp.Info = map[string]string{"pid": strconv.Itoa(pid)}
	}
	return resp, nil
}

// ContainerStatus tells a container's state. Verbose adds info "pid" and "info", the latter with pid and cgroup as JSON.
func (r *Runtime) ContainerStatus(_ context.Context, id string, verbose bool) (*runtimeapi.ContainerStatusResponse, error) {
	c, err := r.findContainer(id)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	resp := &runtimeapi.ContainerStatusResponse{Status: containerStatus(&c.rec)}
	if verbose {
		info, err := json.Marshal(map[string]any{"pid": c.rec.PID, "cgroup": c.rec.Cgroup, "sandboxID": c.rec.SandboxID})
		if err != nil {
			return nil, err
		}
		resp.Info = map[string]string{"pid": strconv.Itoa(c.rec.PID), "info": string(info)}
	}
	return resp, nil
}

func hasLabels(have, want map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// ListPodSandbox lists sandboxes, newest first.
func (r *Runtime) ListPodSandbox(_ context.Context, f *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*runtimeapi.PodSandbox
	for _, sb := range r.sandboxes {
		rec := &sb.rec
		if !prefixed(rec.ID, f.GetId()) || f.GetState() != nil && f.GetState().GetState() != sandboxState(rec) ||
			!hasLabels(rec.Config.GetLabels(), f.GetLabelSelector()) {
			continue
		}
		list = append(list, &runtimeapi.PodSandbox{Id: rec.ID, Metadata: rec.Config.GetMetadata(), State: sandboxState(rec), CreatedAt: rec.CreatedAt,
			Labels: rec.Config.GetLabels(), Annotations: rec.Config.GetAnnotations(), RuntimeHandler: rec.Handler})
	}
	slices.SortFunc(list, func(a, b *runtimeapi.PodSandbox) int { return int(b.CreatedAt - a.CreatedAt) })
	return list, nil
}

func prefixed(id, prefix string) bool { return len(prefix) <= len(id) && id[:len(prefix)] == prefix }

// ListContainers lists containers, newest first.
func (r *Runtime) ListContainers(_ context.Context, f *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*runtimeapi.Container
	for _, c := range r.containers {
		rec := &c.rec
		if !prefixed(rec.ID, f.GetId()) || !prefixed(rec.SandboxID, f.GetPodSandboxId()) || f.GetState() != nil && f.GetState().GetState() != rec.State ||
			!hasLabels(rec.Config.GetLabels(), f.GetLabelSelector()) {
			continue
		}
		list = append(list, &runtimeapi.Container{Id: rec.ID, PodSandboxId: rec.SandboxID, Metadata: rec.Config.GetMetadata(), Image: rec.Config.GetImage(),
			ImageRef: rec.ImageRef, ImageId: rec.ImageID, State: rec.State, CreatedAt: rec.CreatedAt, Labels: rec.Config.GetLabels(),
			Annotations: rec.Config.GetAnnotations()})
	}
	slices.SortFunc(list, func(a, b *runtimeapi.Container) int { return int(b.CreatedAt - a.CreatedAt) })
	return list, nil
}
