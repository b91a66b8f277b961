package agent

import (
	corev1 "k8s.io/api/core/v1"

	"carob.dev/carob/internal/agent/admit"
	"carob.dev/carob/internal/agent/eviction"
	"carob.dev/carob/internal/agent/podstate"
	"carob.dev/carob/internal/agent/shutdown"
	podrule "carob.dev/carob/internal/api/pod"
)

// judge has a Pod that the node cannot take end as Failed before anything of it is made. a.mu is held.
func (a *Agent) judge(w *worker) {
	node, err := a.nodes.Get(a.cfg.NodeName)
	if err != nil {
		return // not registered yet: what is there now was there before
	}
	var r *admit.Rejection
	if a.shutdown.Now() {
		r = &admit.Rejection{Reason: shutdown.Rejected, Message: shutdown.RejectedMessage}
	}
	if why := eviction.Refuse(w.pod, podrule.QOS(w.pod), a.pressure.Conditions()); r == nil && why != "" {
		r = &admit.Rejection{Reason: eviction.Reason, Message: "Pod was rejected: " + why}
	}
	if r == nil {
		if r = admit.Check(node, a.taken(w.pod.UID), w.pod); r != nil && podrule.Critical(w.pod) && a.preempt(node, w.pod) {
			r = admit.Check(node, a.taken(w.pod.UID), w.pod)
		}
	}
	if r == nil {
		r = a.cfg.Security.Check(w.pod)
	}
	if r == nil {
		return
	}
	w.rejected = true
	w.facts.End = &podstate.End{Reason: r.Reason, Message: r.Message, Rejected: true}
	w.event(corev1.EventTypeWarning, r.Reason, r.Message)
}

// preempt has Pods end so that a critical one has what it asks for, and says whether any do. It does not wait for them: what they ask for is given
// to the critical one at once, what they use they give back as they end. a.mu is held.
func (a *Agent) preempt(node *corev1.Node, pod *corev1.Pod) bool {
	victims := admit.Victims(node, a.taken(pod.UID), pod)
	for _, v := range victims {
		w := a.workers[v.UID]
		w.preempted = true
		w.post(func() {
			if podstate.Ending(w.pod, w.facts) {
				return
			}
			w.facts.End = &podstate.End{Reason: admit.Preempted, Message: admit.PreemptedMessage, Disrupted: true}
			w.event(corev1.EventTypeWarning, admit.Preempted, admit.PreemptedMessage)
		})
	}
	return len(victims) > 0
}
