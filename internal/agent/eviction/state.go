package eviction

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// State is what is remembered from one look at the node to the next. The zero value is ready.
type State struct {
	first map[Threshold]time.Time
	seen  map[corev1.NodeConditionType]time.Time
	due   []Threshold
}

// Verdict is what follows from a look.
type Verdict struct {
	// Conditions are those that the node has, in the order of their names.
	Conditions []corev1.NodeConditionType
	// Due are the thresholds for which something is to be done now, the most pressing first.
	Due []Threshold
	// Next is when time alone changes the verdict; zero for never.
	Next time.Time
}

// Look takes observations over. Conditions stay for transition after what they say was so last.
func (s *State) Look(list []Threshold, o Observations, transition time.Duration, now time.Time) Verdict {
	short := met(list, o, false)
	for _, t := range met(s.due, o, true) {
		if !slices.Contains(short, t) {
			short = append(short, t)
		}
	}
	var v Verdict
	wake := func(at time.Time) {
		if v.Next.IsZero() || at.Before(v.Next) {
			v.Next = at
		}
	}
	first := map[Threshold]time.Time{}
	s.due = nil
	if s.seen == nil {
		s.seen = map[corev1.NodeConditionType]time.Time{}
	}
	for _, t := range short {
		at, ok := s.first[t]
		if !ok {
			at = now
		}
		first[t] = at
		s.seen[t.Signal.Condition()] = now
		if due := at.Add(t.Grace); now.Before(due) {
			wake(due)
		} else {
			s.due = append(s.due, t)
		}
	}
	s.first = first
	for c, at := range s.seen {
		if end := at.Add(transition); now.Before(end) {
			v.Conditions = append(v.Conditions, c)
			wake(end)
		} else {
			delete(s.seen, c)
		}
	}
	slices.Sort(v.Conditions)
	v.Due = slices.Clone(s.due)
	slices.SortStableFunc(v.Due, func(a, b Threshold) int { return urgency(a.Signal) - urgency(b.Signal) })
	return v
}

// urgency puts memory first.
func urgency(s Signal) int {
	if s.Resource() == corev1.ResourceMemory {
		return 0
	}
	return 1
}
