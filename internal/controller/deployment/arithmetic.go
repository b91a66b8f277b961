package deployment

import (
	"math"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// fenceposts turns maxSurge and maxUnavailable into numbers for desired replicas: percentages of surge round up, of unavailable
// round down, and if both come to zero, one may be unavailable, or nothing would ever move. Values that are neither a number nor a
// percentage count as 0; validation refuses them.
func fenceposts(surge, unavailable *intstr.IntOrString, desired int32) (maxSurge, maxUnavailable int32) {
	scaled := func(v *intstr.IntOrString, roundUp bool) int32 {
		n, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(v, intstr.FromInt32(0)), int(desired), roundUp)
		if err != nil {
			return 0
		}
		return int32(n)
	}
	maxSurge, maxUnavailable = scaled(surge, true), scaled(unavailable, false)
	if maxSurge == 0 && maxUnavailable == 0 {
		maxUnavailable = 1
	}
	return maxSurge, maxUnavailable
}

func isRolling(d *appsv1.Deployment) bool {
	return d.Spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType
}

func rollingFenceposts(d *appsv1.Deployment) (maxSurge, maxUnavailable int32) {
	r := d.Spec.Strategy.RollingUpdate
	if r == nil {
		r = &appsv1.RollingUpdateDeployment{}
	}
	return fenceposts(r.MaxSurge, r.MaxUnavailable, desired(d))
}

// maxSurge is how many Pods more than desired a rolling update may run. Other strategies have no surge.
func maxSurge(d *appsv1.Deployment) int32 {
	if !isRolling(d) {
		return 0
	}
	n, _ := rollingFenceposts(d)
	return n
}

// maxUnavailable is how many Pods fewer than desired may be available, at most all.
func maxUnavailable(d *appsv1.Deployment) int32 {
	if !isRolling(d) || desired(d) == 0 {
		return 0
	}
	_, n := rollingFenceposts(d)
	return min(n, desired(d))
}

// desired is spec.replicas; a missing one counts as 1, as defaulting says.
func desired(d *appsv1.Deployment) int32 {
	if d.Spec.Replicas == nil {
		return 1
	}
	return *d.Spec.Replicas
}

func size(rs *appsv1.ReplicaSet) int32 {
	if rs.Spec.Replicas == nil {
		return 1
	}
	return *rs.Spec.Replicas
}

func sum(sets []*appsv1.ReplicaSet, f func(*appsv1.ReplicaSet) int32) int32 {
	var n int32
	for _, rs := range sets {
		n += f(rs)
	}
	return n
}

func availableOf(rs *appsv1.ReplicaSet) int32 { return rs.Status.AvailableReplicas }
func actualOf(rs *appsv1.ReplicaSet) int32    { return rs.Status.Replicas }
func readyOf(rs *appsv1.ReplicaSet) int32     { return rs.Status.ReadyReplicas }

func active(sets []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	var out []*appsv1.ReplicaSet
	for _, rs := range sets {
		if size(rs) > 0 {
			out = append(out, rs)
		}
	}
	return out
}

// newSize is how large the new ReplicaSet, now of the given size, may be while all ReplicaSets together have total replicas.
func newSize(d *appsv1.Deployment, total, now int32) int32 {
	if !isRolling(d) {
		return desired(d)
	}
	// The surge alone, without the rule that one of the two must be above zero.
	room := desired(d) + maxSurge(d) - total
	if room <= 0 {
		return now
	}
	return now + min(room, desired(d)-now)
}

// proportions spreads the replicas that a scaling adds or takes over the active ReplicaSets, in proportion to their sizes, and
// returns each one's new size in the order of sets. The largest gets what rounding leaves over. Of equal sizes, the newer grow
// first and the older shrink first.
func proportions(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) map[*appsv1.ReplicaSet]int32 {
	var allowed int32
	if desired(d) > 0 {
		allowed = desired(d) + maxSurge(d)
	}
	toAdd := allowed - sum(sets, size)
	ordered := slices.Clone(sets)
	slices.SortStableFunc(ordered, func(a, b *appsv1.ReplicaSet) int {
		switch {
		case size(a) != size(b):
			return int(size(b) - size(a))
		case toAdd > 0:
			return byCreation(b, a)
		}
		return byCreation(a, b)
	})
	sizes := make(map[*appsv1.ReplicaSet]int32, len(sets))
	var added int32
	for _, rs := range ordered {
		n := share(d, rs, toAdd, added)
		sizes[rs] = size(rs) + n
		added += n
	}
	if len(ordered) > 0 && toAdd != 0 {
		sizes[ordered[0]] = max(0, sizes[ordered[0]]+toAdd-added)
	}
	return sizes
}

// share is how many of toAdd replicas (which may be negative), of which added are given out, rs should get.
func share(d *appsv1.Deployment, rs *appsv1.ReplicaSet, toAdd, added int32) int32 {
	if size(rs) == 0 || toAdd == added {
		return 0
	}
	fraction := fraction(d, rs)
	if toAdd > 0 {
		return min(fraction, toAdd-added)
	}
	return max(fraction, toAdd-added)
}

// fraction is how much rs would grow or shrink if it kept its share of the whole.
func fraction(d *appsv1.Deployment, rs *appsv1.ReplicaSet) int32 {
	if desired(d) == 0 {
		return -size(rs)
	}
	before, ok := intAnnotation(rs, annotationMax)
	if !ok || before == 0 {
		// Somebody took the annotation away: the size that the status tells keeps us within the limits, if not exact.
		if before = d.Status.Replicas; before == 0 {
			return 0
		}
	}
	whole := float64(size(rs)) * float64(desired(d)+maxSurge(d)) / float64(before)
	return int32(math.Round(whole)) - size(rs)
}

// intAnnotation reads a number that is not negative.
func intAnnotation(rs *appsv1.ReplicaSet, key string) (int32, bool) {
	n, err := strconv.ParseUint(rs.Annotations[key], 10, 31)
	return int32(n), err == nil
}

// byCreation orders older before newer, by name where the time is the same.
func byCreation(a, b *appsv1.ReplicaSet) int {
	if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
		return c
	}
	switch {
	case a.Name < b.Name:
		return -1
	case a.Name > b.Name:
		return 1
	}
	return 0
}
