package volume

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// setupEmptyDir makes an empty folder for the Pod, on the disk or in memory.
func setupEmptyDir(dir string, pod *corev1.Pod, src *corev1.EmptyDirVolumeSource) error {
	switch src.Medium {
	case corev1.StorageMediumDefault, corev1.StorageMediumMemory:
	default:
		return fmt.Errorf("storage medium %q is not supported", src.Medium)
	}
	if err := makeDir(dir, 0o777); err != nil {
		return err
	}
	if src.Medium == corev1.StorageMediumMemory {
		if err := mountTmpfs(dir, memorySize(pod, src)); err != nil {
			return err
		}
	}
	return setGroupOnce(dir, fsGroup(pod))
}

// memorySize is the limit of an emptyDir in memory: its sizeLimit, or the Pod's memory limit where that is smaller; 0 for none.
func memorySize(pod *corev1.Pod, src *corev1.EmptyDirVolumeSource) int64 {
	size := podMemoryLimit(pod)
	if src.SizeLimit != nil && !src.SizeLimit.IsZero() {
		if limit := src.SizeLimit.Value(); size == 0 || limit < size {
			size = limit
		}
	}
	return size
}

// podMemoryLimit is the sum of the containers' memory limits, or that of the largest init container, or the Pod's own limit;
// 0 if some container has none.
func podMemoryLimit(pod *corev1.Pod) int64 {
	if r := pod.Spec.Resources; r != nil && !r.Limits.Memory().IsZero() {
		return r.Limits.Memory().Value()
	}
	var sum, largest int64
	for _, c := range pod.Spec.Containers {
		limit := c.Resources.Limits.Memory().Value()
		if limit == 0 {
			return 0
		}
		sum += limit
	}
	for _, c := range pod.Spec.InitContainers {
		limit := c.Resources.Limits.Memory().Value()
		if limit == 0 {
			return 0
		}
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sum += limit
		} else {
			largest = max(largest, limit)
		}
	}
	return max(sum, largest)
}
