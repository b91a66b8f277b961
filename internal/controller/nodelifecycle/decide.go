package nodelifecycle

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// health is when a node was last heard of: when its lease or its Ready condition last changed, by our own clock, so that clocks of
// nodes need not agree with it.
type health struct {
	renewed   metav1.MicroTime
	heartbeat metav1.Time
	seen      time.Time
}

// note brings h up to date with a node and its lease (the zero time if there is none). A status that we write ourselves changes no
// heartbeat.
func (h *health) note(n *corev1.Node, renewed metav1.MicroTime, now time.Time) {
	var heartbeat metav1.Time
	if c := condition(n, corev1.NodeReady); c != nil {
		heartbeat = c.LastHeartbeatTime
	}
	if h.seen.IsZero() || !h.renewed.Equal(&renewed) || !h.heartbeat.Equal(&heartbeat) {
		h.seen = now
	}
	h.renewed, h.heartbeat = renewed, heartbeat
}

// lost returns when a node counts as lost unless it is heard of before. A node that has never posted a status gets longer.
func (h *health) lost(n *corev1.Node) time.Time {
	grace := gracePeriod
	if condition(n, corev1.NodeReady) == nil {
		grace = startupGracePeriod
	}
	return h.seen.Add(grace)
}

// staleConditions returns the conditions of a node that was lost: those that a node reports become Unknown, with Kubernetes'
// reasons. The bool is false if they are so already.
func staleConditions(n *corev1.Node, now time.Time) ([]corev1.NodeCondition, bool) {
	out := slices.Clone(n.Status.Conditions)
	changed := false
	for _, t := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		i := slices.IndexFunc(out, func(c corev1.NodeCondition) bool { return c.Type == t })
		if i < 0 {
			out = append(out, corev1.NodeCondition{
				Type: t, Status: corev1.ConditionUnknown, Reason: "NodeStatusNeverUpdated", Message: "Kubelet never posted node status.",
				LastHeartbeatTime: n.CreationTimestamp, LastTransitionTime: metav1.NewTime(now),
			})
			changed = true
			continue
		}
		if out[i].Status != corev1.ConditionUnknown {
			out[i].Status, out[i].Reason, out[i].Message = corev1.ConditionUnknown, "NodeStatusUnknown", "Kubelet stopped posting node status."
			out[i].LastTransitionTime = metav1.NewTime(now)
			changed = true
		}
	}
	return out, changed
}

// owned says whether a taint is kept by this controller.
func owned(t corev1.Taint) bool {
	switch t.Key {
	case corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable:
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	case corev1.TaintNodeMemoryPressure, corev1.TaintNodeDiskPressure, corev1.TaintNodePIDPressure,
		corev1.TaintNodeNetworkUnavailable, corev1.TaintNodeUnschedulable:
		return t.Effect == corev1.TaintEffectNoSchedule
	}
	return false
}

// taints returns the taints that a node should have: its own, and those that follow from its conditions. A Ready condition that is
// not true also evicts (NoExecute). The bool is false if it has them already.
func taints(n *corev1.Node, now time.Time) ([]corev1.Taint, bool) {
	var want []corev1.Taint
	add := func(key string, effect corev1.TaintEffect) {
		want = append(want, corev1.Taint{Key: key, Effect: effect})
	}
	for _, c := range n.Status.Conditions {
		switch {
		case c.Type == corev1.NodeReady && c.Status == corev1.ConditionFalse:
			add(corev1.TaintNodeNotReady, corev1.TaintEffectNoSchedule)
			add(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute)
		case c.Type == corev1.NodeReady && c.Status == corev1.ConditionUnknown:
			add(corev1.TaintNodeUnreachable, corev1.TaintEffectNoSchedule)
			add(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute)
		case c.Status != corev1.ConditionTrue:
		case c.Type == corev1.NodeMemoryPressure:
			add(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule)
		case c.Type == corev1.NodeDiskPressure:
			add(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule)
		case c.Type == corev1.NodePIDPressure:
			add(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule)
		case c.Type == corev1.NodeNetworkUnavailable:
			add(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule)
		}
	}
	if n.Spec.Unschedulable {
		add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	}
	var out []corev1.Taint
	changed := false
	same := func(a corev1.Taint) func(corev1.Taint) bool {
		return func(b corev1.Taint) bool { return a.Key == b.Key && a.Effect == b.Effect }
	}
	for _, t := range n.Spec.Taints {
		if owned(t) && !slices.ContainsFunc(want, same(t)) {
			changed = true
			continue
		}
		out = append(out, t)
	}
	for _, t := range want {
		if slices.ContainsFunc(out, same(t)) {
			continue
		}
		at := metav1.NewTime(now)
		t.TimeAdded = &at
		out = append(out, t)
		changed = true
	}
	return out, changed
}

// eviction returns when a Pod must leave a node with these taints; false if it may stay. All NoExecute taints must be tolerated, and
// the shortest tolerationSeconds counts, from when the taint was added or the Pod came to the node, whichever was later.
func eviction(p *corev1.Pod, taints []corev1.Taint, now time.Time) (time.Time, bool) {
	var at time.Time
	must := false
	came := arrival(p)
	for _, t := range taints {
		if t.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		seconds, tolerated := tolerates(p.Spec.Tolerations, t)
		since := now
		if t.TimeAdded != nil {
			since = t.TimeAdded.Time
		}
		if since.Before(came) {
			since = came
		}
		switch {
		case !tolerated:
			return now, true
		case seconds == nil:
			continue
		}
		leave := since.Add(time.Duration(max(0, *seconds)) * time.Second)
		if !must || leave.Before(at) {
			at, must = leave, true
		}
	}
	return at, must
}

// arrival is when a Pod was bound to its node.
func arrival(p *corev1.Pod) time.Time {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionTrue {
			return c.LastTransitionTime.Time
		}
	}
	return p.CreationTimestamp.Time
}

// tolerates says whether a taint is tolerated, and for how many seconds at least; nil is for ever.
func tolerates(tolerations []corev1.Toleration, t corev1.Taint) (*int64, bool) {
	tolerated := false
	var shortest *int64
	for i := range tolerations {
		if !matches(tolerations[i], t) {
			continue
		}
		tolerated = true
		if s := tolerations[i].TolerationSeconds; s != nil && (shortest == nil || *s < *shortest) {
			shortest = s
		}
	}
	return shortest, tolerated
}

func matches(tol corev1.Toleration, t corev1.Taint) bool {
	if tol.Effect != "" && tol.Effect != t.Effect || tol.Key != "" && tol.Key != t.Key {
		return false
	}
	switch tol.Operator {
	case corev1.TolerationOpExists:
		return true
	case corev1.TolerationOpEqual, "":
		return tol.Value == t.Value && tol.Key != ""
	}
	return false
}

func condition(n *corev1.Node, t corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == t {
			return &n.Status.Conditions[i]
		}
	}
	return nil
}
