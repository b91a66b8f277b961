package scheduler

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func node(name string, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}}}
	n.Status.Allocatable = list("cpu", "2", "memory", "4Gi", "pods", "110")
	for _, c := range change {
		c(n)
	}
	return n
}

func pod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name)}}
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "busybox"}}
	for _, c := range change {
		c(p)
	}
	return p
}

func list(kv ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(kv); i += 2 {
		out[corev1.ResourceName(kv[i])] = resource.MustParse(kv[i+1])
	}
	return out
}

func asks(kv ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = list(kv...) }
}

func on(n string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = n } }

func labeled(k, v string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { metav1.SetMetaDataLabel(&p.ObjectMeta, k, v) }
}

func port(number int32, protocol corev1.Protocol, ip string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = append(p.Spec.Containers[0].Ports,
			corev1.ContainerPort{ContainerPort: 80, HostPort: number, Protocol: protocol, HostIP: ip})
	}
}

func zone(z string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Labels["topology.kubernetes.io/zone"] = z }
}

func tainted(key string, effect corev1.TaintEffect) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: effect}) }
}

func affinity(anti bool, key, label, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		terms := []corev1.PodAffinityTerm{{
			TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{label: value}},
		}}
		if p.Spec.Affinity == nil {
			p.Spec.Affinity = &corev1.Affinity{}
		}
		if anti {
			p.Spec.Affinity.PodAntiAffinity = &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}
		} else {
			p.Spec.Affinity.PodAffinity = &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}
		}
	}
}

func wants(op corev1.NodeSelectorOperator, key string, values ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: op, Values: values}},
			}}},
		}}
	}
}

func spreads(key string, skew int32, when corev1.UnsatisfiableConstraintAction) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			TopologyKey: key, MaxSkew: skew, WhenUnsatisfiable: when,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
		}}
	}
}

func all(changes ...func(*corev1.Pod)) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for _, c := range changes {
			c(p)
		}
	}
}

