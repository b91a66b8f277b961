package localpath

import (
	"errors"
	"fmt"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/volume"
)

// class is the storage class that every cluster gets once.
func class() *storagev1.StorageClass {
	return &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{
			Name:        volume.LocalPathClass,
			Annotations: map[string]string{volume.DefaultClassAnnotation: "true"},
		},
		Provisioner:          volume.LocalPathProvisioner,
		ReclaimPolicy:        ptr.To(corev1.PersistentVolumeReclaimDelete),
		VolumeBindingMode:    ptr.To(storagev1.VolumeBindingWaitForFirstConsumer),
		AllowVolumeExpansion: ptr.To(true),
	}
}

// wants says whether a claim waits for this provisioner, and on which node.
func wants(c *corev1.PersistentVolumeClaim) (node string, ok bool) {
	if c.DeletionTimestamp != nil || c.Spec.VolumeName != "" || c.Annotations[storagehelpers.AnnStorageProvisioner] != volume.LocalPathProvisioner {
		return "", false
	}
	return c.Annotations[storagehelpers.AnnSelectedNode], true
}

// nameFor is the name of the volume for a claim: always the same, so that a claim never gets two.
func nameFor(c *corev1.PersistentVolumeClaim) string { return "pvc-" + string(c.UID) }

// provision makes the volume for a claim on a node, or says why there can be none.
func provision(c *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, node *corev1.Node) (*corev1.PersistentVolume, error) {
	if c.Spec.VolumeMode != nil && *c.Spec.VolumeMode != corev1.PersistentVolumeFilesystem {
		return nil, fmt.Errorf("volumeMode %s is not supported: volumes are folders", *c.Spec.VolumeMode)
	}
	for _, m := range c.Spec.AccessModes {
		if !slices.Contains([]corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadWriteOncePod}, m) {
			return nil, fmt.Errorf("accessMode %s is not supported: volumes are on one node, so they are %s or %s",
				m, corev1.ReadWriteOnce, corev1.ReadWriteOncePod)
		}
	}
	for key := range class.Parameters {
		return nil, fmt.Errorf("parameter %q of storage class %s is not supported: there are none", key, class.Name)
	}
	switch {
	case len(class.MountOptions) > 0:
		return nil, fmt.Errorf("mountOptions of storage class %s are not supported: a folder is not mounted", class.Name)
	case c.Spec.Selector != nil:
		return nil, errors.New("claim.spec.selector is not supported: no volume that fits it can be made")
	case c.Spec.DataSource != nil || c.Spec.DataSourceRef != nil:
		return nil, errors.New("dataSource is not supported: volumes start empty")
	}
	folder, host := node.Annotations[volume.LocalPathFolder], node.Labels[corev1.LabelHostname]
	switch {
	case folder == "":
		return nil, fmt.Errorf("node %s does not say where its volumes are (annotation %s)", node.Name, volume.LocalPathFolder)
	case host == "":
		return nil, fmt.Errorf("node %s has no label %s", node.Name, corev1.LabelHostname)
	}
	name := nameFor(c)
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name: name,
			Annotations: map[string]string{
				storagehelpers.AnnDynamicallyProvisioned: volume.LocalPathProvisioner, volume.LocalPathNode: node.Name,
			},
			Finalizers: []string{volume.LocalPathFinalizer},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:    corev1.ResourceList{corev1.ResourceStorage: c.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes: c.Spec.AccessModes, VolumeMode: ptr.To(corev1.PersistentVolumeFilesystem),
			PersistentVolumeReclaimPolicy: ptr.Deref(class.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete),
			StorageClassName:              class.Name,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path.Join(folder, name)}},
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: c.Namespace, Name: c.Name, UID: c.UID, ResourceVersion: c.ResourceVersion,
			},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{host}}},
			}}}},
		},
	}, nil
}

// next is what to do about a volume.
type next int

const (
	nothing next = iota
	// remove the object; the node then removes the folder.
	remove
	// abandon the folder: its node is gone for good.
	abandon
)

// decide looks at a volume; nodeGone says that its node is not in the cluster any more.
func decide(v *corev1.PersistentVolume, nodeGone bool) next {
	switch {
	case v.Annotations[storagehelpers.AnnDynamicallyProvisioned] != volume.LocalPathProvisioner:
	case v.DeletionTimestamp != nil && nodeGone && slices.Contains(v.Finalizers, volume.LocalPathFinalizer):
		return abandon
	case v.DeletionTimestamp == nil && v.Status.Phase == corev1.VolumeReleased && v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete:
		return remove
	}
	return nothing
}
