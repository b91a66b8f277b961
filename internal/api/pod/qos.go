package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
)

// QOS is the quality-of-service class that a Pod has: the one that its status tells, for it never changes, or else the one that its
// resources give it.
func QOS(p *corev1.Pod) corev1.PodQOSClass {
	if p.Status.QOSClass != "" {
		return p.Status.QOSClass
	}
	return computeQOS(p)
}

// computeQOS is the class that a Pod's resources give it: Guaranteed if CPU and memory are limited and no less is requested, BestEffort if
// nothing is asked for, else Burstable. It looks at the Pod's own resources where it has some, and at each of its containers otherwise.
func computeQOS(p *corev1.Pod) corev1.PodQOSClass {
	if resource.IsPodLevelResourcesSet(p) {
		return requirementsQOS(p.Spec.Resources)
	}
	class := corev1.PodQOSClass("")
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			next := requirementsQOS(&list[i].Resources)
			if class != "" && class != next {
				return corev1.PodQOSBurstable
			}
			class = next
		}
	}
	if class == "" {
		return corev1.PodQOSBestEffort
	}
	return class
}

func requirementsQOS(r *corev1.ResourceRequirements) corev1.PodQOSClass {
	set := 0
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		request, limit := r.Requests[name], r.Limits[name]
		if !request.Equal(limit) {
			return corev1.PodQOSBurstable
		}
		if !limit.IsZero() {
			set++
		}
	}
	switch set {
	case 0:
		return corev1.PodQOSBestEffort
	case 2:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}
