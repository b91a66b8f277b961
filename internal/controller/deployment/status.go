package deployment

import (
	"fmt"
	"math"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// noLimit in progressDeadlineSeconds or revisionHistoryLimit means that there is none.
const noLimit = math.MaxInt32

func hasDeadline(d *appsv1.Deployment) bool {
	return d.Spec.ProgressDeadlineSeconds != nil && *d.Spec.ProgressDeadlineSeconds != noLimit
}

// condition returns a copy of the condition of that type, or nil.
func condition(s appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for _, c := range s.Conditions {
		if c.Type == t {
			return &c
		}
	}
	return nil
}

// setCondition puts c in place of the one of its type, unless status and reason are the same. The time of the last transition
// stays while the status does.
func setCondition(s *appsv1.DeploymentStatus, c appsv1.DeploymentCondition) {
	have := condition(*s, c.Type)
	if have != nil && have.Status == c.Status && have.Reason == c.Reason {
		return
	}
	if have != nil && have.Status == c.Status {
		c.LastTransitionTime = have.LastTransitionTime
	}
	removeCondition(s, c.Type)
	s.Conditions = append(s.Conditions, c)
}

func removeCondition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) {
	s.Conditions = slices.DeleteFunc(slices.Clone(s.Conditions), func(c appsv1.DeploymentCondition) bool { return c.Type == t })
	if len(s.Conditions) == 0 {
		s.Conditions = nil
	}
}

func newCondition(t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string, now time.Time) appsv1.DeploymentCondition {
	at := metav1.NewTime(now)
	return appsv1.DeploymentCondition{Type: t, Status: status, Reason: reason, Message: message, LastUpdateTime: at, LastTransitionTime: at}
}

func (s *state) condition(t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, format string, args ...any) appsv1.DeploymentCondition {
	return newCondition(t, status, reason, fmt.Sprintf(format, args...), s.now)
}

// baseStatus counts the replicas and says whether enough are available; the other conditions stay.
func baseStatus(d *appsv1.Deployment, current *appsv1.ReplicaSet, all []*appsv1.ReplicaSet, now time.Time) appsv1.DeploymentStatus {
	available := sum(all, availableOf)
	s := appsv1.DeploymentStatus{
		ObservedGeneration:  d.Generation,
		Replicas:            sum(all, actualOf),
		ReadyReplicas:       sum(all, readyOf),
		AvailableReplicas:   available,
		UnavailableReplicas: max(0, sum(all, size)-available),
		TerminatingReplicas: terminating(all),
		CollisionCount:      d.Status.CollisionCount,
		Conditions:          slices.Clone(d.Status.Conditions),
	}
	if current != nil {
		s.UpdatedReplicas = current.Status.Replicas
	}
	enough := newCondition(appsv1.DeploymentAvailable, corev1.ConditionTrue, reasonMinimumAvailable, "Deployment has minimum availability.", now)
	if available < desired(d)-maxUnavailable(d) {
		enough = newCondition(appsv1.DeploymentAvailable, corev1.ConditionFalse, reasonMinimumUnavailable,
			"Deployment does not have minimum availability.", now)
	}
	setCondition(&s, enough)
	return s
}

// terminating sums the Pods on their way out; nil if a ReplicaSet whose controller has seen it does not tell.
func terminating(all []*appsv1.ReplicaSet) *int32 {
	var n int32
	for _, rs := range all {
		switch {
		case rs.Status.TerminatingReplicas != nil:
			n += *rs.Status.TerminatingReplicas
		case rs.Status.ObservedGeneration != 0:
			return nil
		}
	}
	return &n
}

// complete says whether all replicas are of the new version and available, and no old one is left.
func complete(d *appsv1.Deployment, s appsv1.DeploymentStatus) bool {
	want := desired(d)
	return s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want && s.ObservedGeneration >= d.Generation
}

// progressed says whether there is more of what is wanted, or less of what is not, than before.
func progressed(before, after appsv1.DeploymentStatus) bool {
	return after.UpdatedReplicas > before.UpdatedReplicas ||
		after.Replicas-after.UpdatedReplicas < before.Replicas-before.UpdatedReplicas ||
		after.ReadyReplicas > before.ReadyReplicas ||
		after.AvailableReplicas > before.AvailableReplicas
}

