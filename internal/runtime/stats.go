package runtime

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"path/filepath"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/sys"
)

func value(n uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: n} }

// ContainerStats tells what a container uses. One that does not run has no cgroup and tells nothing of CPU and memory.
func (r *Runtime) ContainerStats(_ context.Context, id string) (*runtimeapi.ContainerStats, error) {
	c, err := r.findContainer(id)
	if err != nil {
		return nil, err
	}
	return r.containerStats(c)
}

func (r *Runtime) containerStats(c *container) (*runtimeapi.ContainerStats, error) {
	r.mu.Lock()
	rec := c.rec
	r.mu.Unlock()
	now := r.cfg.Clock.Now().UnixNano()
	s := &runtimeapi.ContainerStats{Attributes: &runtimeapi.ContainerAttributes{Id: rec.ID, Metadata: rec.Config.GetMetadata(),
		Labels: rec.Config.GetLabels(), Annotations: rec.Config.GetAnnotations()}}
	upper := filepath.Join(r.cfg.containerDir(rec.ID), "upper")
	if bytes, inodes, err := sys.DiskUsage(upper); err == nil {
		s.WritableLayer = &runtimeapi.FilesystemUsage{Timestamp: now, FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: r.cfg.Root},
			UsedBytes: value(bytes), InodesUsed: value(inodes)}
	}
	u, err := sys.CgroupStats(rec.Cgroup)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	s.Cpu, s.Memory = usage(u, now)
	s.Swap = &runtimeapi.SwapUsage{Timestamp: now, SwapUsageBytes: value(u.Swap)}
	return s, nil
}

func usage(u sys.CgroupUsage, now int64) (*runtimeapi.CpuUsage, *runtimeapi.MemoryUsage) {
	mem := &runtimeapi.MemoryUsage{Timestamp: now, WorkingSetBytes: value(u.WorkingSet), UsageBytes: value(u.Memory), RssBytes: value(u.RSS),
		PageFaults: value(u.Faults), MajorPageFaults: value(u.MajorFaults)}
	if u.Limit > 0 {
		mem.AvailableBytes = value(u.Limit - min(u.Limit, u.WorkingSet))
	}
	return &runtimeapi.CpuUsage{Timestamp: now, UsageCoreNanoSeconds: value(u.CPU)}, mem
}

// ListContainerStats tells what the running containers that the filter takes use.
func (r *Runtime) ListContainerStats(_ context.Context, f *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error) {
	var list []*runtimeapi.ContainerStats
	for _, c := range r.runningContainers(f.GetId(), f.GetPodSandboxId(), f.GetLabelSelector()) {
		s, err := r.containerStats(c)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

func (r *Runtime) runningContainers(id, sandboxID string, labels map[string]string) []*container {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*container
	for c := range r.containersIn(sandboxID) {
		if c.rec.State == runtimeapi.ContainerState_CONTAINER_RUNNING && prefixed(c.rec.ID, id) && prefixed(c.rec.SandboxID, sandboxID) &&
			hasLabels(c.rec.Config.GetLabels(), labels) {
			list = append(list, c)
		}
	}
	return list
}

// PodSandboxStats tells what a Pod uses: its cgroup as a whole, its interfaces, and each running container.
func (r *Runtime) PodSandboxStats(_ context.Context, id string) (*runtimeapi.PodSandboxStats, error) {
	sb, err := r.findSandbox(id)
	if err != nil {
		return nil, err
	}
	return r.sandboxStats(sb)
}

func (r *Runtime) sandboxStats(sb *sandbox) (*runtimeapi.PodSandboxStats, error) {
	r.mu.Lock()
	rec := sb.rec
	r.mu.Unlock()
	now := r.cfg.Clock.Now().UnixNano()
	linux := &runtimeapi.LinuxPodSandboxStats{Process: &runtimeapi.ProcessUsage{Timestamp: now}}
	u, err := sys.CgroupStats(path.Dir(r.containerCgroup(sb, "x")))
	switch {
	case err == nil:
		linux.Cpu, linux.Memory = usage(u, now)
		linux.Process.ProcessCount = value(u.PIDs)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if rec.Ready && rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() != runtimeapi.NamespaceMode_NODE {
		if list, err := sys.InterfaceUsage(rec.PausePID); err == nil {
			linux.Network = networkUsage(list, now)
		}
	}
	for _, c := range r.runningContainers("", rec.ID, nil) {
		s, err := r.containerStats(c)
		if err != nil {
			return nil, err
		}
		linux.Containers = append(linux.Containers, s)
	}
	return &runtimeapi.PodSandboxStats{Linux: linux, Attributes: &runtimeapi.PodSandboxAttributes{Id: rec.ID, Metadata: rec.Config.GetMetadata(),
		Labels: rec.Config.GetLabels(), Annotations: rec.Config.GetAnnotations()}}, nil
}

func networkUsage(list []sys.Interface, now int64) *runtimeapi.NetworkUsage {
	n := &runtimeapi.NetworkUsage{Timestamp: now}
	for _, i := range list {
		if i.Name == "lo" {
			continue
		}
		u := &runtimeapi.NetworkInterfaceUsage{Name: i.Name, RxBytes: value(i.RxBytes), RxErrors: value(i.RxErrors), TxBytes: value(i.TxBytes), TxErrors: value(i.TxErrors)}
		n.Interfaces = append(n.Interfaces, u)
		if n.DefaultInterface == nil || i.Name == "eth0" {
			n.DefaultInterface = u
		}
	}
	return n
}

// ListPodSandboxStats tells what the ready Pods that the filter takes use.
func (r *Runtime) ListPodSandboxStats(_ context.Context, f *runtimeapi.PodSandboxStatsFilter) ([]*runtimeapi.PodSandboxStats, error) {
	r.mu.Lock()
	var list []*sandbox
	for _, sb := range r.sandboxes {
		if sb.rec.Ready && prefixed(sb.rec.ID, f.GetId()) && hasLabels(sb.rec.Config.GetLabels(), f.GetLabelSelector()) {
			list = append(list, sb)
		}
	}
	r.mu.Unlock()
	var out []*runtimeapi.PodSandboxStats
	for _, sb := range list {
		s, err := r.sandboxStats(sb)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}
