package localpath

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"

	"carob.dev/carob/internal/api/volume"
)

// grow notes a larger size, first of the volume and then of its claim; nothing else is needed for a folder. Nil for what is right already, or not
// this provisioner's.
func grow(c *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) (larger *corev1.PersistentVolume, told *corev1.PersistentVolumeClaim) {
	if !volume.Grows(c) || v.Annotations[storagehelpers.AnnDynamicallyProvisioned] != volume.LocalPathProvisioner || v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID != c.UID {
		return nil, nil
	}
	wanted, has := c.Spec.Resources.Requests[corev1.ResourceStorage], v.Spec.Capacity[corev1.ResourceStorage]
	if wanted.Cmp(has) > 0 {
		larger = v.DeepCopy()
		larger.Spec.Capacity[corev1.ResourceStorage] = wanted
		has = wanted
	}
	told = c.DeepCopy()
	if told.Status.Capacity == nil {
		told.Status.Capacity = map[corev1.ResourceName]resource.Quantity{}
	}
	told.Status.Capacity[corev1.ResourceStorage] = has
	told.Status.Conditions = slices.DeleteFunc(told.Status.Conditions, func(c corev1.PersistentVolumeClaimCondition) bool {
		return c.Type == corev1.PersistentVolumeClaimResizing || c.Type == corev1.PersistentVolumeClaimFileSystemResizePending
	})
	return larger, told
}

func (c *Controller) growClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	v, err := c.volumes.Get(claim.Spec.VolumeName)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	larger, told := grow(claim, v)
	if larger != nil {
		if _, err := c.client.CoreV1().PersistentVolumes().Update(ctx, larger, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("note the size of volume %s: %w", v.Name, err)
		}
	}
	if told == nil {
		return nil
	}
	if _, err := c.client.CoreV1().PersistentVolumeClaims(told.Namespace).UpdateStatus(ctx, told, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("tell claim %s/%s its size: %w", told.Namespace, told.Name, err)
	}
	c.events.Eventf(claim, corev1.EventTypeNormal, "VolumeResizeSuccessful", "ExpandVolume succeeded for volume %s/%s", claim.Namespace, claim.Name)
	return nil
}