// notePause says in the Progressing condition that the rollout was paused or resumed, so that the time paused does not count
// against the deadline. A deadline that was missed stays told.
func (s *state) notePause() {
	if !hasDeadline(s.d) {
		return
	}
	c := condition(s.d.Status, appsv1.DeploymentProgressing)
	if c != nil && c.Reason == reasonDeadlineExceeded {
		return
	}
	noted := c != nil && c.Reason == reasonPaused
	switch {
	case s.d.Spec.Paused && !noted:
		setCondition(&s.d.Status, s.condition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonPaused, "Deployment is paused"))
	case !s.d.Spec.Paused && noted:
		setCondition(&s.d.Status, s.condition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonResumed, "Deployment is resumed"))
	}
}

// rolloutStatus computes the status while a rollout may be going on: counts, progress against the deadline, failures of
// ReplicaSets.
func (s *state) rolloutStatus() {
	next := baseStatus(s.d, s.current, s.all(), s.now)
	before := condition(s.d.Status, appsv1.DeploymentProgressing)
	if !hasDeadline(s.d) {
		removeCondition(&next, appsv1.DeploymentProgressing)
	}
	finished := next.Replicas == next.UpdatedReplicas && before != nil && before.Reason == reasonNewAvailable
	if hasDeadline(s.d) && !finished {
		s.judgeProgress(&next, before)
	}
	if failure := replicaFailure(s.current, s.all()); failure != nil {
		setCondition(&next, *failure)
	} else {
		removeCondition(&next, appsv1.DeploymentReplicaFailure)
	}
	if equality.Semantic.DeepEqual(s.read.Status, next) {
		s.check = s.untilDeadline(next)
	}
	s.d.Status = next
}

func (s *state) judgeProgress(next *appsv1.DeploymentStatus, before *appsv1.DeploymentCondition) {
	what := fmt.Sprintf("Deployment %q", s.d.Name)
	if s.current != nil {
		what = fmt.Sprintf("ReplicaSet %q", s.current.Name)
	}
	switch {
	case complete(s.d, *next):
		setCondition(next, s.condition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonNewAvailable, "%s has successfully progressed.", what))
	case progressed(s.read.Status, *next):
		// Here lastUpdateTime moves although the reason stays: the deadline counts from the last progress.
		c := s.condition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonReplicaSetUpdated, "%s is progressing.", what)
		if before != nil && before.Status == corev1.ConditionTrue {
			c.LastTransitionTime = before.LastTransitionTime
		}
		removeCondition(next, appsv1.DeploymentProgressing)
		setCondition(next, c)
	case timedOut(s.d, *next, s.now):
		setCondition(next, s.condition(appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonDeadlineExceeded, "%s has timed out progressing.", what))
	}
}

// timedOut says whether the deadline has passed since the last progress.
func timedOut(d *appsv1.Deployment, s appsv1.DeploymentStatus, now time.Time) bool {
	c := condition(s, appsv1.DeploymentProgressing)
	switch {
	case c == nil, c.Reason == reasonNewAvailable:
		return false
	case c.Reason == reasonDeadlineExceeded:
		return true
	}
	return c.LastUpdateTime.Add(time.Duration(*d.Spec.ProgressDeadlineSeconds) * time.Second).Before(now)
}

// untilDeadline returns when to look at the deadline again; zero if there is nothing to wait for.
func (s *state) untilDeadline(next appsv1.DeploymentStatus) time.Duration {
	c := condition(next, appsv1.DeploymentProgressing)
	if !hasDeadline(s.d) || c == nil || complete(s.d, next) || c.Reason == reasonDeadlineExceeded || c.Reason == reasonNewAvailable {
		return 0
	}
	at := c.LastUpdateTime.Add(time.Duration(*s.d.Spec.ProgressDeadlineSeconds) * time.Second)
	// Times in the API have whole seconds: a second more, and the deadline has passed for certain.
	return max(0, at.Sub(s.now)) + time.Second
}

// replicaFailure turns the failure of a ReplicaSet, the new one's before an old one's, into the Deployment's; nil if there is none.
func replicaFailure(current *appsv1.ReplicaSet, all []*appsv1.ReplicaSet) *appsv1.DeploymentCondition {
	sets := all
	if current != nil {
		sets = append([]*appsv1.ReplicaSet{current}, all...)
	}
	for _, rs := range sets {
		for _, c := range rs.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				return &appsv1.DeploymentCondition{
					Type: appsv1.DeploymentReplicaFailure, Status: c.Status, Reason: c.Reason, Message: c.Message,
					LastTransitionTime: c.LastTransitionTime, LastUpdateTime: c.LastTransitionTime,
				}
			}
		}
	}
	return nil
}
