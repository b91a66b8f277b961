package volumebinder

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"
)

// decideVolume tells what the next write about a volume is. claim is the one that it is bound to, nil if that is gone.
func decideVolume(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) plan {
	switch r := v.Spec.ClaimRef; {
	case r == nil, r.UID == "": // unused, or kept for a claim that will come
		return setPhase(v, corev1.VolumeAvailable, "")
	case claim == nil:
		return release(v)
	case claim.Spec.VolumeName == "":
		if storagehelpers.CheckVolumeModeMismatches(&claim.Spec, &v.Spec) {
			return plan{event: warning(reasonMismatch,
				fmt.Sprintf("Cannot bind PersistentVolume to requested PersistentVolumeClaim %q due to incompatible volumeMode.", claim.Name))}
		}
		return plan{} // the claim's to go on
	case claim.Spec.VolumeName == v.Name:
		return setPhase(v, corev1.VolumeBound, "")
	}
	// The claim found another volume.
	if metav1.HasAnnotation(v.ObjectMeta, storagehelpers.AnnDynamicallyProvisioned) && v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
		return release(v)
	}
	return unbind(v)
}

// release lets go of a volume whose claim is gone, by its reclaim policy. A phase of Failed stays, so that it is seen.
func release(v *corev1.PersistentVolume) plan {
	if v.Status.Phase != corev1.VolumeReleased && v.Status.Phase != corev1.VolumeFailed {
		return setPhase(v, corev1.VolumeReleased, "")
	}
	switch v.Spec.PersistentVolumeReclaimPolicy {
	case corev1.PersistentVolumeReclaimRetain:
		return plan{}
	case corev1.PersistentVolumeReclaimRecycle:
		return fail(v, reasonFailedRecycle, "No recycler plugin found for the volume!")
	case corev1.PersistentVolumeReclaimDelete:
		if by := v.Annotations[storagehelpers.AnnDynamicallyProvisioned]; by != "" && !strings.HasPrefix(by, "kubernetes.io/") || v.Spec.CSI != nil {
			return plan{} // whoever provisioned it deletes it
		}
		return fail(v, reasonFailedDelete, fmt.Sprintf("error getting deleter volume plugin for volume %q: no deletable volume plugin matched", v.Name))
	}
	return fail(v, reasonUnknownPolicy, "Volume has unrecognized PersistentVolumeReclaimPolicy")
}

func fail(v *corev1.PersistentVolume, reason, message string) plan {
	if v.Status.Phase == corev1.VolumeFailed {
		return plan{}
	}
	p := setPhase(v, corev1.VolumeFailed, message)
	p.event = warning(reason, message)
	return p
}

func setPhase(v *corev1.PersistentVolume, phase corev1.PersistentVolumePhase, message string) plan {
	if v.Status.Phase == phase {
		return plan{}
	}
	next := v.DeepCopy()
	next.Status.Phase, next.Status.Message = phase, message
	return plan{volumeStatus: next}
}

// unbind gives a volume back whose claim has another: wholly if it was this controller that bound it, else it stays kept for the claim.
func unbind(v *corev1.PersistentVolume) plan {
	next := v.DeepCopy()
	if metav1.HasAnnotation(v.ObjectMeta, storagehelpers.AnnBoundByController) {
		next.Spec.ClaimRef = nil
		delete(next.Annotations, storagehelpers.AnnBoundByController)
	} else {
		next.Spec.ClaimRef.UID = ""
	}
	return plan{volume: next}
}
