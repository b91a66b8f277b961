package pod

import corev1 "k8s.io/api/core/v1"

// SystemCritical is the least priority of Pods of the system: that of the class system-cluster-critical.
const SystemCritical int32 = 2_000_000_000

// Critical says whether a node must keep the Pod: it is static, or its priority is that of the system.
func Critical(pod *corev1.Pod) bool {
	if source, ok := pod.Annotations["kubernetes.io/config.source"]; ok && source != "api" {
		return true
	}
	if _, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]; ok {
		return true
	}
	return pod.Spec.Priority != nil && *pod.Spec.Priority >= SystemCritical
}
