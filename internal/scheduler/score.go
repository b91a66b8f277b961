package scheduler

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// Weights of the scores, each of which is 0 to 100, as in Kubernetes' default profile.
const (
	weightTaints      = 3
	weightAffinity    = 2
	weightSpread      = 2
	weightPodAffinity = 2
	weightRoom        = 1
	weightBalance     = 1
	weightImages      = 1
)

// Choose picks the node for the Pod: among those that take it the one with the best score, the first by name if there are several. The error
// is an *Unschedulable if no node takes it.
func Choose(pod *corev1.Pod, s *Snapshot) (string, error) {
	node, _, err := choose(pod, s)
	return node, err
}

// choose also says what must be done about the Pod's volumes before it can be bound there.
func choose(pod *corev1.Pod, s *Snapshot) (string, bindings, error) {
	c, err := newCycle(pod, s)
	if err != nil {
		return "", bindings{}, err
	}
	var reason string
	if c.volumes, reason = newPodVolumes(pod, s); reason != "" {
		return "", bindings{}, &Unschedulable{
			Nodes: len(s.Nodes), Reason: reason, Preemption: map[string]int{reasonNotHelpful: len(s.Nodes)}, NeverPreempts: neverPreempts(pod),
		}
	}
	n, err := c.best(s)
	if err != nil {
		return "", bindings{}, err
	}
	b, _ := c.volumes.place(n)
	return n.Name, b, nil
}

func neverPreempts(pod *corev1.Pod) bool {
	return pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy == corev1.PreemptNever
}

// best is the node with the best score of those that take the Pod.
func (c *cycle) best(s *Snapshot) (*corev1.Node, error) {
	pod := c.pod
	u := &Unschedulable{Nodes: len(s.Nodes), Rejected: map[string]int{}, Preemption: map[string]int{}}
	var fit []*NodeInfo
	for _, n := range s.Nodes {
		r := c.filter(n)
		if r == nil {
			fit = append(fit, n)
			continue
		}
		for _, reason := range r.reasons {
			u.Rejected[reason]++
		}
		if r.hopeless {
			u.Preemption[reasonNotHelpful]++
		} else {
			u.Preemption[reasonNoVictims]++
		}
	}
	switch len(fit) {
	case 0:
		u.NeverPreempts = neverPreempts(pod)
		return nil, u
	case 1:
		return fit[0].Node, nil
	}
	scores, err := c.scores(fit, s)
	if err != nil {
		return nil, err
	}
	best := 0
	for i := range scores {
		if scores[i] > scores[best] {
			best = i
		}
	}
	return fit[best].Node, nil
}

