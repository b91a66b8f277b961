package deployment

import (
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
)

// roll takes one step of a rolling update: grow the new ReplicaSet if there is room; else shrink the old ones as far as enough
// Pods stay available; else, when all is done, clean up.
func (s *state) roll() {
	s.ensureCurrent()
	if s.growNew() || s.shrinkOld() {
		return
	}
	if complete(s.d, s.read.Status) {
		s.cleanUp()
	}
}

func (s *state) growNew() bool {
	n := desired(s.d)
	if size(s.current) < n {
		n = newSize(s.d, sum(s.all(), size), size(s.current))
	}
	return s.setSize(s.current, n)
}

// shrinkOld scales the old ReplicaSets down. Replicas that are not available go first, for they cost nothing; then as many of the
// available as may be missing. New Pods that are not available yet count as missing, so that a bad new version never takes more of
// the old one than maxUnavailable.
func (s *state) shrinkOld() bool {
	old := active(s.old)
	if len(old) == 0 {
		return false
	}
	minAvailable := desired(s.d) - maxUnavailable(s.d)
	newMissing := size(s.current) - availableOf(s.current)
	budget := sum(s.all(), size) - minAvailable - newMissing
	if budget <= 0 {
		return false
	}
	slices.SortStableFunc(old, byCreation)
	shrunk := s.shrinkUnhealthy(old, budget)
	return s.shrinkAvailable(old, minAvailable) || shrunk
}

func (s *state) shrinkUnhealthy(old []*appsv1.ReplicaSet, budget int32) bool {
	shrunk := false
	for _, rs := range old {
		n := min(budget, size(rs)-availableOf(rs))
		if n <= 0 {
			continue
		}
		s.setSize(rs, size(rs)-n)
		budget -= n
		shrunk = true
	}
	return shrunk
}

func (s *state) shrinkAvailable(old []*appsv1.ReplicaSet, minAvailable int32) bool {
	// The status of a ReplicaSet that was just told to shrink still counts the Pods that are about to go.
	staying := func(rs *appsv1.ReplicaSet) int32 { return min(size(rs), availableOf(rs)) }
	spare := sum(old, staying) + availableOf(s.current) - minAvailable
	shrunk := false
	for _, rs := range old {
		n := min(spare, size(rs))
		if n <= 0 {
			continue
		}
		s.setSize(rs, size(rs)-n)
		spare -= n
		shrunk = true
	}
	return shrunk
}

// recreate takes one step of Recreate: all old Pods go, and only when the last has ended come the new ones.
func (s *state) recreate(oldPodsRun func(*appsv1.ReplicaSet) bool) {
	shrunk := false
	for _, rs := range s.old {
		shrunk = s.setSize(rs, 0) || shrunk
	}
	if shrunk || sum(s.old, actualOf) > 0 || oldPodsRun(s.current) {
		return
	}
	s.ensureCurrent()
	s.setSize(s.current, desired(s.d))
	if complete(s.d, s.read.Status) {
		s.cleanUp()
	}
}

// scalingEvent says whether spec.replicas changed since the active ReplicaSets were last scaled.
func (s *state) scalingEvent() bool {
	return slices.ContainsFunc(active(s.all()), func(rs *appsv1.ReplicaSet) bool {
		n, ok := intAnnotation(rs, annotationDesired)
		return ok && n != desired(s.d)
	})
}

// scale follows a change of spec.replicas without moving the rollout on: one ReplicaSet takes it all; a finished rollout takes the
// rest down; in the middle of one, all keep their proportions.
func (s *state) scale() {
	if rs, ok := s.activeOrLatest(); ok {
		if rs != nil {
			s.setSize(rs, desired(s.d))
			// Also where the size is right already, or it would look like a scaling event for ever.
			setReplicaAnnotations(s.d, rs)
		}
		return
	}
	if s.saturated() {
		for _, rs := range active(s.old) {
			s.setSize(rs, 0)
		}
		return
	}
	if !isRolling(s.d) {
		return
	}
	for rs, n := range proportions(s.d, active(s.all())) {
		s.setSize(rs, n)
		setReplicaAnnotations(s.d, rs)
	}
}

// activeOrLatest returns the only ReplicaSet with replicas, or the newest if there is none such. ok is false if there are several.
func (s *state) activeOrLatest() (rs *appsv1.ReplicaSet, ok bool) {
	switch live := active(s.all()); {
	case len(live) > 1:
		return nil, false
	case len(live) == 1:
		return live[0], true
	case s.current != nil:
		return s.current, true
	case len(s.old) > 0:
		return s.old[len(s.old)-1], true
	}
	return nil, true
}

// saturated says whether the new ReplicaSet is all that the Deployment wants, and available.
func (s *state) saturated() bool {
	if s.current == nil {
		return false
	}
	n, err := strconv.Atoi(s.current.Annotations[annotationDesired])
	want := desired(s.d)
	return err == nil && int32(n) == want && size(s.current) == want && availableOf(s.current) == want
}
