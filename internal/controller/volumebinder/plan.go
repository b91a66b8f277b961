package volumebinder

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/component-helpers/storage/ephemeral"
)

// plan is what follows from a look at a claim or a volume: at most one write, and at most one event. The first field that is set is written.
type plan struct {
	volume       *corev1.PersistentVolume
	volumeStatus *corev1.PersistentVolume
	claim        *corev1.PersistentVolumeClaim
	status       *corev1.PersistentVolumeClaim
	event        *event
}

type event struct{ kind, reason, message string }

func normal(reason, message string) *event {
	return &event{corev1.EventTypeNormal, reason, message}
}

func warning(reason, message string) *event {
	return &event{corev1.EventTypeWarning, reason, message}
}

// The reasons of events, Kubernetes' own.
const (
	reasonFailedBinding    = "FailedBinding"
	reasonMismatch         = "VolumeMismatch"
	reasonWaitForConsumer  = "WaitForFirstConsumer"
	reasonWaitForScheduled = "WaitForPodScheduled"
	reasonProvisioning     = "ExternalProvisioning"
	reasonFailed           = "ProvisioningFailed"
	reasonLost             = "ClaimLost"
	reasonMisbound         = "ClaimMisbound"
	reasonExpanding        = "ExternalExpanding"
	reasonFailedDelete     = "VolumeFailedDelete"
	reasonFailedRecycle    = "VolumeFailedRecycle"
	reasonUnknownPolicy    = "VolumeUnknownReclaimPolicy"
)

// world is what decideClaim looks at beside the claim.
type world struct {
	volumes []*corev1.PersistentVolume
	// class is that of the claim, nil if it names none or one that is not there; usual is the class for claims that name none.
	class, usual *storagev1.StorageClass
	// waiting are the Pods that use the claim and have no node.
	waiting []string
}

func (w *world) volume(name string) *corev1.PersistentVolume {
	for _, v := range w.volumes {
		if v.Name == name {
			return v
		}
	}
	return nil
}

func uses(p *corev1.Pod, claim *corev1.PersistentVolumeClaim) bool {
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim.Name ||
			v.Ephemeral != nil && ephemeral.VolumeClaimName(p, v) == claim.Name && ephemeral.VolumeIsForPod(p, claim) == nil {
			return true
		}
	}
	return false
}
