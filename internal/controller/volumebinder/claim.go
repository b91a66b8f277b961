package volumebinder

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/volume"
)

// preResize is set on a volume by a resizer: what the file system on it still is, while the device has grown.
const preResize = "volume.alpha.kubernetes.io/pre-resize-capacity"

// decideClaim tells what the next write about a claim is, and what to say of it.
func decideClaim(c *corev1.PersistentVolumeClaim, w world) plan {
	if metav1.HasAnnotation(c.ObjectMeta, storagehelpers.AnnBindCompleted) {
		return decideBound(c, w)
	}
	switch {
	case c.DeletionTimestamp != nil:
		return plan{}
	case c.Spec.VolumeName != "":
		return decideNamed(c, w)
	}
	delayed := w.class != nil && ptr.Deref(w.class.VolumeBindingMode, storagev1.VolumeBindingImmediate) == storagev1.VolumeBindingWaitForFirstConsumer
	v, err := match(c, w.volumes, delayed)
	if err != nil {
		return pending(c, warning(reasonFailedBinding, err.Error()))
	}
	if v != nil {
		return bind(v, c)
	}
	name, set := volume.ClassOf(c)
	switch _, selected := c.Annotations[storagehelpers.AnnSelectedNode]; {
	case !set && w.usual != nil:
		c = c.DeepCopy()
		c.Spec.StorageClassName = &w.usual.Name
		return plan{claim: c}
	case delayed && !selected:
		return pending(c, waitEvent(w.waiting))
	case name != "":
		return provision(c, name, w.class)
	}
	return pending(c, normal(reasonFailedBinding, "no persistent volumes available for this claim and no storage class is set"))
}

func waitEvent(pods []string) *event {
	slices.Sort(pods)
	switch len(pods) {
	case 0:
		return normal(reasonWaitForConsumer, "waiting for first consumer to be created before binding")
	case 1:
		return normal(reasonWaitForScheduled, fmt.Sprintf("waiting for pod %s to be scheduled", pods[0]))
	}
	return normal(reasonWaitForScheduled, fmt.Sprintf("waiting for pods %s to be scheduled", strings.Join(pods, ",")))
}

// provision asks the class's provisioner for a volume, by annotation.
func provision(c *corev1.PersistentVolumeClaim, name string, class *storagev1.StorageClass) plan {
	switch {
	case class == nil:
		return pending(c, warning(reasonFailed, fmt.Sprintf("storageclass.storage.k8s.io %q not found", name)))
	case strings.HasPrefix(class.Provisioner, "kubernetes.io/"):
		return pending(c, warning(reasonFailed, fmt.Sprintf("no volume plugin matched name: %s", class.Provisioner)))
	}
	e := normal(reasonProvisioning, fmt.Sprintf("Waiting for a volume to be created either by the external provisioner '%s' "+
		"or manually by the system administrator. If volume creation is delayed, please verify that "+
		"the provisioner is running and correctly registered.", class.Provisioner))
	if c.Annotations[storagehelpers.AnnStorageProvisioner] == class.Provisioner && c.Annotations[storagehelpers.AnnBetaStorageProvisioner] == class.Provisioner {
		return pending(c, e)
	}
	c = c.DeepCopy()
	metav1.SetMetaDataAnnotation(&c.ObjectMeta, storagehelpers.AnnStorageProvisioner, class.Provisioner)
	metav1.SetMetaDataAnnotation(&c.ObjectMeta, storagehelpers.AnnBetaStorageProvisioner, class.Provisioner)
	return plan{claim: c}
}

// match finds the volume for a claim: one that is kept for it, else the smallest of those with the fewest access modes beyond the wanted.
// Claims whose binding is delayed get none but one that is kept for them; the scheduler finds theirs.
func match(c *corev1.PersistentVolumeClaim, volumes []*corev1.PersistentVolume, delayed bool) (*corev1.PersistentVolume, error) {
	fitting := map[int][]*corev1.PersistentVolume{}
	var counts []int
	for _, v := range volumes {
		if !storagehelpers.CheckAccessModes(c, v) {
			continue
		}
		n := len(v.Spec.AccessModes)
		if fitting[n] == nil {
			counts = append(counts, n)
		}
		fitting[n] = append(fitting[n], v)
	}
	slices.Sort(counts)
	for _, n := range counts {
		slices.SortFunc(fitting[n], func(a, b *corev1.PersistentVolume) int { return strings.Compare(a.Name, b.Name) })
		if v, err := storagehelpers.FindMatchingVolume(c, fitting[n], nil, nil, delayed, true); v != nil || err != nil {
			return v, err
		}
	}
	return nil, nil
}

