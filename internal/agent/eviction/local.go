package eviction

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Limited says whether the Pod has any limit of what it may keep on the node's disk.
func Limited(pod *corev1.Pod) bool {
	for _, v := range pod.Spec.Volumes {
		if e := v.EmptyDir; e != nil && e.Medium != corev1.StorageMediumMemory && e.SizeLimit != nil && e.SizeLimit.Sign() > 0 {
			return true
		}
	}
	for _, c := range containers(pod) {
		if !c.Resources.Limits.StorageEphemeral().IsZero() {
			return true
		}
	}
	_, ok := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})[corev1.ResourceEphemeralStorage]
	return ok
}

// Stored is what a Pod has on the node's disk, in bytes: Containers are their own file systems and logs, EmptyDirs those that are not in
// memory, each by name; Total is the sum of all of it.
type Stored struct {
	Containers, EmptyDirs map[string]int64
	Total                 int64
}

// Over says, in kubelet's words, which limit the Pod has gone beyond; empty if none.
func Over(pod *corev1.Pod, have Stored) string {
	for _, v := range pod.Spec.Volumes {
		e := v.EmptyDir
		if e == nil || e.Medium == corev1.StorageMediumMemory || e.SizeLimit == nil || e.SizeLimit.Sign() <= 0 {
			continue
		}
		if resource.NewQuantity(have.EmptyDirs[v.Name], resource.BinarySI).Cmp(*e.SizeLimit) > 0 {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, e.SizeLimit)
		}
	}
	if limit, ok := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})[corev1.ResourceEphemeralStorage]; ok && have.Total > limit.Value() {
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", limit.String())
	}
	for _, c := range containers(pod) {
		limit := c.Resources.Limits.StorageEphemeral()
		if limited(pod, c.Name) && !limit.IsZero() && have.Containers[c.Name] > limit.Value() {
			return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", c.Name, limit)
		}
	}
	return ""
}

// limited says whether a container is held to its own limit: init containers that end by themselves are not.
func limited(pod *corev1.Pod, name string) bool {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == name {
			return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		}
	}
	return true
}
