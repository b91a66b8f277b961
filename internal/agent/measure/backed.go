package measure

import (
	"context"
	"io"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"carob.dev/carob/internal/agent/volume"
	"carob.dev/carob/internal/sys"
)

// backedFresh is how long what is used of a claim's volume counts: to look costs a call of a driver, or a walk through all its files. Kubelet's own period.
const backedFresh = time.Minute

// backed measures the Pod's volumes that claims and drivers give it. Those that do not answer are left out.
func (m *Meter) backed(pod *corev1.Pod) []stats.VolumeStats {
	var list []stats.VolumeStats
	for _, b := range m.cfg.Backed(pod.UID) {
		at := m.now()
		fs := m.slow.ask(b.Path+b.Device, backedFresh, func() *stats.FsStats { return m.measureBacked(b, at) })
		if fs == nil {
			continue
		}
		s := stats.VolumeStats{Name: b.Name, FsStats: *fs}
		if b.Claim != "" {
			s.PVCRef = &stats.PVCReference{Name: b.Claim, Namespace: pod.Namespace}
		}
		list = append(list, s)
	}
	return list
}

// measureBacked asks the volume's driver, or else its file system, and where that is the node's own, all its files; nil if none tells.
func (m *Meter) measureBacked(b volume.Backed, at metav1.Time) *stats.FsStats {
	if b.Ask != nil {
		fs, err := b.Ask(context.Background())
		if err != nil {
			m.cfg.Log.Info("a driver does not tell what is used of a volume", "volume", b.Name, "error", err)
			return nil
		}
		if fs != nil {
			fs.Time = at
			return fs
		}
	}
	if b.Device != "" {
		return deviceSize(b.Device, at)
	}
	fs := FileSystem(b.Path, at)
	if fs != nil && device(b.Path) == device(m.cfg.Root) {
		bytes, inodes, err := sys.DiskUsage(b.Path)
		if err != nil {
			return nil
		}
		fs.UsedBytes, fs.InodesUsed = &bytes, &inodes
	}
	return fs
}

// deviceSize is all that can be told of a block device; nil if it cannot be opened.
func deviceSize(path string, at metav1.Time) *stats.FsStats {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil
	}
	capacity := uint64(size)
	return &stats.FsStats{Time: at, CapacityBytes: &capacity}
}

// Claims measures the volumes of all claims that the Pods use, each once.
func (m *Meter) Claims(pods []Pod) []stats.VolumeStats {
	var list []stats.VolumeStats
	seen := map[stats.PVCReference]bool{}
	for _, p := range pods {
		for _, s := range m.backed(p.Pod) {
			if s.PVCRef != nil && !seen[*s.PVCRef] {
				seen[*s.PVCRef] = true
				list = append(list, s)
			}
		}
	}
	m.slow.forget(mayBeLate * backedFresh)
	return list
}
