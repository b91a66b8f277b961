package measure

import (
	"context"
	"path/filepath"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"carob.dev/carob/internal/agent/criconf"
	"carob.dev/carob/internal/agent/podstate"
	"carob.dev/carob/internal/sys"
)

// podDisks adds what the Pod's containers, logs and volumes take on disk, and the sum that counts as its ephemeral storage.
func (m *Meter) podDisks(p *stats.PodStats, pod Pod, known *runtimeapi.LinuxPodSandboxStats) {
	at := m.now()
	disk := FileSystem(m.cfg.Root, at)
	if disk == nil {
		return
	}
	take := func(bytes, inodes uint64) *stats.FsStats {
		s := *disk
		s.UsedBytes, s.InodesUsed = &bytes, &inodes
		return &s
	}
	layers := map[string]*runtimeapi.FilesystemUsage{}
	for _, c := range known.GetContainers() {
		layers[c.GetAttributes().GetId()] = c.GetWritableLayer()
	}
	var sum, sumInodes uint64
	add := func(bytes, inodes uint64) { sum, sumInodes = sum+bytes, sumInodes+inodes }
	for i := range p.Containers {
		c := &p.Containers[i]
		layer := layers[pod.Running[c.Name]]
		c.Rootfs = take(layer.GetUsedBytes().GetValue(), layer.GetInodesUsed().GetValue())
		add(*c.Rootfs.UsedBytes, *c.Rootfs.InodesUsed)
	}
	for i := range p.Containers {
		c := &p.Containers[i]
		bytes, inodes := m.logs(pod.Pod, c.Name)
		c.Logs = take(bytes, inodes)
		add(bytes, inodes)
	}
	for _, v := range m.Volumes(pod.Pod) {
		s := stats.VolumeStats{Name: v.Spec.Name}
		switch {
		case !v.Own:
			s.FsStats = *take(v.Bytes, v.Inodes)
			add(v.Bytes, v.Inodes)
		case v.Fs != nil:
			s.FsStats = *v.Fs
			s.Time = at
		default:
			continue
		}
		p.VolumeStats = append(p.VolumeStats, s)
	}
	p.VolumeStats = append(p.VolumeStats, m.backed(pod.Pod)...)
	if bytes, inodes, err := sys.DiskUsage(filepath.Join(m.cfg.PodDir(pod.Pod.UID), "etc-hosts")); err == nil {
		add(bytes, inodes)
	}
	p.EphemeralStorage = take(sum, sumInodes)
}

func (m *Meter) logs(pod *corev1.Pod, container string) (bytes, inodes uint64) {
	bytes, inodes, _ = sys.DiskUsage(filepath.Join(m.cfg.LogsDir, criconf.LogDirectory(pod), container))
	return bytes, inodes
}

// Volume is what one of a Pod's volumes takes.
type Volume struct {
	Spec *corev1.Volume
	Path string
	// Own says that it is a file system of its own: memory, a disk, or that of a server. Fs is what that tells; nil if it does not answer.
	Own bool
	Fs  *stats.FsStats
	// Bytes and Inodes are what is used.
	Bytes, Inodes uint64
}

// Volumes measures those of the Pod's volumes that are kept in its folder or that its specification has mounted there: none of claims and drivers.
func (m *Meter) Volumes(pod *corev1.Pod) []Volume {
	var list []Volume
	found, err := filepath.Glob(filepath.Join(m.cfg.PodDir(pod.UID), "volumes", "*", "*"))
	if err != nil {
		return nil // the pattern is fixed
	}
	for _, path := range found {
		for i := range pod.Spec.Volumes {
			spec := &pod.Spec.Volumes[i]
			if spec.Name == filepath.Base(path) && spec.CSI == nil && spec.PersistentVolumeClaim == nil && spec.Ephemeral == nil {
				list = append(list, m.measureVolume(spec, path))
			}
		}
	}
	return list
}

func (m *Meter) measureVolume(spec *corev1.Volume, path string) Volume {
	v := Volume{Spec: spec, Path: path, Own: device(path) != device(filepath.Dir(path))}
	if v.Own {
		if v.Fs = m.slow.ask(path, 0, func() *stats.FsStats { return FileSystem(path, metav1.Time{}) }); v.Fs != nil {
			v.Bytes, v.Inodes = *v.Fs.UsedBytes, *v.Fs.InodesUsed
		}
		return v
	}
	v.Bytes, v.Inodes, _ = sys.DiskUsage(path)
	return v
}

// device is the one that the file is on, as the kernel knows it without asking a server.
func device(path string) uint64 {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, 0, &st); err != nil {
		return 0
	}
	return unix.Mkdev(st.Dev_major, st.Dev_minor)
}

// Ephemeral is what a Pod has on the node's disk, in bytes: in each container's own file system and logs, by name, and in each emptyDir that
// is not in memory, by name; Other are its files beside these.
type Ephemeral struct {
	Containers, EmptyDirs map[string]uint64
	Other                 uint64
}

// Total is the sum.
func (e Ephemeral) Total() uint64 {
	sum := e.Other
	for _, part := range []map[string]uint64{e.Containers, e.EmptyDirs} {
		for _, n := range part {
			sum += n
		}
	}
	return sum
}

// Ephemeral measures what counts against the Pod's limits of ephemeral storage.
func (m *Meter) Ephemeral(ctx context.Context, pod Pod) Ephemeral {
	e := Ephemeral{Containers: map[string]uint64{}, EmptyDirs: map[string]uint64{}}
	for _, spec := range podstate.Containers(pod.Pod) {
		bytes, _ := m.logs(pod.Pod, spec.Name)
		if id := pod.Running[spec.Name]; id != "" {
			if s, err := m.cfg.Runtime.ContainerStats(ctx, id); err == nil {
				bytes += s.GetWritableLayer().GetUsedBytes().GetValue()
			}
		}
		e.Containers[spec.Name] = bytes
	}
	for _, v := range m.Volumes(pod.Pod) {
		switch {
		case v.Own:
		case v.Spec.EmptyDir != nil:
			e.EmptyDirs[v.Spec.Name] = v.Bytes
		default:
			e.Other += v.Bytes
		}
	}
	bytes, _, _ := sys.DiskUsage(filepath.Join(m.cfg.PodDir(pod.Pod.UID), "etc-hosts"))
	e.Other += bytes
	return e
}

func network(n *runtimeapi.NetworkUsage, at metav1.Time) *stats.NetworkStats {
	if n == nil {
		return nil
	}
	out := &stats.NetworkStats{Time: at}
	show := func(i *runtimeapi.NetworkInterfaceUsage) stats.InterfaceStats {
		rx, rxErrors, tx, txErrors := i.GetRxBytes().GetValue(), i.GetRxErrors().GetValue(), i.GetTxBytes().GetValue(), i.GetTxErrors().GetValue()
		return stats.InterfaceStats{Name: i.GetName(), RxBytes: &rx, RxErrors: &rxErrors, TxBytes: &tx, TxErrors: &txErrors}
	}
	for _, i := range n.GetInterfaces() {
		out.Interfaces = append(out.Interfaces, show(i))
	}
	if n.GetDefaultInterface() != nil {
		out.InterfaceStats = show(n.GetDefaultInterface())
	}
	return out
}
