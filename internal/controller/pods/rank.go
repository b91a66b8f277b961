package pods

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ToDelete returns the n Pods of candidates that should go first. neighbours are all Pods of the same family (the Pods of all
// ReplicaSets of one Deployment), which tell where Pods are doubled up. The order is Kubernetes': not bound to a node, then by
// phase (Pending, Unknown, Running), not ready, lower controller.kubernetes.io/pod-deletion-cost, more active neighbours on its
// node, ready for a shorter time, more restarts, younger. Ages are compared by their order of magnitude (log2), so that young
// Pods are not always the victims.
func ToDelete(candidates, neighbours []*corev1.Pod, n int, now time.Time) []*corev1.Pod {
	if n >= len(candidates) {
		return candidates
	}
	onNode := map[string]int{}
	for _, p := range neighbours {
		if Active(p) {
			onNode[p.Spec.NodeName]++
		}
	}
	sorted := slices.Clone(candidates)
	slices.SortStableFunc(sorted, func(a, b *corev1.Pod) int { return compare(a, b, onNode, now) })
	return sorted[:n]
}

// compare is negative if a should be deleted before b.
func compare(a, b *corev1.Pod, onNode map[string]int, now time.Time) int {
	if c := compareBool(a.Spec.NodeName != "", b.Spec.NodeName != ""); c != 0 {
		return c
	}
	if c := cmp.Compare(phaseOrder(a.Status.Phase), phaseOrder(b.Status.Phase)); c != 0 {
		return c
	}
	readyA, readyB := Ready(a), Ready(b)
	if c := compareBool(readyA, readyB); c != 0 {
		return c
	}
	if c := cmp.Compare(deletionCost(a), deletionCost(b)); c != 0 {
		return c
	}
	if c := cmp.Compare(onNode[b.Spec.NodeName], onNode[a.Spec.NodeName]); c != 0 {
		return c
	}
	if readyA && readyB {
		if c, differ := compareAges(readySince(a), readySince(b), now); differ {
			return cmp.Or(c, cmp.Compare(a.UID, b.UID))
		}
	}
	if c := compareRestarts(a, b); c != 0 {
		return c
	}
	if c, differ := compareAges(a.CreationTimestamp, b.CreationTimestamp, now); differ {
		return cmp.Or(c, cmp.Compare(a.UID, b.UID))
	}
	return 0
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func phaseOrder(p corev1.PodPhase) int {
	switch p {
	case corev1.PodPending:
		return 0
	case corev1.PodUnknown:
		return 1
	}
	return 2
}

// deletionCost is the value of the annotation; what is not a number counts as 0.
func deletionCost(p *corev1.Pod) int32 {
	n, err := strconv.ParseInt(p.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}

func readySince(p *corev1.Pod) metav1.Time {
	if c := Condition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return c.LastTransitionTime
	}
	return metav1.Time{}
}

// compareAges is negative if a is younger by an order of magnitude; an unset time is the youngest. differ is false if the two
// times are the same.
func compareAges(a, b metav1.Time, now time.Time) (c int, differ bool) {
	if a.Equal(&b) {
		return 0, false
	}
	if a.IsZero() || b.IsZero() {
		return compareBool(!a.IsZero(), !b.IsZero()), true
	}
	return cmp.Compare(magnitude(now.Sub(a.Time)), magnitude(now.Sub(b.Time))), true
}

func magnitude(d time.Duration) int {
	if d <= 0 {
		return -1
	}
	return int(math.Log2(float64(d)))
}

// compareRestarts is negative if a's containers restarted more; restartable init containers decide a tie.
func compareRestarts(a, b *corev1.Pod) int {
	mainA, sideA := maxRestarts(a)
	mainB, sideB := maxRestarts(b)
	return cmp.Or(cmp.Compare(mainB, mainA), cmp.Compare(sideB, sideA))
}

func maxRestarts(p *corev1.Pod) (containers, sidecars int32) {
	for _, s := range p.Status.ContainerStatuses {
		containers = max(containers, s.RestartCount)
	}
	restartable := map[string]bool{}
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			restartable[c.Name] = true
		}
	}
	for _, s := range p.Status.InitContainerStatuses {
		if restartable[s.Name] {
			sidecars = max(sidecars, s.RestartCount)
		}
	}
	return containers, sidecars
}
