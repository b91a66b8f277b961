package measure

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/agent/criconf"
	"carob.dev/carob/internal/agent/podstate"
	"carob.dev/carob/internal/agent/volume"
	"carob.dev/carob/internal/sys"
)

// Config is what a Meter needs. All must be set.
type Config struct {
	Runtime  cri.RuntimeService
	Images   cri.ImageManagerService
	NodeName string
	// Cgroups names the cgroups of Pods.
	Cgroups criconf.Cgroups
	// Root is the folder that holds what Pods write, LogsDir that of their logs.
	Root, LogsDir string
	// PodDir is the folder of a Pod's volumes and files.
	PodDir func(types.UID) string
	// Backed are the Pod's volumes that claims and drivers give it.
	Backed func(types.UID) []volume.Backed
	Log    *slog.Logger
	Clock  clock.Clock
}

// Meter measures. It is safe for concurrent use.
type Meter struct {
	cfg   Config
	rates rates
	slow  slow
}

// New returns a Meter.
func New(cfg Config) *Meter {
	return &Meter{cfg: cfg, rates: rates{seen: map[string]pair{}}, slow: slow{clock: cfg.Clock, answers: map[string]*answer{}}}
}

// Pod is one to measure.
type Pod struct {
	Pod    *corev1.Pod
	Status *corev1.PodStatus
	// SandboxID is that of its sandbox, if that is ready; Running are the IDs of its running containers, by name.
	SandboxID string
	Running   map[string]string
}

// Counters measures processor, memory and swap of the node and the Pods, and waits for nothing: rates may be missing.
func (m *Meter) Counters(ctx context.Context, pods []Pod) stats.Summary {
	sum, _ := m.usage(ctx, pods)
	return sum
}

// Usage is Counters with rates, and the window that those of the node are over. Where nobody has asked for long it waits a second, to have
// something to compare with.
func (m *Meter) Usage(ctx context.Context, pods []Pod) (stats.Summary, time.Duration, error) {
	sum, g := m.usage(ctx, pods)
	if g.complete {
		return sum, g.window, nil
	}
	timer := m.cfg.Clock.NewTimer(least)
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-ctx.Done():
		return sum, 0, ctx.Err()
	}
	sum, g = m.usage(ctx, pods)
	return sum, g.window, nil
}

// Summary is Usage, and the network and disks. It looks at every file that Pods have written.
func (m *Meter) Summary(ctx context.Context, pods []Pod) (stats.Summary, time.Duration, error) {
	sum, window, err := m.Usage(ctx, pods)
	if err != nil {
		return sum, 0, err
	}
	m.nodeDisks(ctx, &sum.Node)
	sum.Node.Network = hostNetwork(m.now())
	known := m.runtimeStats(ctx)
	for i := range sum.Pods {
		p := &sum.Pods[i]
		for _, subject := range pods {
			if subject.Pod.UID == types.UID(p.PodRef.UID) {
				m.podDisks(p, subject, known[subject.SandboxID])
				p.Network = network(known[subject.SandboxID].GetNetwork(), m.now())
			}
		}
	}
	return sum, window, nil
}

func (m *Meter) now() metav1.Time { return metav1.NewTime(m.cfg.Clock.Now()) }

func (m *Meter) usage(ctx context.Context, pods []Pod) (stats.Summary, *gauge) {
	now := m.cfg.Clock.Now()
	g := &gauge{m: m, now: now, seen: map[string]bool{}, complete: true}
	sum := stats.Summary{Node: stats.NodeStats{NodeName: m.cfg.NodeName, StartTime: metav1.NewTime(bootTime(now))}, Pods: []stats.PodStats{}}
	g.node(&sum.Node)
	for _, p := range pods {
		if p.SandboxID == "" {
			continue
		}
		sum.Pods = append(sum.Pods, g.pod(ctx, p))
	}
	m.rates.keep(g.seen)
	return sum, g
}

// nodeKey stands for the node among the cgroups.
const nodeKey = ""

// gauge is one measurement.
type gauge struct {
	m    *Meter
	now  time.Time
	seen map[string]bool
	// complete says that all rates are known, window over which time that of the node is.
	complete bool
	window   time.Duration
}

