package admit

import (
	"cmp"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"

	podrule "carob.dev/carob/internal/api/pod"
)

// How a Pod ends that makes room for a critical one; kubelet's words.
const (
	Preempted        = "Preempting"
	PreemptedMessage = "Preempted in order to admit critical pod"
)

// Victims are those of the others that have to end so that pod, which is critical, has the resources that it asks for. Of a better quality of
// service as few as can be, and of one quality those that come nearest to what is missing, as kubelet has it. Nil if there is no such choice, or
// nothing is missing.
func Victims(node *corev1.Node, others []*corev1.Pod, pod *corev1.Pod) []*corev1.Pod {
	classes := map[corev1.PodQOSClass][]*corev1.Pod{}
	for _, o := range others {
		if preemptable(pod, o) {
			q := podrule.QOS(o)
			classes[q] = append(classes[q], o)
		}
	}
	left := func(without ...[]*corev1.Pod) map[corev1.ResourceName]int64 {
		gone := slices.Concat(without...)
		return missing(node, slices.DeleteFunc(slices.Clone(others), func(p *corev1.Pod) bool { return slices.Contains(gone, p) }), pod)
	}
	best, burst, guaranteed := classes[corev1.PodQOSBestEffort], classes[corev1.PodQOSBurstable], classes[corev1.PodQOSGuaranteed]
	if len(left(best, burst, guaranteed)) > 0 {
		return nil
	}
	guaranteed = nearest(guaranteed, left(best, burst))
	burst = nearest(burst, left(best, guaranteed))
	best = nearest(best, left(burst, guaranteed))
	return slices.Concat(best, burst, guaranteed)
}

func preemptable(by, pod *corev1.Pod) bool {
	if podrule.Critical(pod) {
		return by.Spec.Priority != nil && pod.Spec.Priority != nil && *by.Spec.Priority > *pod.Spec.Priority
	}
	return true
}

// nearest chooses Pods until nothing is missing: each time the one that leaves least missing, or of such the smallest.
func nearest(pods []*corev1.Pod, missing map[corev1.ResourceName]int64) (chosen []*corev1.Pod) {
	pods = slices.Clone(pods)
	for len(missing) > 0 && len(pods) > 0 {
		at, least := 0, math.Inf(1)
		for i, p := range pods {
			d := distance(p, missing)
			if d < least || d == least && smaller(p, pods[at]) {
				at, least = i, d
			}
		}
		for name, n := range takes(pods[at]) {
			if m, ok := missing[name]; ok && m > n {
				missing[name] = m - n
			} else {
				delete(missing, name)
			}
		}
		chosen = append(chosen, pods[at])
		pods = slices.Delete(pods, at, at+1)
	}
	return chosen
}

// distance is how much is missing still without the Pod: each resource as a share of what is missing now, squared.
func distance(pod *corev1.Pod, missing map[corev1.ResourceName]int64) (sum float64) {
	has := takes(pod)
	for name, n := range missing {
		if rest := float64(n-has[name]) / float64(n); rest > 0 {
			sum += rest * rest
		}
	}
	return sum
}

func smaller(a, b *corev1.Pod) bool {
	x, y := takes(a), takes(b)
	return cmp.Or(cmp.Compare(x[corev1.ResourceMemory], y[corev1.ResourceMemory]), cmp.Compare(x[corev1.ResourceCPU], y[corev1.ResourceCPU])) < 0
}

// takes is what a Pod takes of the node, itself among it.
func takes(pod *corev1.Pod) map[corev1.ResourceName]int64 {
	out := map[corev1.ResourceName]int64{corev1.ResourcePods: 1}
	for name, q := range requests(pod) {
		out[name] = amount(name, q)
	}
	return out
}

// missing is what the node has too little of, and how much.
func missing(node *corev1.Node, others []*corev1.Pod, pod *corev1.Pod) map[corev1.ResourceName]int64 {
	used := map[corev1.ResourceName]int64{}
	for _, o := range others {
		for name, n := range takes(o) {
			used[name] += n
		}
	}
	out := map[corev1.ResourceName]int64{}
	for name, n := range takes(pod) {
		q, ok := node.Status.Allocatable[name]
		if !ok && name == corev1.ResourcePods {
			continue
		}
		if short := n + used[name] - amount(name, q); n > 0 && short > 0 {
			out[name] = short
		}
	}
	return out
}
