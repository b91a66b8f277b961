package scheduler

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// term is one rule of pod affinity, ready to be matched.
type term struct {
	namespaces    []string
	selector      labels.Selector
	allNamespaces labels.Selector
	topologyKey   string
	weight        int32
}

// newTerm reads a rule of owner's. matchLabelKeys and mismatchLabelKeys add owner's own labels.
func newTerm(owner *corev1.Pod, t *corev1.PodAffinityTerm, weight int32) (term, error) {
	selector, err := metav1.LabelSelectorAsSelector(t.LabelSelector)
	if err != nil {
		return term{}, fmt.Errorf("label selector of pod affinity: %w", err)
	}
	if t.LabelSelector != nil {
		if selector, err = withLabelKeys(selector, owner, t.MatchLabelKeys, t.MismatchLabelKeys); err != nil {
			return term{}, err
		}
	}
	out := term{namespaces: t.Namespaces, selector: selector, allNamespaces: labels.Nothing(), topologyKey: t.TopologyKey, weight: weight}
	if t.NamespaceSelector != nil {
		if out.allNamespaces, err = metav1.LabelSelectorAsSelector(t.NamespaceSelector); err != nil {
			return term{}, fmt.Errorf("namespace selector of pod affinity: %w", err)
		}
	} else if len(t.Namespaces) == 0 {
		out.namespaces = []string{owner.Namespace}
	}
	return out, nil
}

func withLabelKeys(s labels.Selector, pod *corev1.Pod, match, mismatch []string) (labels.Selector, error) {
	for op, keys := range map[string][]string{"in": match, "notin": mismatch} {
		for _, key := range keys {
			v, ok := pod.Labels[key]
			if !ok {
				continue
			}
			r, err := labels.ParseToRequirements(fmt.Sprintf("%s %s (%s)", key, op, v))
			if err != nil {
				return nil, err
			}
			s = s.Add(r...)
		}
	}
	return s, nil
}

func (t *term) matches(p *corev1.Pod, namespaces map[string]map[string]string) bool {
	if !slices.Contains(t.namespaces, p.Namespace) && !t.allNamespaces.Matches(labels.Set(namespaces[p.Namespace])) {
		return false
	}
	return t.selector.Matches(labels.Set(p.Labels))
}

type domain struct{ key, value string }

// podAffinity is the state of the required rules for one Pod.
type podAffinity struct {
	affinity []term
	// domains with a Pod that matches all affinity rules, by rule; first is set if no Pod anywhere does and the Pod matches its own rules.
	found map[domain]bool
	first bool
	// domains that the Pod's anti-affinity rules, and those of Pods already there, keep it out of.
	avoid, avoidedBy map[domain]bool
}

func newPodAffinity(pod *corev1.Pod, s *Snapshot) (podAffinity, error) {
	a := podAffinity{found: map[domain]bool{}, avoid: map[domain]bool{}, avoidedBy: map[domain]bool{}}
	var anti []term
	var err error
	if aff := pod.Spec.Affinity; aff != nil {
		if aff.PodAffinity != nil {
			if a.affinity, err = newTerms(pod, aff.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution); err != nil {
				return a, err
			}
		}
		if aff.PodAntiAffinity != nil {
			if anti, err = newTerms(pod, aff.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution); err != nil {
				return a, err
			}
		}
	}
	matchesAll := func(p *corev1.Pod) bool {
		return !slices.ContainsFunc(a.affinity, func(t term) bool { return !t.matches(p, s.Namespaces) })
	}
	for _, n := range s.Nodes {
		for _, p := range n.Pods {
			if len(a.affinity) > 0 && matchesAll(p) {
				mark(a.found, a.affinity, n.Node)
			}
			for _, t := range anti {
				if t.matches(p, s.Namespaces) {
					mark(a.avoid, []term{t}, n.Node)
				}
			}
			if p.Spec.Affinity == nil || p.Spec.Affinity.PodAntiAffinity == nil {
				continue
			}
			theirs, err := newTerms(p, p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
			if err != nil {
				continue // of a Pod that is there already: nothing to ask of this one
			}
			for _, t := range theirs {
				if t.matches(pod, s.Namespaces) {
					mark(a.avoidedBy, []term{t}, n.Node)
				}
			}
		}
	}
	a.first = len(a.found) == 0 && matchesAll(pod)
	return a, nil
}

func newTerms(owner *corev1.Pod, in []corev1.PodAffinityTerm) ([]term, error) {
	out := make([]term, 0, len(in))
	for i := range in {
		t, err := newTerm(owner, &in[i], 0)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

func mark(m map[domain]bool, terms []term, n *corev1.Node) {
	for _, t := range terms {
		if v, ok := n.Labels[t.topologyKey]; ok {
			m[domain{t.topologyKey, v}] = true
		}
	}
}

func (a *podAffinity) filter(n *corev1.Node) *rejection {
	for _, t := range a.affinity {
		v, ok := n.Labels[t.topologyKey]
		if !ok || (!a.found[domain{t.topologyKey, v}] && !a.first) {
			return &rejection{reasons: []string{reasonPodAffinity}, hopeless: true}
		}
	}
	in := func(m map[domain]bool) bool {
		for d := range m {
			if v, ok := n.Labels[d.key]; ok && v == d.value {
				return true
			}
		}
		return false
	}
	switch {
	case in(a.avoid):
		return &rejection{reasons: []string{reasonAntiAffinity}}
	case in(a.avoidedBy):
		return &rejection{reasons: []string{reasonExistingAnti}}
	}
	return nil
}
