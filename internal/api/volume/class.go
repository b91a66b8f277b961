package volume

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ClassOf is the storage class that a claim names, by the field or by the annotation of old; "" for none. set says whether it names one,
// be it "".
func ClassOf(c *corev1.PersistentVolumeClaim) (class string, set bool) {
	if v, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return v, true
	}
	if c.Spec.StorageClassName != nil {
		return *c.Spec.StorageClassName, true
	}
	return "", false
}

// ClassOfVolume is the storage class of a volume; "" for none.
func ClassOfVolume(v *corev1.PersistentVolume) string {
	if class, ok := v.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return class
	}
	return v.Spec.StorageClassName
}

// IsDefaultClass says whether the metadata of a storage class mark it as the default for claims that name none.
func IsDefaultClass(meta *metav1.ObjectMeta) bool {
	return meta.Annotations[DefaultClassAnnotation] == "true" || meta.Annotations["storageclass.beta.kubernetes.io/is-default-class"] == "true"
}

// DefaultClassAnnotation marks the default storage class.
const DefaultClassAnnotation = "storageclass.kubernetes.io/is-default-class"

// DefaultClass is the class for claims that name none: the youngest of those that are marked as default, by name among equals. Nil if none is.
func DefaultClass(classes []*storagev1.StorageClass) *storagev1.StorageClass {
	var best *storagev1.StorageClass
	for _, c := range classes {
		if !IsDefaultClass(&c.ObjectMeta) {
			continue
		}
		if best == nil || c.CreationTimestamp.After(best.CreationTimestamp.Time) ||
			c.CreationTimestamp.Equal(&best.CreationTimestamp) && strings.Compare(c.Name, best.Name) < 0 {
			best = c
		}
	}
	return best
}

// Grows says whether a claim has a volume and asks for more than it was told that this holds.
func Grows(c *corev1.PersistentVolumeClaim) bool {
	wanted, told := c.Spec.Resources.Requests[corev1.ResourceStorage], c.Status.Capacity[corev1.ResourceStorage]
	return c.DeletionTimestamp == nil && c.Status.Phase == corev1.ClaimBound && c.Spec.VolumeName != "" && wanted.Cmp(told) > 0
}
