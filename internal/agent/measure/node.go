package measure

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"carob.dev/carob/internal/sys"
)

// Memory is that of the machine, in bytes.
type Memory struct {
	Total, Free, InactiveFile, Anonymous, SwapTotal, SwapFree uint64
}

// Usage is all that is taken.
func (m Memory) Usage() uint64 { return m.Total - min(m.Total, m.Free) }

// WorkingSet is what is taken and cannot be had back easily.
func (m Memory) WorkingSet() uint64 { return m.Usage() - min(m.Usage(), m.InactiveFile) }

// Available is what is left of all memory beside the working set: kubelet's memory.available.
func (m Memory) Available() uint64 { return m.Total - m.WorkingSet() }

// ReadMemory reads /proc/meminfo, which tells the same on cgroup v1 and v2.
func ReadMemory() (Memory, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return Memory{}, fmt.Errorf("read the machine's memory: %w", err)
	}
	defer f.Close()
	var m Memory
	into := map[string]*uint64{"MemTotal:": &m.Total, "MemFree:": &m.Free, "Inactive(file):": &m.InactiveFile, "AnonPages:": &m.Anonymous,
		"SwapTotal:": &m.SwapTotal, "SwapFree:": &m.SwapFree}
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 || into[fields[0]] == nil {
			continue
		}
		kib, err := strconv.ParseUint(fields[1], 10, 64)
		if err != nil {
			return Memory{}, fmt.Errorf("read the machine's memory: %w", err)
		}
		*into[fields[0]] = kib << 10
	}
	return m, nil
}

// ProcessorTime is how long the machine's processors have worked, in nanoseconds, to a hundredth of a second.
func ProcessorTime() (uint64, error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read the machine's processor time: %w", err)
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	fields := strings.Fields(line)
	var ticks uint64
	for i, f := range fields {
		if i == 0 || i == 4 || i == 5 || i > 8 { // the name, idle, waiting for disks, guests, which are in user already
			continue
		}
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the machine's processor time: %w", err)
		}
		ticks += n
	}
	const perSecond = 100 // USER_HZ, on every architecture of ours
	return ticks * uint64(time.Second/perSecond), nil
}

func (g *gauge) node(n *stats.NodeStats) {
	at := metav1.NewTime(g.now)
	if used, err := ProcessorTime(); err == nil {
		n.CPU = g.cpu(nodeKey, used, time.Time{})
	}
	if m, err := ReadMemory(); err == nil {
		usage, set, available, swap, swapFree := m.Usage(), m.WorkingSet(), m.Available(), m.SwapTotal-m.SwapFree, m.SwapFree
		n.Memory = &stats.MemoryStats{Time: at, UsageBytes: &usage, WorkingSetBytes: &set, AvailableBytes: &available, RSSBytes: &m.Anonymous}
		n.Swap = &stats.SwapStats{Time: at, SwapUsageBytes: &swap, SwapAvailableBytes: &swapFree}
	}
	if current, most, err := Processes(); err == nil {
		n.Rlimit = &stats.RlimitStats{Time: at, MaxPID: &most, NumOfRunningProcesses: &current}
	}
	path := g.m.cfg.Cgroups.Level(corev1.PodQOSGuaranteed)
	if u, err := sys.CgroupStats(path); err == nil {
		pods := stats.ContainerStats{Name: stats.SystemContainerPods, StartTime: n.StartTime}
		pods.CPU, pods.Memory, pods.Swap = g.show(path, u, time.Time{})
		n.SystemContainers = []stats.ContainerStats{pods}
	}
}

// Processes is how many processes and threads there are, and may be.
func Processes() (current, most int64, err error) {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, 0, fmt.Errorf("count processes: %w", err)
	}
	fields := strings.Fields(string(raw))
	if len(fields) < 4 {
		return 0, 0, fmt.Errorf("count processes: /proc/loadavg is %q", raw)
	}
	_, all, _ := strings.Cut(fields[3], "/")
	if current, err = strconv.ParseInt(all, 10, 64); err != nil {
		return 0, 0, fmt.Errorf("count processes: %w", err)
	}
	for _, file := range []string{"/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"} {
		raw, err := os.ReadFile(file)
		if err != nil {
			return 0, 0, fmt.Errorf("count processes: %w", err)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("count processes: %w", err)
		}
		if most == 0 || n < most {
			most = n
		}
	}
	return current, most, nil
}

