package scheduler

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Snapshot is the cluster at one moment, as far as scheduling looks at it. It is not changed after it was made.
type Snapshot struct {
	// Nodes in order of name.
	Nodes []*NodeInfo
	// Namespaces are the labels of each namespace, for pod affinity.
	Namespaces map[string]map[string]string
	// Storage is there for Pods that use claims; nil for others, and lets every node pass.
	Storage *Storage
}

// NodeInfo is a node with the Pods that take its room: those bound to it that have not ended, whoever bound them.
type NodeInfo struct {
	Node *corev1.Node
	Pods []*corev1.Pod

	requested corev1.ResourceList
	scoring   [2]int64 // milli-CPU and bytes, with the defaults for Pods that request nothing
}

// What a container that requests nothing counts as when nodes are ranked, as in Kubernetes; it takes no room.
const (
	defaultMilliCPU = 100
	defaultMemory   = 200 << 20
)

// weight is what a Pod takes of its node, and what it counts as when nodes are ranked.
type weight struct {
	requests corev1.ResourceList
	scoring  [2]int64
}

func weigh(p *corev1.Pod) weight { return weight{requests(p), scoringRequests(p)} }

// NewSnapshot sorts pods to their nodes.
func NewSnapshot(nodes []*corev1.Node, pods []*corev1.Pod, namespaces []*corev1.Namespace) *Snapshot {
	return newSnapshot(nodes, pods, namespaces, weigh)
}

func newSnapshot(nodes []*corev1.Node, pods []*corev1.Pod, namespaces []*corev1.Namespace, weigh func(*corev1.Pod) weight) *Snapshot {
	s := &Snapshot{Namespaces: make(map[string]map[string]string, len(namespaces))}
	byName := make(map[string]*NodeInfo, len(nodes))
	for _, n := range nodes {
		info := &NodeInfo{Node: n, requested: corev1.ResourceList{}}
		byName[n.Name] = info
		s.Nodes = append(s.Nodes, info)
	}
	slices.SortFunc(s.Nodes, func(a, b *NodeInfo) int { return strings.Compare(a.Node.Name, b.Node.Name) })
	for _, p := range pods {
		if info := byName[p.Spec.NodeName]; info != nil && !ended(p) {
			info.add(p, weigh(p))
		}
	}
	for _, ns := range namespaces {
		s.Namespaces[ns.Name] = ns.Labels
	}
	return s
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func (n *NodeInfo) add(p *corev1.Pod, w weight) {
	n.Pods = append(n.Pods, p)
	for name, q := range w.requests {
		sum := n.requested[name]
		sum.Add(q)
		n.requested[name] = sum
	}
	n.scoring[0] += w.scoring[0]
	n.scoring[1] += w.scoring[1]
}

// requests is what a Pod takes from its node: the larger of its containers (sidecars among them) and of each init step, plus overhead.
func requests(p *corev1.Pod) corev1.ResourceList {
	return resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true})
}

func scoringRequests(p *corev1.Pod) [2]int64 {
	r := resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{
		UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true,
		NonMissingContainerRequests: corev1.ResourceList{
			corev1.ResourceCPU: *milli(defaultMilliCPU), corev1.ResourceMemory: *bytesOf(defaultMemory),
		},
	})
	return [2]int64{r.Cpu().MilliValue(), r.Memory().Value()}
}