// decideNamed is about an unbound claim that asks for a certain volume.
func decideNamed(c *corev1.PersistentVolumeClaim, w world) plan {
	v := w.volume(c.Spec.VolumeName)
	switch {
	case v == nil:
		return pending(c, nil)
	case v.Spec.ClaimRef == nil:
		if err := satisfies(v, c); err != nil {
			return pending(c, warning(reasonMismatch, fmt.Sprintf("Cannot bind to requested volume %q: %s", v.Name, err)))
		}
		return bind(v, c)
	case storagehelpers.IsVolumeBoundToClaim(v, c):
		return bind(v, c)
	}
	return pending(c, warning(reasonFailedBinding, fmt.Sprintf("volume %q already bound to a different claim.", v.Name)))
}

// satisfies says what a claim asks for that a volume does not give.
func satisfies(v *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) error {
	want, have := c.Spec.Resources.Requests[corev1.ResourceStorage], v.Spec.Capacity[corev1.ResourceStorage]
	class, _ := volume.ClassOf(c)
	switch {
	case v.DeletionTimestamp != nil:
		return fmt.Errorf("the volume is marked for deletion %q", v.Name)
	case have.Value() < want.Value():
		return errors.New("requested PV is too small")
	case volume.ClassOfVolume(v) != class:
		return errors.New("storageClassName does not match")
	case ptr.Deref(v.Spec.VolumeAttributesClassName, "") != ptr.Deref(c.Spec.VolumeAttributesClassName, ""):
		return errors.New("volumeAttributesClassName does not match")
	case storagehelpers.CheckVolumeModeMismatches(&c.Spec, &v.Spec):
		return errors.New("incompatible volumeMode")
	case !storagehelpers.CheckAccessModes(c, v):
		return errors.New("incompatible accessMode")
	}
	return nil
}

// decideBound is about a claim that was bound once.
func decideBound(c *corev1.PersistentVolumeClaim, w world) plan {
	if c.Spec.VolumeName == "" {
		return lost(c, reasonLost, "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
	}
	v := w.volume(c.Spec.VolumeName)
	switch {
	case v == nil:
		return lost(c, reasonLost, "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
	case v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID == c.UID:
		return bind(v, c)
	}
	return lost(c, reasonMisbound, "Two claims are bound to the same volume, this one is bound incorrectly")
}

func lost(c *corev1.PersistentVolumeClaim, reason, message string) plan {
	if c.Status.Phase == corev1.ClaimLost {
		return plan{}
	}
	p := setStatus(c, corev1.ClaimLost, nil)
	p.event = warning(reason, message)
	return p
}

func pending(c *corev1.PersistentVolumeClaim, e *event) plan {
	p := setStatus(c, corev1.ClaimPending, nil)
	p.event = e
	return p
}

// bind is the next of the four writes that bind: the volume, its phase, the claim, its phase.
func bind(v *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) plan {
	bound, changed, err := storagehelpers.GetBindVolumeToClaim(v, c)
	if err != nil {
		return pending(c, warning(reasonFailedBinding, err.Error()))
	}
	if changed {
		return plan{volume: bound}
	}
	if p := setPhase(v, corev1.VolumeBound, ""); p.volumeStatus != nil {
		return p
	}
	next := c.DeepCopy()
	if next.Spec.VolumeName != v.Name {
		next.Spec.VolumeName = v.Name
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, storagehelpers.AnnBoundByController, "yes")
	}
	metav1.SetMetaDataAnnotation(&next.ObjectMeta, storagehelpers.AnnBindCompleted, "yes")
	if !equality.Semantic.DeepEqual(next, c) {
		return plan{claim: next}
	}
	p := setStatus(c, corev1.ClaimBound, v)
	if volume.Grows(c) && v.Annotations[storagehelpers.AnnDynamicallyProvisioned] != volume.LocalPathProvisioner {
		p.event = normal(reasonExpanding, "waiting for an external controller to expand this PVC")
	}
	return p
}

// setStatus writes a claim's phase, and with it what its volume gives. The capacity is taken over when the phase changes only: what a
// resizer says later stays.
func setStatus(c *corev1.PersistentVolumeClaim, phase corev1.PersistentVolumeClaimPhase, v *corev1.PersistentVolume) plan {
	next := c.DeepCopy()
	s := &next.Status
	s.Phase = phase
	if v == nil {
		s.AccessModes, s.Capacity, s.CurrentVolumeAttributesClassName = nil, nil, nil
	} else {
		s.AccessModes = v.Spec.AccessModes
		if c.Status.Phase != phase {
			s.Capacity = v.Spec.Capacity.DeepCopy()
			if before, err := resource.ParseQuantity(v.Annotations[preResize]); err == nil {
				s.Capacity[corev1.ResourceStorage] = before
			}
		}
		if c.Status.Phase == corev1.ClaimPending && phase == corev1.ClaimBound {
			s.CurrentVolumeAttributesClassName = v.Spec.VolumeAttributesClassName
		}
	}
	if equality.Semantic.DeepEqual(next.Status, c.Status) {
		return plan{}
	}
	return plan{status: next}
}
