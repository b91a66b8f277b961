package csi

import (
	"context"
	"path/filepath"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Usage is what the driver of a Pod's volume says is used of it; nil if that driver does not say. name is the persistent volume's, or that of the
// volume in the Pod. CSI specification: NodeGetVolumeStats.
func (n *Node) Usage(ctx context.Context, uid types.UID, name string) (*stats.FsStats, error) {
	r, err := readRecord(filepath.Join(n.cfg.Root, publishRecordDir(uid, name), recordName))
	if err != nil {
		return nil, err
	}
	d, err := n.driver(r.Driver)
	if err != nil || !d.can(spec.NodeServiceCapability_RPC_GET_VOLUME_STATS) {
		return nil, err
	}
	staging := ""
	if d.can(spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME) && r.Lifecycle != string(storagev1.VolumeLifecycleEphemeral) {
		staging = filepath.Join(n.cfg.Shown, stagePath(r.key(), r.SpecName, r.Block))
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := d.node.NodeGetVolumeStats(call, &spec.NodeGetVolumeStatsRequest{VolumeId: r.Handle, VolumePath: filepath.Join(n.cfg.Shown, r.Path), StagingTargetPath: staging})
	if err != nil {
		return nil, unwrapStatus(err)
	}
	return fsStats(answer.GetUsage()), nil
}

// fsStats has what the driver told in kubelet's words. What is negative or unknown is left out.
func fsStats(usage []*spec.VolumeUsage) *stats.FsStats {
	number := func(n int64) *uint64 {
		if n < 0 {
			return nil
		}
		u := uint64(n)
		return &u
	}
	s := &stats.FsStats{}
	for _, u := range usage {
		switch u.GetUnit() {
		case spec.VolumeUsage_BYTES:
			s.AvailableBytes, s.CapacityBytes, s.UsedBytes = number(u.GetAvailable()), number(u.GetTotal()), number(u.GetUsed())
		case spec.VolumeUsage_INODES:
			s.InodesFree, s.Inodes, s.InodesUsed = number(u.GetAvailable()), number(u.GetTotal()), number(u.GetUsed())
		}
	}
	return s
}
