package scheduler

import (
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// spreadConstraint is one topologySpreadConstraint with the number of matching Pods in each domain.
type spreadConstraint struct {
	key     string
	maxSkew int
	self    int // 1 if the Pod itself matches
	counts  map[string]int
	least   int
}

// newSpread reads the Pod's constraints of one kind and counts.
func newSpread(pod *corev1.Pod, s *Snapshot, when corev1.UnsatisfiableConstraintAction) ([]spreadConstraint, error) {
	var out []spreadConstraint
	var keys []string
	for _, c := range pod.Spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable == when {
			keys = append(keys, c.TopologyKey)
		}
	}
	required := nodeaffinity.GetRequiredNodeAffinity(pod)
	for i := range pod.Spec.TopologySpreadConstraints {
		c := &pod.Spec.TopologySpreadConstraints[i]
		if c.WhenUnsatisfiable != when {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(c.LabelSelector)
		if err != nil {
			return nil, fmt.Errorf("label selector of topology spread: %w", err)
		}
		if selector, err = withLabelKeys(selector, pod, c.MatchLabelKeys, nil); err != nil {
			return nil, err
		}
		sc := spreadConstraint{key: c.TopologyKey, maxSkew: int(c.MaxSkew), counts: map[string]int{}}
		if selector.Matches(labels.Set(pod.Labels)) {
			sc.self = 1
		}
		for _, n := range s.Nodes {
			if !hasLabels(n.Node, keys) || !counts(pod, c, n.Node, required) {
				continue
			}
			v := n.Node.Labels[c.TopologyKey]
			sc.counts[v] += 0
			for _, p := range n.Pods {
				if p.Namespace == pod.Namespace && p.DeletionTimestamp == nil && selector.Matches(labels.Set(p.Labels)) {
					sc.counts[v]++
				}
			}
		}
		sc.least = math.MaxInt
		for _, n := range sc.counts {
			sc.least = min(sc.least, n)
		}
		if len(sc.counts) == 0 || (c.MinDomains != nil && len(sc.counts) < int(*c.MinDomains)) {
			sc.least = 0
		}
		out = append(out, sc)
	}
	return out, nil
}

func hasLabels(n *corev1.Node, keys []string) bool {
	for _, k := range keys {
		if _, ok := n.Labels[k]; !ok {
			return false
		}
	}
	return true
}

// counts says whether the node's Pods count: by default nodes outside of the Pod's node affinity do not, and tainted ones do.
func counts(pod *corev1.Pod, c *corev1.TopologySpreadConstraint, n *corev1.Node, required nodeaffinity.RequiredNodeAffinity) bool {
	if c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
		if match, err := required.Match(n); err != nil || !match {
			return false
		}
	}
	if c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor {
		_, bad := corehelpers.FindMatchingUntoleratedTaint(klog.Background(), n.Spec.Taints, pod.Spec.Tolerations, func(t *corev1.Taint) bool {
			return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
		}, false)
		return !bad
	}
	return true
}

func (sc *spreadConstraint) filter(n *corev1.Node) *rejection {
	v, ok := n.Labels[sc.key]
	if !ok {
		return &rejection{reasons: []string{reasonSpreadLabel}, hopeless: true}
	}
	if sc.counts[v]+sc.self-sc.least > sc.maxSkew {
		return &rejection{reasons: []string{reasonSpread}}
	}
	return nil
}