func TestChoose(t *testing.T) {
	const (
		host = "kubernetes.io/hostname"
		noV  = " preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
		noH  = " preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
	)
	always := corev1.ContainerRestartPolicyAlways
	never := corev1.PreemptNever
	for _, tt := range []struct {
		name  string
		pod   func(*corev1.Pod)
		nodes []*corev1.Node
		pods  []*corev1.Pod
		node  string
		err   string
	}{
		{name: "no nodes", pod: asks(), err: "no nodes available to schedule pods"},
		{name: "fits", pod: asks("cpu", "2"), nodes: []*corev1.Node{node("a")}, node: "a"},
		{
			name: "no CPU left", pod: asks("cpu", "500m"), nodes: []*corev1.Node{node("a")},
			pods: []*corev1.Pod{pod("x", asks("cpu", "1800m"), on("a"))},
			err:  "0/1 nodes are available: 1 Insufficient cpu." + noV,
		},
		{
			name: "more than the node has", pod: asks("cpu", "3", "memory", "5Gi"), nodes: []*corev1.Node{node("a")},
			err: "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory." + noH,
		},
		{
			name: "never preempts", pod: all(asks("cpu", "3"), func(p *corev1.Pod) { p.Spec.PreemptionPolicy = &never }),
			nodes: []*corev1.Node{node("a")},
			err:   "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.",
		},
		{
			name: "ended Pods take no room", pod: asks("cpu", "2"), nodes: []*corev1.Node{node("a")}, node: "a",
			pods: []*corev1.Pod{pod("x", asks("cpu", "2"), on("a"), func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })},
		},
		{
			name: "the largest init container counts", nodes: []*corev1.Node{node("a")},
			pod: func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{{Name: "i", Resources: corev1.ResourceRequirements{Requests: list("cpu", "3")}}}
			},
			err: "0/1 nodes are available: 1 Insufficient cpu." + noH,
		},
		{
			name: "sidecars add to containers", nodes: []*corev1.Node{node("a")},
			pod: all(asks("cpu", "1"), func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{{
					Name: "s", RestartPolicy: &always, Resources: corev1.ResourceRequirements{Requests: list("cpu", "1500m")},
				}}
			}),
			err: "0/1 nodes are available: 1 Insufficient cpu." + noH,
		},
		{
			name: "overhead counts", nodes: []*corev1.Node{node("a")},
			pod: all(asks("cpu", "2"), func(p *corev1.Pod) { p.Spec.Overhead = list("cpu", "1m") }),
			err: "0/1 nodes are available: 1 Insufficient cpu." + noH,
		},
		{
			name: "max Pods", pod: asks(), pods: []*corev1.Pod{pod("x", on("a"))},
			nodes: []*corev1.Node{node("a", func(n *corev1.Node) { n.Status.Allocatable = list("cpu", "2", "memory", "4Gi", "pods", "1") })},
			err:   "0/1 nodes are available: 1 Too many pods." + noV,
		},
		{
			name: "extended resource", pod: asks("example.com/gpu", "1"), nodes: []*corev1.Node{node("a")},
			err: "0/1 nodes are available: 1 Insufficient example.com/gpu." + noH,
		},
		{
			name: "node selector", nodes: []*corev1.Node{node("a")},
			pod: func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} },
			err: "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector." + noH,
		},
		{
			name: "node affinity", pod: wants(corev1.NodeSelectorOpNotIn, host, "a"), nodes: []*corev1.Node{node("a"), node("b")}, node: "b",
		},
		{
			name: "taint", pod: asks(), nodes: []*corev1.Node{node("a", tainted("k", corev1.TaintEffectNoSchedule))},
			err: "0/1 nodes are available: 1 node(s) had untolerated taint(s)." + noH,
		},
		{
			name: "tolerated taint", node: "a", nodes: []*corev1.Node{node("a", tainted("k", corev1.TaintEffectNoSchedule))},
			pod: func(p *corev1.Pod) {
				p.Spec.Tolerations = []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpExists}}
			},
		},
		{
			name: "soft taint", pod: asks(), node: "b",
			nodes: []*corev1.Node{node("a", tainted("k", corev1.TaintEffectPreferNoSchedule)), node("b")},
		},
		{
			name: "cordoned", pod: asks(), nodes: []*corev1.Node{node("a", func(n *corev1.Node) { n.Spec.Unschedulable = true })},
			err: "0/1 nodes are available: 1 node(s) were unschedulable." + noH,
		},
		{
			name: "host port taken", pod: port(80, "", ""), nodes: []*corev1.Node{node("a")}, pods: []*corev1.Pod{pod("x", port(80, "", ""), on("a"))},
			err: "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports." + noV,
		},
		{
			name: "host port of another protocol", pod: port(80, corev1.ProtocolUDP, ""), nodes: []*corev1.Node{node("a")}, node: "a",
			pods: []*corev1.Pod{pod("x", port(80, corev1.ProtocolTCP, ""), on("a"))},
		},
		{
			name: "host port on another address", pod: port(80, "", "10.0.0.1"), nodes: []*corev1.Node{node("a")}, node: "a",
			pods: []*corev1.Pod{pod("x", port(80, "", "10.0.0.2"), on("a"))},
		},
		{
			name: "host port on all addresses", pod: port(80, "", "10.0.0.1"), nodes: []*corev1.Node{node("a")},
			pods: []*corev1.Pod{pod("x", port(80, "", "0.0.0.0"), on("a"))},
			err:  "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports." + noV,
		},
		{
			name: "pod affinity", pod: affinity(false, host, "app", "db"), nodes: []*corev1.Node{node("a"), node("b")}, node: "b",
			pods: []*corev1.Pod{pod("x", labeled("app", "db"), on("b"))},
		},
		{
			name: "pod affinity to nobody", pod: affinity(false, host, "app", "db"), nodes: []*corev1.Node{node("a")},
			err: "0/1 nodes are available: 1 node(s) didn't match pod affinity rules." + noH,
		},
		{
			name: "pod affinity to itself, the first", pod: all(labeled("app", "db"), affinity(false, host, "app", "db")),
			nodes: []*corev1.Node{node("a")}, node: "a",
		},
		{
			name: "pod anti-affinity", pod: affinity(true, host, "app", "db"), nodes: []*corev1.Node{node("a")},
			pods: []*corev1.Pod{pod("x", labeled("app", "db"), on("a"))},
			err:  "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules." + noV,
		},
		{
			name: "anti-affinity of a Pod there", pod: labeled("app", "db"), nodes: []*corev1.Node{node("a")},
			pods: []*corev1.Pod{pod("x", affinity(true, host, "app", "db"), on("a"))},
			err:  "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules." + noV,
		},
		{
			name: "spread", pod: all(labeled("app", "web"), spreads("topology.kubernetes.io/zone", 1, corev1.DoNotSchedule)), node: "b",
			nodes: []*corev1.Node{node("a", zone("1")), node("b", zone("2"))}, pods: []*corev1.Pod{pod("x", labeled("app", "web"), on("a"))},
		},
		{
			name: "spread over a label that is not there", pod: all(labeled("app", "web"), spreads("rack", 1, corev1.DoNotSchedule)),
			nodes: []*corev1.Node{node("a")},
			err:   "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label)." + noH,
		},
		{
			name: "soft spread", pod: all(labeled("app", "web"), spreads(host, 1, corev1.ScheduleAnyway)), node: "b",
			nodes: []*corev1.Node{node("a"), node("b")}, pods: []*corev1.Pod{pod("x", labeled("app", "web"), on("a"))},
		},
		{
			name: "more room", pod: asks("cpu", "100m"), node: "b", nodes: []*corev1.Node{node("a"), node("b")},
			pods: []*corev1.Pod{pod("x", asks("cpu", "1", "memory", "2Gi"), on("a"))},
		},
		{
			name: "different reasons", pod: asks("cpu", "1"),
			nodes: []*corev1.Node{node("a", tainted("k", corev1.TaintEffectNoExecute)), node("b")},
			pods:  []*corev1.Pod{pod("x", asks("cpu", "2"), on("b"))},
			err: "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s). preemption: 0/2 nodes are available: " +
				"1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling.",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Choose(pod("new", tt.pod), NewSnapshot(tt.nodes, tt.pods, nil))
			if got != tt.node {
				t.Errorf("node %q, want %q", got, tt.node)
			}
			if d := cmp.Diff(tt.err, errText(err)); d != "" {
				t.Error(d)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprint(err)
}
