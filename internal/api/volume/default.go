package volume

import corev1 "k8s.io/api/core/v1"

func fill[T comparable](f *T, value T) {
	var zero T
	if *f == zero {
		*f = value
	}
}

func fillPointer[T any](f **T, value T) {
	if *f == nil {
		*f = &value
	}
}

func defaultSource(s *corev1.PersistentVolumeSource) {
	if h := s.HostPath; h != nil {
		fillPointer(&h.Type, corev1.HostPathUnset)
	}
	if r := s.RBD; r != nil {
		fill(&r.RBDPool, "rbd")
		fill(&r.RadosUser, "admin")
		fill(&r.Keyring, "/etc/ceph/keyring")
	}
	if i := s.ISCSI; i != nil {
		fill(&i.ISCSIInterface, "default")
	}
	if d := s.AzureDisk; d != nil {
		fillPointer(&d.CachingMode, corev1.AzureDataDiskCachingReadWrite)
		fillPointer(&d.FSType, "ext4")
		fillPointer(&d.ReadOnly, false)
		fillPointer(&d.Kind, corev1.AzureSharedBlobDisk)
	}
	if s := s.ScaleIO; s != nil {
		fill(&s.StorageMode, "ThinProvisioned")
		fill(&s.FSType, "xfs")
	}
}
