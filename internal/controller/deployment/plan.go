package deployment

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// facts is all that a decision is made from.
type facts struct {
	// deployment is read, never changed.
	deployment *appsv1.Deployment
	// sets are the Deployment's ReplicaSets; read, never changed.
	sets []*appsv1.ReplicaSet
	// oldPodsRun tells, given the new ReplicaSet or nil, whether Pods of other ReplicaSets have not ended. Only Recreate asks.
	oldPodsRun func(current *appsv1.ReplicaSet) bool
	now        time.Time
}

// plan is one step towards what the Deployment wants. Carried out in the order of its fields; the events of its writes cause the
// next step.
type plan struct {
	// create is the new ReplicaSet, if it is to be made.
	create *appsv1.ReplicaSet
	// update are ReplicaSets to be written.
	update []change
	// remove are old ReplicaSets beyond the history limit.
	remove []*appsv1.ReplicaSet
	// deployment has the status, and the revision annotation, to be written.
	deployment *appsv1.Deployment
	// write says whether deployment differs from what was read.
	write bool
	// checkAfter is when the progress deadline should be looked at again; zero for never.
	checkAfter time.Duration
}

// change is a ReplicaSet as it should be, and the size it had.
type change struct {
	set  *appsv1.ReplicaSet
	from int32
}

// decide returns the next step for a Deployment that is to be kept going.
func decide(f facts) plan {
	s := newState(f)
	d := s.d
	switch {
	case d.DeletionTimestamp != nil:
		s.syncRevision()
		s.d.Status = baseStatus(d, s.current, s.all(), s.now)
	case d.Spec.Paused:
		s.notePause()
		s.syncRevision()
		s.scale()
		s.cleanUp()
		s.d.Status = baseStatus(d, s.current, s.all(), s.now)
	default:
		s.notePause()
		s.syncRevision()
		switch {
		case s.scalingEvent():
			s.scale()
			s.d.Status = baseStatus(d, s.current, s.all(), s.now)
		case isRolling(d):
			s.roll()
			s.rolloutStatus()
		default:
			s.recreate(f.oldPodsRun)
			s.rolloutStatus()
		}
	}
	return s.plan()
}

// state is a decision in the making. Its ReplicaSets are copies: what is changed on them is what will be written.
type state struct {
	read     *appsv1.Deployment
	d        *appsv1.Deployment
	original map[*appsv1.ReplicaSet]*appsv1.ReplicaSet
	current  *appsv1.ReplicaSet
	old      []*appsv1.ReplicaSet
	created  bool
	remove   []*appsv1.ReplicaSet
	check    time.Duration
	now      time.Time
}

func newState(f facts) *state {
	s := &state{read: f.deployment, d: f.deployment.DeepCopy(), original: map[*appsv1.ReplicaSet]*appsv1.ReplicaSet{}, now: f.now}
	current, old := split(f.deployment, f.sets)
	clone := func(rs *appsv1.ReplicaSet) *appsv1.ReplicaSet {
		c := rs.DeepCopy()
		s.original[c] = rs
		return c
	}
	if current != nil {
		s.current = clone(current)
	}
	for _, rs := range old {
		s.old = append(s.old, clone(rs))
	}
	return s
}

// all lists the old ReplicaSets and, last, the new one if there is one.
func (s *state) all() []*appsv1.ReplicaSet {
	if s.current == nil {
		return s.old
	}
	return append(slices.Clone(s.old), s.current)
}

// setSize asks for a new size and notes on the ReplicaSet how large the whole is. It returns whether the size is new.
func (s *state) setSize(rs *appsv1.ReplicaSet, n int32) bool {
	if size(rs) == n {
		return false
	}
	rs.Spec.Replicas = &n
	setReplicaAnnotations(s.d, rs)
	return true
}

// syncRevision gives the new ReplicaSet, if it exists, its annotations and minReadySeconds, and the Deployment its revision.
func (s *state) syncRevision() {
	if s.current == nil {
		return
	}
	annotate(s.d, s.current, nextRevision(s.old))
	s.current.Spec.MinReadySeconds = s.d.Spec.MinReadySeconds
	s.setRevision()
	if hasDeadline(s.d) && condition(s.d.Status, appsv1.DeploymentProgressing) == nil {
		setCondition(&s.d.Status, s.condition(appsv1.DeploymentProgressing, corev1.ConditionTrue,
			reasonFoundNewReplicaSet, "Found new replica set %q", s.current.Name))
	}
}

func (s *state) setRevision() {
	if s.d.Annotations == nil {
		s.d.Annotations = map[string]string{}
	}
	s.d.Annotations[annotationRevision] = s.current.Annotations[annotationRevision]
}

// ensureCurrent makes the new ReplicaSet if there is none, as large as the others leave room for.
func (s *state) ensureCurrent() {
	if s.current != nil {
		return
	}
	rs := newReplicaSet(s.d)
	n := newSize(s.d, sum(s.old, size), 0)
	rs.Spec.Replicas = &n
	annotate(s.d, rs, nextRevision(s.old))
	setReplicaAnnotations(s.d, rs)
	s.current, s.created = rs, true
	s.setRevision()
	if hasDeadline(s.d) {
		setCondition(&s.d.Status, s.condition(appsv1.DeploymentProgressing, corev1.ConditionTrue,
			reasonNewReplicaSetCreated, "Created new replica set %q", rs.Name))
	}
}

// cleanUp removes the oldest ReplicaSets beyond revisionHistoryLimit, but none that has or wants Pods.
func (s *state) cleanUp() {
	limit := s.d.Spec.RevisionHistoryLimit
	if limit == nil || *limit == noLimit {
		return
	}
	var alive []*appsv1.ReplicaSet
	for _, rs := range s.old {
		if rs.DeletionTimestamp == nil {
			alive = append(alive, rs)
		}
	}
	excess := len(alive) - int(*limit)
	if excess <= 0 {
		return
	}
	slices.SortStableFunc(alive, byRevision)
	for _, rs := range alive[:excess] {
		if rs.Status.Replicas == 0 && size(rs) == 0 && rs.Generation <= rs.Status.ObservedGeneration {
			s.remove = append(s.remove, rs)
		}
	}
}

// plan collects what differs from what was read.
func (s *state) plan() plan {
	p := plan{deployment: s.d, checkAfter: s.check, remove: s.remove}
	for _, rs := range s.all() {
		before, existed := s.original[rs]
		switch {
		case !existed:
			p.create = rs
		case !equality.Semantic.DeepEqual(before, rs):
			p.update = append(p.update, change{set: rs, from: size(before)})
		}
	}
	p.write = !equality.Semantic.DeepEqual(s.read.Status, s.d.Status) ||
		s.read.Annotations[annotationRevision] != s.d.Annotations[annotationRevision]
	return p
}
