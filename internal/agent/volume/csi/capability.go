package csi

import (
	"strconv"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
)

// capability is how the volume is to be used, in CSI's words.
func (r *request) capability() *spec.VolumeCapability {
	mode := corev1.ReadWriteOnce
	var flags []string
	if r.PV != nil {
		flags = r.PV.Spec.MountOptions
		if len(r.PV.Spec.AccessModes) > 0 {
			mode = r.PV.Spec.AccessModes[0]
		}
	}
	c := &spec.VolumeCapability{AccessMode: &spec.VolumeCapability_AccessMode{Mode: accessMode(mode, r.driver.can(spec.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER))}}
	if r.Block {
		c.AccessType = &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}}
		return c
	}
	m := &spec.VolumeCapability_MountVolume{FsType: r.fsType, MountFlags: flags}
	if sc := r.Pod.Spec.SecurityContext; sc != nil && sc.FSGroup != nil && r.driver.can(spec.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP) {
		m.VolumeMountGroup = strconv.FormatInt(*sc.FSGroup, 10)
	}
	c.AccessType = &spec.VolumeCapability_Mount{Mount: m}
	return c
}

// accessMode is a claim's access mode for a driver that tells one Pod on a node from several, or for one that does not.
func accessMode(m corev1.PersistentVolumeAccessMode, tells bool) spec.VolumeCapability_AccessMode_Mode {
	switch {
	case m == corev1.ReadOnlyMany:
		return spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	case m == corev1.ReadWriteMany:
		return spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	case m == corev1.ReadWriteOncePod && tells:
		return spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	case m == corev1.ReadWriteOnce && tells:
		return spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	}
	return spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
}
