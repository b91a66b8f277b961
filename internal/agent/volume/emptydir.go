package volume

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// setupEmptyDir makes an empty folder for the Pod, on the disk, in memory or in huge pages. allocatable is the node's memory for Pods in bytes, 0 if
// that is not known.
func setupEmptyDir(dir string, pod *corev1.Pod, src *corev1.EmptyDirVolumeSource, allocatable int64) error {
	r := emptyDirRoot(pod, src)
	mount := func() error { return nil }
	switch {
	case src.Medium == corev1.StorageMediumDefault:
	case src.Medium == corev1.StorageMediumMemory:
		mount = func() error { return mountTmpfs(dir, r, memorySize(pod, src, allocatable)) }
	case src.Medium == corev1.StorageMediumHugePages || strings.HasPrefix(string(src.Medium), string(corev1.StorageMediumHugePagesPrefix)):
		page, err := pageSize(pod, src.Medium)
		if err != nil {
			return err
		}
		mount = func() error { return mountHugePages(dir, r, page) }
	default:
		return fmt.Errorf("unknown storage medium %q", src.Medium)
	}
	if err := makeDir(dir, r); err != nil {
		return err
	}
	return mount()
}

// emptyDirRoot is the top folder: open to all unless the volume says otherwise, and the Pod's fsGroup may write to it. In memory, users may not
// remove each other's files, as is the way of tmpfs, and of Kubernetes therefore.
func emptyDirRoot(pod *corev1.Pod, src *corev1.EmptyDirVolumeSource) root {
	r := openRoot
	switch {
	case src.Mode != nil:
		r.mode = uint32(*src.Mode)
	case src.Medium == corev1.StorageMediumMemory:
		r.mode |= unix.S_ISVTX
	}
	if r.group = fsGroup(pod); r.group != nil {
		r.mode |= 0o2770
	}
	return r
}

// pageSize is the size in bytes of the huge pages that medium stands for: the size in its name, or the one size that the Pod's
// containers ask for.
func pageSize(pod *corev1.Pod, medium corev1.StorageMedium) (int64, error) {
	if name, ok := strings.CutPrefix(string(medium), string(corev1.StorageMediumHugePagesPrefix)); ok {
		size, err := resource.ParseQuantity(name)
		if err != nil {
			return 0, fmt.Errorf("storage medium %q: %w", medium, err)
		}
		return size.Value(), nil
	}
	var found string
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			for name := range c.Resources.Requests {
				size, ok := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix)
				if ok && found != "" && found != size {
					return 0, fmt.Errorf("medium: %s can't be used if container requests multiple huge page sizes", medium)
				}
				if ok {
					found = size
				}
			}
		}
	}
	if found == "" {
		return 0, fmt.Errorf("medium %s: hugePages storage requested, but there is no resource request for huge pages", medium)
	}
	size, err := resource.ParseQuantity(found)
	if err != nil {
		return 0, fmt.Errorf("resource %s%s: %w", corev1.ResourceHugePagesPrefix, found, err)
	}
	return size.Value(), nil
}

// memorySize is the limit of an emptyDir in memory: the smallest of its sizeLimit, the Pod's memory limit and what the node has for Pods; 0 for
// none.
func memorySize(pod *corev1.Pod, src *corev1.EmptyDirVolumeSource, allocatable int64) int64 {
	size := podMemoryLimit(pod)
	if size == 0 || allocatable > 0 && allocatable < size {
		size = allocatable
	}
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