func (g *gauge) pod(ctx context.Context, p Pod) stats.PodStats {
	out := stats.PodStats{PodRef: stats.PodReference{Name: p.Pod.Name, Namespace: p.Pod.Namespace, UID: string(p.Pod.UID)}}
	if p.Status.StartTime != nil {
		out.StartTime = *p.Status.StartTime
	}
	path := g.m.cfg.Cgroups.Pod(p.Pod)
	if u, err := sys.CgroupStats(path); err == nil {
		out.CPU, out.Memory, out.Swap = g.show(path, u, out.StartTime.Time)
		out.ProcessStats = &stats.ProcessStats{ProcessCount: &u.PIDs}
	}
	for _, spec := range podstate.Containers(p.Pod) {
		id := p.Running[spec.Name]
		if id == "" {
			continue
		}
		c := stats.ContainerStats{Name: spec.Name, StartTime: startOf(p.Status, spec.Name)}
		u, err := sys.CgroupStats(g.m.cfg.Cgroups.Container(path, id))
		if errors.Is(err, fs.ErrNotExist) {
			u, err = g.m.ask(ctx, id)
		}
		if err != nil {
			continue // it has just ended
		}
		c.CPU, c.Memory, c.Swap = g.show(id, u, c.StartTime.Time)
		out.Containers = append(out.Containers, c)
	}
	return out
}

// ask has the runtime tell: one that is not ours has cgroups of its own.
func (m *Meter) ask(ctx context.Context, id string) (sys.CgroupUsage, error) {
	s, err := m.cfg.Runtime.ContainerStats(ctx, id)
	if err != nil || s.GetCpu() == nil {
		return sys.CgroupUsage{}, errors.Join(err, fs.ErrNotExist)
	}
	mem := s.GetMemory()
	u := sys.CgroupUsage{CPU: s.GetCpu().GetUsageCoreNanoSeconds().GetValue(), Memory: mem.GetUsageBytes().GetValue(),
		WorkingSet: mem.GetWorkingSetBytes().GetValue(), RSS: mem.GetRssBytes().GetValue(), Faults: mem.GetPageFaults().GetValue(),
		MajorFaults: mem.GetMajorPageFaults().GetValue(), Swap: s.GetSwap().GetSwapUsageBytes().GetValue()}
	if free := mem.GetAvailableBytes(); free != nil {
		u.Limit = u.WorkingSet + free.GetValue()
	}
	return u, nil
}

func (g *gauge) show(key string, u sys.CgroupUsage, born time.Time) (*stats.CPUStats, *stats.MemoryStats, *stats.SwapStats) {
	at := metav1.NewTime(g.now)
	mem := &stats.MemoryStats{Time: at, UsageBytes: &u.Memory, WorkingSetBytes: &u.WorkingSet, RSSBytes: &u.RSS, PageFaults: &u.Faults, MajorPageFaults: &u.MajorFaults}
	if u.Limit > 0 {
		free := u.Limit - min(u.Limit, u.WorkingSet)
		mem.AvailableBytes = &free
	}
	return g.cpu(key, u.CPU, born), mem, &stats.SwapStats{Time: at, SwapUsageBytes: &u.Swap}
}

func (g *gauge) cpu(key string, used uint64, born time.Time) *stats.CPUStats {
	g.seen[key] = true
	out := &stats.CPUStats{Time: metav1.NewTime(g.now), UsageCoreNanoSeconds: &used}
	if r, ok := g.m.rates.add(key, g.now, used, born); ok {
		out.UsageNanoCores = &r.NanoCores
		if key == nodeKey {
			g.window = r.Window
		}
	} else if born.IsZero() || g.now.Sub(born) >= least {
		g.complete = false
	}
	return out
}

func startOf(s *corev1.PodStatus, name string) metav1.Time {
	for _, list := range [][]corev1.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses, s.EphemeralContainerStatuses} {
		for _, c := range list {
			if c.Name == name && c.State.Running != nil {
				return c.State.Running.StartedAt
			}
		}
	}
	return metav1.Time{}
}

// runtimeStats are what the runtime knows of disks and networks, by sandbox.
func (m *Meter) runtimeStats(ctx context.Context) map[string]*runtimeapi.LinuxPodSandboxStats {
	list, err := m.cfg.Runtime.ListPodSandboxStats(ctx, nil)
	if err != nil {
		m.cfg.Log.Info("measure disks and networks of Pods", "error", err)
	}
	out := map[string]*runtimeapi.LinuxPodSandboxStats{}
	for _, s := range list {
		out[s.GetAttributes().GetId()] = s.GetLinux()
	}
	return out
}
