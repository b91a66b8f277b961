// Package admit decides whether a Pod that was given to the node may run there. The scheduler has seen to that for the Pods it binds; those
// that name their node themselves, or were bound before the node changed, are judged here, as kubelet does, and in its words.
//
// Check is a pure function. Of the project it imports the rules of Pods alone.
package admit

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	schedulinghelper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	podrule "carob.dev/carob/internal/api/pod"
)

// Rejection is why a Pod may not run: its status' reason and message.
type Rejection struct{ Reason, Message string }

func reject(reason, format string, args ...any) *Rejection {
	return &Rejection{Reason: reason, Message: "Pod was rejected: " + fmt.Sprintf(format, args...)}
}

func predicate(name, why string) *Rejection {
	return reject(name, "Predicate %s failed: %s", name, why)
}

// Check judges pod beside the others that the node has taken. It returns nil if the Pod may run.
func Check(node *corev1.Node, others []*corev1.Pod, pod *corev1.Pod) *Rejection {
	const linux = string(corev1.Linux)
	if os, ok := pod.Labels[corev1.LabelOSStable]; ok && os != linux {
		return reject("PodOSSelectorNodeLabelDoesNotMatch", "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label")
	}
	if pod.Spec.OS != nil && pod.Spec.OS.Name != corev1.Linux {
		return reject("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
	}
	if r := fits(node, others, pod); r != nil {
		return r
	}
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); err != nil || !ok {
		return predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
	}
	if podrule.HostPortsTaken(podrule.HostPorts(pod), others) {
		return predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports")
	}
	_, untolerated := schedulinghelper.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, pod.Spec.Tolerations,
		func(t *corev1.Taint) bool { return t.Effect == corev1.TaintEffectNoExecute }, false)
	if untolerated {
		return predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate")
	}
	return nil
}

// Resize judges a Pod that is to have other resources than it was granted. The reason is that of a pending change: Infeasible for what the
// node does not have at all, else Deferred.
func Resize(node *corev1.Node, others []*corev1.Pod, pod *corev1.Pod) *Rejection {
	const prefix = "Pod was rejected: "
	if r := fits(node, nil, pod); r != nil {
		return &Rejection{Reason: corev1.PodReasonInfeasible, Message: strings.TrimPrefix(r.Message, prefix)}
	}
	if r := fits(node, others, pod); r != nil {
		return &Rejection{Reason: corev1.PodReasonDeferred, Message: strings.TrimPrefix(r.Message, prefix)}
	}
	return nil
}

// fits compares what is asked for with what is left, resource by resource, in the order of their names so that the answer is always the same.
func fits(node *corev1.Node, others []*corev1.Pod, pod *corev1.Pod) *Rejection {
	allocatable := node.Status.Allocatable
	if pods, ok := allocatable[corev1.ResourcePods]; ok && int64(len(others)+1) > pods.Value() {
		return short(corev1.ResourcePods, 1, int64(len(others)), pods.Value())
	}
	used := corev1.ResourceList{}
	for _, o := range others {
		for name, q := range requests(o) {
			sum := used[name]
			sum.Add(q)
			used[name] = sum
		}
	}
	want := requests(pod)
	var names []corev1.ResourceName
	for name := range want {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		asked, have, taken := amount(name, want[name]), amount(name, allocatable[name]), amount(name, used[name])
		if asked > 0 && asked > have-taken {
			return short(name, asked, taken, have)
		}
	}
	return nil
}

func requests(pod *corev1.Pod) corev1.ResourceList {
	return resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
}

// amount is in thousandths of a core for cpu, else in units.
func amount(name corev1.ResourceName, q resource.Quantity) int64 {
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

func short(name corev1.ResourceName, asked, used, capacity int64) *Rejection {
	return reject("OutOf"+string(name), "Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, asked, used, capacity)
}
