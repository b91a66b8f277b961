package deployment

import (
	"cmp"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
)

// revision is the number of the ReplicaSet's last rollout; 0 if it has none or it is not a number.
func revision(rs *appsv1.ReplicaSet) int64 {
	n, err := strconv.ParseInt(rs.Annotations[annotationRevision], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// nextRevision is one more than the highest among the old ReplicaSets.
func nextRevision(old []*appsv1.ReplicaSet) int64 {
	var highest int64
	for _, rs := range old {
		highest = max(highest, revision(rs))
	}
	return highest + 1
}

// annotate brings the annotations of the new ReplicaSet up to date: the Deployment's own are copied to it (change-cause among
// them), and it gets the revision next if its own is lower. A revision that it had before goes to its history: it was rolled back
// to. It returns whether anything changed.
func annotate(d *appsv1.Deployment, rs *appsv1.ReplicaSet, next int64) bool {
	changed := false
	set := func(key, value string) {
		if have, ok := rs.Annotations[key]; ok && have == value {
			return
		}
		if rs.Annotations == nil {
			rs.Annotations = map[string]string{}
		}
		rs.Annotations[key] = value
		changed = true
	}
	for key, value := range d.Annotations {
		if copied(key) {
			set(key, value)
		}
	}
	before, had := rs.Annotations[annotationRevision]
	if _, err := strconv.ParseInt(before, 10, 64); before != "" && err != nil {
		// Not a number: not ours to repair.
		return changed
	}
	if revision(rs) < next {
		if had {
			if history, ok := appendHistory(rs.Annotations[annotationHistory], before); ok {
				set(annotationHistory, history)
			}
		}
		set(annotationRevision, strconv.FormatInt(next, 10))
	}
	return changed
}

// copied says whether an annotation of the Deployment belongs on its ReplicaSets too.
func copied(key string) bool {
	switch key {
	case annotationLastApplied, annotationRevision, annotationHistory, annotationDesired, annotationMax, annotationRollbackTo:
		return false
	}
	return true
}

// appendHistory adds a revision to the list, dropping the oldest where it would grow beyond maxHistory. The bool is false if even
// that does not help.
func appendHistory(history, rev string) (string, bool) {
	if history == "" {
		return rev, true
	}
	list := strings.Split(history, ",")
	length := len(history) + len(rev) + 1
	for length > maxHistory && len(list) > 0 {
		length -= len(list[0]) + 1
		list = list[1:]
	}
	if length > maxHistory {
		return "", false
	}
	return strings.Join(append(list, rev), ","), true
}

// setReplicaAnnotations notes on a ReplicaSet how large the whole is. It returns whether anything changed.
func setReplicaAnnotations(d *appsv1.Deployment, rs *appsv1.ReplicaSet) bool {
	changed := false
	for key, n := range map[string]int32{annotationDesired: desired(d), annotationMax: desired(d) + maxSurge(d)} {
		value := strconv.Itoa(int(n))
		if rs.Annotations[key] == value {
			continue
		}
		if rs.Annotations == nil {
			rs.Annotations = map[string]string{}
		}
		rs.Annotations[key] = value
		changed = true
	}
	return changed
}

// byRevision orders lower before higher revisions; what has the same is ordered by creation.
func byRevision(a, b *appsv1.ReplicaSet) int {
	return cmp.Or(cmp.Compare(revision(a), revision(b)), byCreation(a, b))
}
