package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// containersOf lists a sandbox's containers, oldest first. Runtime.mu is held.
func (r *Runtime) containersOf(sb *sandbox) []*container { return slices.Clone(sb.containers) }

// containersIn are those that a filter by sandbox can mean: of one sandbox if its whole ID is given, else all. Runtime.mu is held meanwhile.
func (r *Runtime) containersIn(sandboxID string) iter.Seq[*container] {
	if sb := r.sandboxes[sandboxID]; sb != nil {
		return slices.Values(sb.containers)
	}
	return maps.Values(r.containers)
}

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

// PodSandboxStatus tells a sandbox's state with that of its containers. Verbose adds "pid" (of pause, 0 if there is none) and, as JSON for
// people who look, "info".
func (r *Runtime) PodSandboxStatus(_ context.Context, id string, verbose bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	sb, err := r.findSandbox(id)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	resp := &runtimeapi.PodSandboxStatusResponse{Status: sandboxStatus(&sb.rec), Timestamp: r.cfg.Clock.Now().UnixNano()}
	for _, c := range r.containersOf(sb) {
		resp.ContainersStatuses = append(resp.ContainersStatuses, containerStatus(&c.rec))
	}
	rec := sb.rec
	r.mu.Unlock()
	if !verbose {
		return resp, nil
	}
	info := map[string]any{"pid": 0, "config": rec.Config, "shim": r.cfg.shimSocket(rec.ID), "cgroup": path.Dir(r.containerCgroup(sb, "x"))}
	if rec.Ready {
		info["pid"] = rec.PausePID
		info["namespaces"] = fmt.Sprintf("/proc/%d/ns", rec.PausePID)
	}
	resp.Info, err = verboseInfo(info)
	return resp, err
}

// ContainerStatus tells a container's state. Verbose adds "pid" and, as JSON for people who look, "info" with its cgroup, what was asked
// for, and the OCI specification it became.
func (r *Runtime) ContainerStatus(_ context.Context, id string, verbose bool) (*runtimeapi.ContainerStatusResponse, error) {
	c, err := r.findContainer(id)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	resp, rec := &runtimeapi.ContainerStatusResponse{Status: containerStatus(&c.rec)}, c.rec
	r.mu.Unlock()
	if !verbose {
		return resp, nil
	}
	info := map[string]any{"pid": rec.PID, "cgroup": rec.Cgroup, "sandboxID": rec.SandboxID, "config": rec.Config}
	if raw, err := os.ReadFile(filepath.Join(r.cfg.bundleDir(rec.ID), "config.json")); err == nil && json.Valid(raw) { // it ends with the boot
		info["runtimeSpec"] = json.RawMessage(raw)
	}
	resp.Info, err = verboseInfo(info)
	return resp, err
}

func verboseInfo(info map[string]any) (map[string]string, error) {
	raw, err := json.Marshal(info)
	return map[string]string{"pid": fmt.Sprint(info["pid"]), "info": string(raw)}, err
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
	for c := range r.containersIn(f.GetPodSandboxId()) {
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