func (c *cycle) scores(fit []*NodeInfo, s *Snapshot) ([]float64, error) {
	total := make([]float64, len(fit))
	add := func(weight float64, scores []float64) {
		for i := range scores {
			total[i] += weight * scores[i]
		}
	}
	each := func(fn func(n *NodeInfo) float64) []float64 {
		out := make([]float64, len(fit))
		for i, n := range fit {
			out[i] = fn(n)
		}
		return out
	}
	pod := c.pod
	add(weightTaints, normalize(each(func(n *NodeInfo) float64 { return float64(intolerable(pod, n.Node)) }), true))
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil && len(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) > 0 {
		terms, err := nodeaffinity.NewPreferredSchedulingTerms(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
		if err != nil {
			return nil, err
		}
		add(weightAffinity, normalize(each(func(n *NodeInfo) float64 { return float64(terms.Score(n.Node)) }), false))
	}
	spread, err := newSpread(pod, s, corev1.ScheduleAnyway)
	if err != nil {
		return nil, err
	}
	if len(spread) > 0 {
		add(weightSpread, normalize(each(func(n *NodeInfo) float64 {
			sum := 0.0
			for _, sc := range spread {
				sum += float64(sc.counts[n.Node.Labels[sc.key]]) * math.Log(float64(len(sc.counts)+2))
			}
			return sum
		}), true))
	} else {
		// Kubernetes spreads by default over nodes; Pods of one owner stand for Pods of one service.
		add(weightSpread, normalize(each(func(n *NodeInfo) float64 { return float64(siblings(pod, n)) }), true))
	}
	preferred, err := c.preferredPods(fit, s)
	if err != nil {
		return nil, err
	}
	add(weightPodAffinity, preferred)
	add(weightRoom, each(c.room))
	add(weightBalance, each(c.balance))
	add(weightImages, each(func(n *NodeInfo) float64 { return images(pod, n.Node) }))
	return total, nil
}

// normalize maps scores to 0..100, the largest to 100; reverse turns them round, so that the smallest is best.
func normalize(scores []float64, reverse bool) []float64 {
	top := 0.0
	for _, v := range scores {
		top = max(top, v)
	}
	for i := range scores {
		if top > 0 {
			scores[i] = scores[i] * 100 / top
		}
		if reverse {
			scores[i] = 100 - scores[i]
		}
	}
	return scores
}

func intolerable(pod *corev1.Pod, n *corev1.Node) int {
	count := 0
	for i := range n.Spec.Taints {
		t := &n.Spec.Taints[i]
		if t.Effect == corev1.TaintEffectPreferNoSchedule &&
			!corehelpers.TolerationsTolerateTaint(klog.Background(), pod.Spec.Tolerations, t, false) {
			count++
		}
	}
	return count
}

func siblings(pod *corev1.Pod, n *NodeInfo) int {
	owner := controllerOf(pod)
	if owner == "" {
		return 0
	}
	count := 0
	for _, p := range n.Pods {
		if controllerOf(p) == owner {
			count++
		}
	}
	return count
}

func controllerOf(p *corev1.Pod) string {
	for _, o := range p.OwnerReferences {
		if o.Controller != nil && *o.Controller {
			return string(o.UID)
		}
	}
	return ""
}

// usage is the share of CPU and memory that would be in use with the Pod there, each 0 to 1.
func (c *cycle) usage(n *NodeInfo) (cpu, memory float64) {
	mine := scoringRequests(c.pod)
	share := func(used, of int64) float64 {
		if of <= 0 {
			return 1
		}
		return min(1, float64(used)/float64(of))
	}
	return share(n.scoring[0]+mine[0], n.Node.Status.Allocatable.Cpu().MilliValue()),
		share(n.scoring[1]+mine[1], n.Node.Status.Allocatable.Memory().Value())
}

// room prefers nodes with more left.
func (c *cycle) room(n *NodeInfo) float64 {
	cpu, memory := c.usage(n)
	return 100 * (2 - cpu - memory) / 2
}

// balance prefers nodes whose CPU and memory fill up alike.
func (c *cycle) balance(n *NodeInfo) float64 {
	cpu, memory := c.usage(n)
	return 100 * (1 - math.Abs(cpu-memory)/2)
}

// images prefers nodes that have the Pod's images, large ones more: nothing below 23 MiB, full marks at 1000 MiB per container.
func images(pod *corev1.Pod, n *corev1.Node) float64 {
	sizes := map[string]int64{}
	for _, image := range n.Status.Images {
		for _, name := range image.Names {
			sizes[name] = image.SizeBytes
		}
	}
	var sum int64
	for _, c := range pod.Spec.Containers {
		sum += sizes[c.Image]
	}
	const low = 23 << 20
	high := int64(1000<<20) * int64(len(pod.Spec.Containers))
	return 100 * float64(min(max(sum, low), high)-low) / float64(high-low)
}

// preferredPods scores preferred pod (anti-)affinity, the Pod's own and that of Pods already there.
func (c *cycle) preferredPods(fit []*NodeInfo, s *Snapshot) ([]float64, error) {
	sums := map[domain]float64{}
	var mine []term
	read := func(owner *corev1.Pod) ([]term, error) {
		var out []term
		a := owner.Spec.Affinity
		if a == nil {
			return nil, nil
		}
		collect := func(in []corev1.WeightedPodAffinityTerm, sign int32) error {
			for i := range in {
				t, err := newTerm(owner, &in[i].PodAffinityTerm, sign*in[i].Weight)
				if err != nil {
					return err
				}
				out = append(out, t)
			}
			return nil
		}
		if a.PodAffinity != nil {
			if err := collect(a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution, 1); err != nil {
				return nil, err
			}
		}
		if a.PodAntiAffinity != nil {
			if err := collect(a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, -1); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	mine, err := read(c.pod)
	if err != nil {
		return nil, err
	}
	note := func(t term, n *corev1.Node) {
		if v, ok := n.Labels[t.topologyKey]; ok {
			sums[domain{t.topologyKey, v}] += float64(t.weight)
		}
	}
	for _, n := range s.Nodes {
		for _, p := range n.Pods {
			for _, t := range mine {
				if t.matches(p, s.Namespaces) {
					note(t, n.Node)
				}
			}
			theirs, err := read(p)
			if err != nil {
				continue
			}
			for _, t := range theirs {
				if t.matches(c.pod, s.Namespaces) {
					note(t, n.Node)
				}
			}
		}
	}
	out := make([]float64, len(fit))
	low, high := math.Inf(1), math.Inf(-1)
	for i, n := range fit {
		for d, v := range sums {
			if n.Node.Labels[d.key] == d.value {
				out[i] += v
			}
		}
		low, high = min(low, out[i]), max(high, out[i])
	}
	for i := range out {
		if high > low {
			out[i] = 100 * (out[i] - low) / (high - low)
		} else {
			out[i] = 0
		}
	}
	return out, nil
}
