package shutdown

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	podrule "carob.dev/carob/internal/api/pod"
)

// Period is how long Pods of a priority, and of those above it up to the next Period's, have to end.
type Period struct {
	Priority int32
	Grace    time.Duration
}

// Periods are those of two plain settings: all Pods have total together, the last critical of it is for Pods of the system. Nil for no total.
func Periods(total, critical time.Duration) []Period {
	if total <= 0 {
		return nil
	}
	return []Period{{0, total - critical}, {podrule.SystemCritical, critical}}
}

// Total is how long all of them take at most, one after the other.
func Total(periods []Period) (sum time.Duration) {
	for _, p := range periods {
		sum += p.Grace
	}
	return sum
}

// Pod is a Pod that may run.
type Pod struct {
	UID      types.UID
	Priority int32
	// Grace is its own.
	Grace time.Duration
}

// group are Pods that end side by side.
type group struct {
	grace time.Duration
	pods  []Pod
}

// groups puts each Pod to the highest Period that is not above it, or to the lowest there is; the Pods of the least priority end first. Periods
// without a Pod take no time.
func groups(periods []Period, pods []Pod) []group {
	periods = slices.SortedFunc(slices.Values(periods), func(a, b Period) int { return cmp.Compare(a.Priority, b.Priority) })
	all := make([]group, len(periods))
	for i, p := range periods {
		all[i].grace = p.Grace
	}
	for _, pod := range pods {
		at := 0
		for i, p := range periods {
			if p.Priority <= pod.Priority {
				at = i
			}
		}
		pod.Grace = min(pod.Grace, periods[at].Grace)
		all[at].pods = append(all[at].pods, pod)
	}
	return slices.DeleteFunc(all, func(g group) bool { return len(g.pods) == 0 })
}
