// Package pods is what controllers that own Pods share: reading a Pod's state, making Pods from a template and deleting them with
// Kubernetes' events, and choosing which Pods to delete first.
//
// It imports client-go only. state.go and rank.go are pure.
package pods

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Active says whether the Pod counts as a replica: it has not ended and is not being deleted.
func Active(p *corev1.Pod) bool {
	return !Ended(p) && p.DeletionTimestamp == nil
}

// Ended says whether the Pod's phase is final.
func Ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// Terminating says whether the Pod is being deleted and still runs.
func Terminating(p *corev1.Pod) bool {
	return !Ended(p) && p.DeletionTimestamp != nil
}

// Condition returns the Pod's condition of that type, or nil.
func Condition(p *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == t {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// Ready says whether the Pod's Ready condition is true.
func Ready(p *corev1.Pod) bool {
	c := Condition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// Available says whether the Pod has been ready for minReadySeconds at now.
func Available(p *corev1.Pod, minReadySeconds int32, now time.Time) bool {
	wait, ok := UntilAvailable(p, minReadySeconds, now)
	return ok && wait <= 0
}

// UntilAvailable returns how long the Pod must stay ready, from now, to be available; zero or less if it is. The bool is false if
// the Pod is not ready.
func UntilAvailable(p *corev1.Pod, minReadySeconds int32, now time.Time) (time.Duration, bool) {
	c := Condition(p, corev1.PodReady)
	if c == nil || c.Status != corev1.ConditionTrue {
		return 0, false
	}
	need := time.Duration(minReadySeconds) * time.Second
	if need == 0 {
		return 0, true
	}
	if c.LastTransitionTime.IsZero() {
		return need, true
	}
	return c.LastTransitionTime.Add(need).Sub(now), true
}

// SetCondition puts c in place of the Pod's condition of its type, or adds it. The time of the last transition stays while the
// status does. It returns whether anything but the time changed.
func SetCondition(s *corev1.PodStatus, c corev1.PodCondition) bool {
	for i := range s.Conditions {
		have := &s.Conditions[i]
		if have.Type != c.Type {
			continue
		}
		if have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
			if have.Reason == c.Reason && have.Message == c.Message {
				return false
			}
		}
		*have = c
		return true
	}
	s.Conditions = append(s.Conditions, c)
	return true
}
