package scheduler

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	podrule "carob.dev/carob/internal/api/pod"
)

// The reasons why a node does not take a Pod, in Kubernetes' words.
const (
	reasonNodeName      = "node(s) didn't match the requested node name"
	reasonUnschedulable = "node(s) were unschedulable"
	reasonTaint         = "node(s) had untolerated taint(s)"
	reasonAffinity      = "node(s) didn't match Pod's node affinity/selector"
	reasonPorts         = "node(s) didn't have free ports for the requested pod ports"
	reasonTooMany       = "Too many pods"
	reasonSpread        = "node(s) didn't match pod topology spread constraints"
	reasonSpreadLabel   = reasonSpread + " (missing required label)"
	reasonPodAffinity   = "node(s) didn't match pod affinity rules"
	reasonAntiAffinity  = "node(s) didn't match pod anti-affinity rules"
	reasonExistingAnti  = "node(s) didn't satisfy existing pods anti-affinity rules"
	reasonNoVictims     = "No preemption victims found for incoming pod"
	reasonNotHelpful    = "Preemption is not helpful for scheduling"
)

// rejection is why one node does not take the Pod. hopeless says that removing Pods from it would not help.
type rejection struct {
	reasons  []string
	hopeless bool
}

func milli(n int64) *resource.Quantity   { return resource.NewMilliQuantity(n, resource.DecimalSI) }
func bytesOf(n int64) *resource.Quantity { return resource.NewQuantity(n, resource.BinarySI) }

// cycle is what is worked out once for a Pod and used for each node.
type cycle struct {
	pod      *corev1.Pod
	requests corev1.ResourceList
	affinity nodeaffinity.RequiredNodeAffinity
	ports    []corev1.ContainerPort
	pods     podAffinity
	spread   []spreadConstraint
	volumes  podVolumes
}

// newCycle prepares; an error means that the Pod's own selectors cannot be read.
func newCycle(pod *corev1.Pod, s *Snapshot) (*cycle, error) {
	c := &cycle{pod: pod, requests: requests(pod), affinity: nodeaffinity.GetRequiredNodeAffinity(pod), ports: podrule.HostPorts(pod)}
	var err error
	if c.pods, err = newPodAffinity(pod, s); err != nil {
		return nil, err
	}
	c.spread, err = newSpread(pod, s, corev1.DoNotSchedule)
	return c, err
}

// filter says why the node does not take the Pod, nil if it does. The first check that fails speaks, as in Kubernetes.
func (c *cycle) filter(n *NodeInfo) *rejection {
	reject := func(hopeless bool, reasons ...string) *rejection {
		return &rejection{reasons: reasons, hopeless: hopeless}
	}
	node, pod := n.Node, c.pod
	if pod.Spec.NodeName != "" && pod.Spec.NodeName != node.Name {
		return reject(true, reasonNodeName)
	}
	if node.Spec.Unschedulable && !tolerates(pod, &corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}) {
		return reject(true, reasonUnschedulable)
	}
	if _, bad := corehelpers.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, pod.Spec.Tolerations, func(t *corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	}, false); bad {
		return reject(true, reasonTaint)
	}
	if match, err := c.affinity.Match(node); err != nil || !match {
		return reject(true, reasonAffinity)
	}
	if podrule.HostPortsTaken(c.ports, n.Pods) {
		return reject(false, reasonPorts)
	}
	if r := c.fits(n); r != nil {
		return r
	}
	if r := c.volumes.restricted(n); r != nil {
		return r
	}
	if _, r := c.volumes.place(node); r != nil {
		return r
	}
	for _, sc := range c.spread {
		if r := sc.filter(node); r != nil {
			return r
		}
	}
	return c.pods.filter(node)
}

func tolerates(pod *corev1.Pod, taint *corev1.Taint) bool {
	return slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool { return t.ToleratesTaint(klog.Background(), taint, false) })
}

// fits compares the Pod's requests with the room left; all shortages are named.
func (c *cycle) fits(n *NodeInfo) *rejection {
	r := &rejection{}
	allocatable := n.Node.Status.Allocatable
	if int64(len(n.Pods))+1 > allocatable.Pods().Value() {
		r.reasons = append(r.reasons, reasonTooMany)
	}
	names := make([]string, 0, len(c.requests))
	for name := range c.requests {
		names = append(names, string(name))
	}
	slices.Sort(names)
	for _, name := range names {
		want := c.requests[corev1.ResourceName(name)]
		if want.Sign() <= 0 || name == string(corev1.ResourcePods) {
			continue
		}
		room := allocatable[corev1.ResourceName(name)]
		r.hopeless = r.hopeless || want.Cmp(room) > 0
		room = room.DeepCopy()
		room.Sub(n.requested[corev1.ResourceName(name)])
		if want.Cmp(room) > 0 {
			r.reasons = append(r.reasons, "Insufficient "+name)
		}
	}
	if len(r.reasons) == 0 {
		return nil
	}
	return r
}

// Unschedulable says why no node takes a Pod. It is an error.
type Unschedulable struct {
	// Nodes is how many nodes there are.
	Nodes int
	// Reason is why no node can take the Pod, whatever it is like; empty if each was looked at.
	Reason string
	// Rejected counts the nodes for each reason.
	Rejected map[string]int
	// Preemption counts what removing Pods from the nodes would bring.
	Preemption map[string]int
	// NeverPreempts is set for a Pod whose preemptionPolicy is Never.
	NeverPreempts bool
}

// Error words it as Kubernetes does.
func (u *Unschedulable) Error() string {
	if u.Nodes == 0 {
		return "no nodes available to schedule pods"
	}
	msg := fmt.Sprintf("0/%d nodes are available: %s.", u.Nodes, u.Reason)
	if u.Reason == "" {
		msg = nodesAvailable(u.Nodes, u.Rejected)
	}
	if u.NeverPreempts {
		return msg + " preemption: not eligible due to preemptionPolicy=Never."
	}
	return msg + " preemption: " + nodesAvailable(u.Nodes, u.Preemption)
}

func nodesAvailable(nodes int, reasons map[string]int) string {
	lines := make([]string, 0, len(reasons))
	for reason, count := range reasons {
		lines = append(lines, fmt.Sprintf("%d %s", count, reason))
	}
	slices.Sort(lines)
	return fmt.Sprintf("0/%d nodes are available: %s.", nodes, strings.Join(lines, ", "))
}