func bootTime(now time.Time) time.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return now
	}
	return now.Add(-time.Duration(ts.Nano())).Truncate(time.Second)
}

func hostNetwork(at metav1.Time) *stats.NetworkStats {
	list, err := sys.InterfaceUsage(os.Getpid())
	if err != nil {
		return nil
	}
	out := &stats.NetworkStats{Time: at}
	for _, i := range list {
		if i.Name == "lo" || strings.HasPrefix(i.Name, "cb") && len(i.Name) == 14 { // the other ends of the Pods' own
			continue
		}
		out.Interfaces = append(out.Interfaces, stats.InterfaceStats{Name: i.Name, RxBytes: &i.RxBytes, RxErrors: &i.RxErrors, TxBytes: &i.TxBytes, TxErrors: &i.TxErrors})
	}
	if len(out.Interfaces) > 0 {
		out.InterfaceStats = out.Interfaces[0]
	}
	return out
}

// nodeDisks measures the file systems of what Pods write and of the images.
func (m *Meter) nodeDisks(ctx context.Context, n *stats.NodeStats) {
	n.Fs = FileSystem(m.cfg.Root, m.now())
	info, err := m.cfg.Images.ImageFsInfo(ctx)
	if err != nil {
		m.cfg.Log.Info("measure the images' file system", "error", err)
		return
	}
	n.Runtime = &stats.RuntimeStats{}
	if list := info.GetImageFilesystems(); len(list) > 0 {
		if n.Runtime.ImageFs = FileSystem(list[0].GetFsId().GetMountpoint(), m.now()); n.Runtime.ImageFs != nil {
			used := list[0].GetUsedBytes().GetValue()
			n.Runtime.ImageFs.UsedBytes = &used
		}
	}
	containers := m.cfg.Root
	if list := info.GetContainerFilesystems(); len(list) > 0 {
		containers = list[0].GetFsId().GetMountpoint()
	}
	n.Runtime.ContainerFs = FileSystem(containers, m.now())
}

// FileSystem measures the one that path is on; nil if there is none.
func FileSystem(path string, at metav1.Time) *stats.FsStats {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return nil
	}
	size := uint64(fs.Bsize)
	free, total, inodes, inodesFree := fs.Bavail*size, fs.Blocks*size, fs.Files, fs.Ffree
	used, inodesUsed := total-fs.Bfree*size, inodes-inodesFree
	return &stats.FsStats{Time: at, AvailableBytes: &free, CapacityBytes: &total, UsedBytes: &used, InodesFree: &inodesFree, Inodes: &inodes, InodesUsed: &inodesUsed}
}

// Node measures what the node has left, and nothing of its Pods but what they use of memory in all.
func (m *Meter) Node(ctx context.Context) (stats.NodeStats, error) {
	mem, err := ReadMemory()
	if err != nil {
		return stats.NodeStats{}, err
	}
	current, most, err := Processes()
	if err != nil {
		return stats.NodeStats{}, err
	}
	set, available := mem.WorkingSet(), mem.Available()
	n := stats.NodeStats{NodeName: m.cfg.NodeName, Memory: &stats.MemoryStats{WorkingSetBytes: &set, AvailableBytes: &available},
		Rlimit: &stats.RlimitStats{MaxPID: &most, NumOfRunningProcesses: &current}}
	if u, err := sys.CgroupStats(m.cfg.Cgroups.Level(corev1.PodQOSGuaranteed)); err == nil && u.Limit > 0 {
		free := u.Limit - min(u.Limit, u.WorkingSet)
		n.SystemContainers = []stats.ContainerStats{{Name: stats.SystemContainerPods, Memory: &stats.MemoryStats{WorkingSetBytes: &u.WorkingSet, AvailableBytes: &free}}}
	}
	m.nodeDisks(ctx, &n)
	return n, nil
}

// OneDisk says that the images are on the disk that Pods write to, as far as is known.
func (m *Meter) OneDisk(ctx context.Context) bool {
	info, err := m.cfg.Images.ImageFsInfo(ctx)
	if err != nil || len(info.GetImageFilesystems()) == 0 {
		return true
	}
	images := device(info.GetImageFilesystems()[0].GetFsId().GetMountpoint())
	return images == 0 || images == device(m.cfg.Root)
}
