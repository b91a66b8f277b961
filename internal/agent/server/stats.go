package server

import (
	"context"
	"fmt"
	"net/http"
	"sort"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"carob.dev/carob/internal/agent/criconf"
	"carob.dev/carob/internal/agent/podstate"
	"carob.dev/carob/internal/sys"
)

// usage remembers processor times, to tell rates from one request to the next.
type usage struct {
	mu   sync.Mutex // guards last
	last map[string]sample
}

type sample struct {
	at   time.Time
	cpu  uint64
	rate *uint64
}

// rate is the processor use in billionths of a core since the sample before; nil while there is only one. Samples are a second apart at least.
func (u *usage) rate(key string, now time.Time, cpu uint64) *uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	s, ok := u.last[key]
	if ok && now.Sub(s.at) < time.Second {
		return s.rate
	}
	fresh := sample{at: now, cpu: cpu}
	if ok && cpu >= s.cpu {
		r := uint64(float64(cpu-s.cpu) / now.Sub(s.at).Seconds())
		fresh.rate = &r
	}
	u.last[key] = fresh
	return fresh.rate
}

// keep forgets all but the given cgroups.
func (u *usage) keep(seen map[string]bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for key := range u.last {
		if !seen[key] {
			delete(u.last, key)
		}
	}
}

func (s *server) cgroup(path string, now time.Time, seen map[string]bool) (*stats.CPUStats, *stats.MemoryStats) {
	u, err := sys.CgroupStats(path)
	if err != nil {
		return nil, nil // it has just ended
	}
	seen[path] = true
	at := metav1.NewTime(now)
	cpu := &stats.CPUStats{Time: at, UsageCoreNanoSeconds: &u.CPU, UsageNanoCores: s.usage.rate(path, now, u.CPU)}
	mem := &stats.MemoryStats{Time: at, UsageBytes: &u.Memory, WorkingSetBytes: &u.WorkingSet, RSSBytes: &u.RSS, PageFaults: &u.Faults, MajorPageFaults: &u.MajorFaults}
	if u.Limit > 0 {
		free := u.Limit - min(u.Limit, u.WorkingSet)
		mem.AvailableBytes = &free
	}
	return cpu, mem
}

func (s *server) gather(ctx context.Context) stats.Summary {
	now := s.Clock.Now()
	seen := map[string]bool{}
	sum := stats.Summary{Node: stats.NodeStats{NodeName: s.NodeName, StartTime: metav1.NewTime(bootTime(now))}, Pods: []stats.PodStats{}}
	sum.Node.CPU, sum.Node.Memory = s.cgroup("/"+s.CgroupRoot, now, seen)
	sum.Node.Fs = fileSystem(s.Root, now)
	if info, err := s.Images.ImageFsInfo(ctx); err == nil && len(info.GetImageFilesystems()) > 0 {
		fs := fileSystem(info.GetImageFilesystems()[0].GetFsId().GetMountpoint(), now)
		if used := info.GetImageFilesystems()[0].GetUsedBytes().GetValue(); fs != nil {
			fs.UsedBytes = &used
		}
		sum.Node.Runtime = &stats.RuntimeStats{ImageFs: fs}
	}
	for _, v := range s.Pods.Views() {
		if v.SandboxID == "" {
			continue
		}
		path := criconf.CgroupParent(s.CgroupRoot, v.Pod)
		p := stats.PodStats{PodRef: stats.PodReference{Name: v.Pod.Name, Namespace: v.Pod.Namespace, UID: string(v.Pod.UID)}}
		if v.Status.StartTime != nil {
			p.StartTime = *v.Status.StartTime
		}
		p.CPU, p.Memory = s.cgroup(path, now, seen)
		for _, spec := range podstate.Containers(v.Pod) {
			id := v.Logs[spec.Name].RunningID
			if id == "" {
				continue
			}
			c := stats.ContainerStats{Name: spec.Name}
			c.CPU, c.Memory = s.cgroup(path+"/"+id, now, seen)
			for _, cs := range v.Status.ContainerStatuses {
				if cs.Name == spec.Name && cs.State.Running != nil {
					c.StartTime = cs.State.Running.StartedAt
				}
			}
			p.Containers = append(p.Containers, c)
		}
		sum.Pods = append(sum.Pods, p)
	}
	s.usage.keep(seen)
	return sum
}

func bootTime(now time.Time) time.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return now
	}
	return now.Add(-time.Duration(ts.Nano())).Truncate(time.Second)
}

func fileSystem(path string, now time.Time) *stats.FsStats {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return nil
	}
	size := uint64(fs.Bsize)
	free, total, inodes, inodesFree := fs.Bavail*size, fs.Blocks*size, fs.Files, fs.Ffree
	used, inodesUsed := total-fs.Bfree*size, inodes-inodesFree
	return &stats.FsStats{Time: metav1.NewTime(now), AvailableBytes: &free, CapacityBytes: &total, UsedBytes: &used, InodesFree: &inodesFree, Inodes: &inodes, InodesUsed: &inodesUsed}
}

func (s *server) summary(w http.ResponseWriter, r *http.Request) { answer(w, s.gather(r.Context())) }

// metrics are kubelet's resource metrics, in the text form of Prometheus.
func (s *server) metrics(w http.ResponseWriter, r *http.Request) {
	sum := s.gather(r.Context())
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	lines := map[string][]string{}
	add := func(name, labels string, cpu *stats.CPUStats, mem *stats.MemoryStats) {
		if cpu != nil {
			lines[name+"_cpu_usage_seconds_total"] = append(lines[name+"_cpu_usage_seconds_total"],
				fmt.Sprintf("%s_cpu_usage_seconds_total%s %g %d", name, labels, float64(*cpu.UsageCoreNanoSeconds)/1e9, cpu.Time.UnixMilli()))
		}
		if mem != nil {
			lines[name+"_memory_working_set_bytes"] = append(lines[name+"_memory_working_set_bytes"],
				fmt.Sprintf("%s_memory_working_set_bytes%s %d %d", name, labels, *mem.WorkingSetBytes, mem.Time.UnixMilli()))
		}
	}
	add("node", "", sum.Node.CPU, sum.Node.Memory)
	phases := map[corev1.PodPhase]int{}
	for _, v := range s.Pods.Views() {
		phases[v.Status.Phase]++
	}
	for _, p := range sum.Pods {
		add("pod", fmt.Sprintf("{namespace=%q,pod=%q}", p.PodRef.Namespace, p.PodRef.Name), p.CPU, p.Memory)
		for _, c := range p.Containers {
			add("container", fmt.Sprintf("{container=%q,namespace=%q,pod=%q}", c.Name, p.PodRef.Namespace, p.PodRef.Name), c.CPU, c.Memory)
		}
	}
	names := make([]string, 0, len(lines))
	for n := range lines {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		kind := "gauge"
		if n[len(n)-6:] == "_total" {
			kind = "counter"
		}
		fmt.Fprintf(w, "# TYPE %s %s\n", n, kind)
		for _, l := range lines[n] {
			fmt.Fprintln(w, l)
		}
	}
	fmt.Fprintln(w, "# TYPE carob_pods gauge")
	for _, p := range []corev1.PodPhase{corev1.PodPending, corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed} {
		fmt.Fprintf(w, "carob_pods{phase=%q} %d\n", p, phases[p])
	}
}
