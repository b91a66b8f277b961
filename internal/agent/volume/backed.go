package volume

import (
	"context"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/storage/ephemeral"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Backed is a volume of a Pod that a claim or a CSI driver gives it, for who measures it.
type Backed struct {
	// Name is the volume's in the Pod, Claim that of its claim; empty if it has none.
	Name, Claim string
	// Path is its folder on the node; Device its block device, if it is one.
	Path, Device string
	// Ask asks its driver what is used, which answers nil if it does not say. Nil: there is no driver.
	Ask func(context.Context) (*stats.FsStats, error)
}

// Backed lists those of the Pod's volumes that are set up, in the order of their names.
func (v *Volumes) Backed(uid types.UID) []Backed {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.SortedFunc(maps.Values(v.backed[uid]), func(a, b Backed) int { return strings.Compare(a.Name, b.Name) })
}

// back notes that the Pod has such a volume.
func (v *Volumes) back(pod *corev1.Pod, vol *corev1.Volume, m Mounted) {
	b := Backed{Name: vol.Name, Path: m.Path, Device: m.Device}
	switch {
	case vol.PersistentVolumeClaim != nil:
		b.Claim = vol.PersistentVolumeClaim.ClaimName
	case vol.Ephemeral != nil:
		b.Claim = ephemeral.VolumeClaimName(pod, vol)
	}
	if m.published != "" {
		b.Ask = func(ctx context.Context) (*stats.FsStats, error) { return v.cfg.CSI.Usage(ctx, pod.UID, m.published) }
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.backed[pod.UID] == nil {
		v.backed[pod.UID] = map[string]Backed{}
	}
	v.backed[pod.UID][vol.Name] = b
}
