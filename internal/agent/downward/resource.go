package downward

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Resource is the value of a resourceFieldRef: requests or limits of cpu, memory, ephemeral-storage or hugepages-<size> in
// units of the divisor, rounded up. A limit that the container does not set is the node's allocatable. container is the
// container that asks; the selector may name another.
func Resource(sel *corev1.ResourceFieldSelector, pod *corev1.Pod, container string, allocatable corev1.ResourceList) (string, error) {
	if sel.ContainerName != "" {
		container = sel.ContainerName
	}
	c, err := find(pod, container)
	if err != nil {
		return "", err
	}
	kind, name, _ := strings.Cut(sel.Resource, ".")
	resourceName := corev1.ResourceName(name)
	huge := strings.HasPrefix(name, corev1.ResourceHugePagesPrefix)
	switch resourceName {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
	default:
		if !huge {
			return "", fmt.Errorf("unsupported container resource : %v", sel.Resource)
		}
	}
	var value resource.Quantity
	switch kind {
	case "requests":
		value = c.Resources.Requests[resourceName]
	case "limits":
		value = c.Resources.Limits[resourceName]
		if value.IsZero() && !huge {
			value = allocatable[resourceName]
			if own, ok := podLimit(pod, resourceName); ok {
				value = own
			}
		}
	default:
		return "", fmt.Errorf("unsupported container resource : %v", sel.Resource)
	}
	divisor := sel.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if resourceName == corev1.ResourceCPU {
		return ceil(value.MilliValue(), divisor.MilliValue()), nil
	}
	return ceil(value.Value(), divisor.Value()), nil
}

// podLimit is the limit of the Pod as a whole, which holds for containers that have none.
func podLimit(pod *corev1.Pod, name corev1.ResourceName) (resource.Quantity, bool) {
	if pod.Spec.Resources == nil {
		return resource.Quantity{}, false
	}
	q := pod.Spec.Resources.Limits[name]
	return q, !q.IsZero()
}

func ceil(value, divisor int64) string {
	return strconv.FormatInt(int64(math.Ceil(float64(value)/float64(divisor))), 10)
}

func find(pod *corev1.Pod, name string) (*corev1.Container, error) {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i], nil
			}
		}
	}
	return nil, fmt.Errorf("container %s not found", name)
}
