package criconf

import (
	"math"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	podrule "carob.dev/carob/internal/api/pod"
)

// Memory is how the node treats memory beyond limits. The zero value is kubelet's default: nobody swaps, nothing is throttled or kept.
type Memory struct {
	// Swap is what there is to swap to, in bytes, if Burstable Pods may (LimitedSwap); 0 for nobody (NoSwap). KEP-2400.
	Swap int64
	// Throttling is kubelet's memoryThrottlingFactor: how much of what is between request and limit may be used before the kernel slows a container
	// down; 0 for all. KEP-2570.
	Throttling float64
	// Tiered keeps what Pods request: of Guaranteed ones in any case, of Burstable ones as long as there is other memory to take
	// (TieredReservation). KEP-2570.
	Tiered bool
	// Allocatable is what all Pods together can have, in bytes.
	Allocatable int64
}

// Files of cgroup v2.
const (
	fileSwap = "memory.swap.max"
	fileHigh = "memory.high"
	fileMin  = "memory.min"
	fileLow  = "memory.low"
)

const page = 4096

// memoryFiles are a container's, on cgroup v2.
func memoryFiles(pod *corev1.Pod, c *corev1.Container, node Node) map[string]string {
	files := map[string]string{"memory.oom.group": "1"}
	request, limit := c.Resources.Requests.Memory().Value(), c.Resources.Limits.Memory().Value()
	if node.SwapControl {
		files[fileSwap] = strconv.FormatInt(swap(pod, request, limit, node), 10)
	}
	node.keep(files, podrule.QOS(pod), request)
	byPod := limit == 0 && pod.Spec.Resources != nil && !pod.Spec.Resources.Limits.Memory().IsZero() // the Pod's own file does it
	if !byPod {
		if limit == 0 {
			limit = node.Allocatable
		}
		node.throttle(files, request, limit)
	}
	return files
}

// PodMemoryFiles are those of the Pod as a whole, on cgroup v2.
func PodMemoryFiles(pod *corev1.Pod, node Node) map[string]string {
	if !node.Unified {
		return nil
	}
	files := map[string]string{}
	request := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	node.keep(files, podrule.QOS(pod), request.Memory().Value())
	if r := pod.Spec.Resources; r != nil && !r.Limits.Memory().IsZero() {
		node.throttle(files, request.Memory().Value(), r.Limits.Memory().Value())
	}
	if len(files) == 0 {
		return nil
	}
	return files
}

// swap is how much a container may swap: its share of the swap is that of the memory that it requests. Guaranteed and BestEffort Pods, Pods of the
// system and containers that request all that they may use do not swap.
func swap(pod *corev1.Pod, request, limit int64, node Node) int64 {
	if podrule.QOS(pod) != corev1.PodQOSBurstable || podrule.Critical(pod) || request == limit || request <= 0 || request > node.Total {
		return 0
	}
	return int64(float64(request) / float64(node.Total) * float64(node.Swap))
}

func (n Node) keep(files map[string]string, class corev1.PodQOSClass, request int64) {
	switch {
	case !n.Tiered || request == 0:
	case class == corev1.PodQOSGuaranteed:
		files[fileMin] = strconv.FormatInt(request, 10)
	default:
		files[fileLow] = strconv.FormatInt(request, 10)
	}
}

func (n Node) throttle(files map[string]string, request, limit int64) {
	if n.Throttling == 0 || request == limit && request != 0 {
		return
	}
	high := int64(math.Floor((float64(request)+float64(limit-request)*n.Throttling)/page)) * page
	if high > request {
		files[fileHigh] = strconv.FormatInt(high, 10)
	}
}
