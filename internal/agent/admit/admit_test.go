package admit

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func node() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"disk": "ssd"}},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: "soft", Effect: corev1.TaintEffectNoSchedule}}},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("1Gi"), corev1.ResourcePods: resource.MustParse("3"),
		}},
	}
}

func pod(change func(*corev1.PodSpec)) *corev1.Pod {
	p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	if change != nil {
		change(&p.Spec)
	}
	return p
}

func asks(cpu string) func(*corev1.PodSpec) {
	return func(s *corev1.PodSpec) {
		s.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	}
}

func listens(ip string, number int32, protocol corev1.Protocol) func(*corev1.PodSpec) {
	return func(s *corev1.PodSpec) {
		s.Containers[0].Ports = []corev1.ContainerPort{{HostIP: ip, HostPort: number, Protocol: protocol, ContainerPort: 1}}
	}
}

func TestCheck(t *testing.T) {
	ports := "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
	for _, c := range []struct {
		name   string
		node   func(*corev1.Node)
		others []*corev1.Pod
		pod    *corev1.Pod
		want   *Rejection
	}{
		{name: "fits", pod: pod(asks("1500m")), others: []*corev1.Pod{pod(asks("500m"))}},
		{name: "asks for nothing on a full node", pod: pod(nil), others: []*corev1.Pod{pod(asks("2"))}},
		{name: "cpu", pod: pod(asks("1501m")), others: []*corev1.Pod{pod(asks("500m"))},
			want: &Rejection{"OutOfcpu", "Pod was rejected: Node didn't have enough resource: cpu, requested: 1501, used: 500, capacity: 2000"}},
		{name: "a resource the node does not have", pod: pod(func(s *corev1.PodSpec) {
			s.Containers[0].Resources.Requests = corev1.ResourceList{"example.com/gpu": resource.MustParse("1")}
		}), want: &Rejection{"OutOfexample.com/gpu", "Pod was rejected: Node didn't have enough resource: example.com/gpu, requested: 1, used: 0, capacity: 0"}},
		{name: "pods", pod: pod(nil), others: []*corev1.Pod{pod(nil), pod(nil), pod(nil)},
			want: &Rejection{"OutOfpods", "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"}},
		{name: "Linux", pod: pod(func(s *corev1.PodSpec) { s.OS = &corev1.PodOS{Name: corev1.Linux} })},
		{name: "Windows", pod: pod(func(s *corev1.PodSpec) { s.OS = &corev1.PodOS{Name: corev1.Windows} }),
			want: &Rejection{"PodOSNotSupported", "Pod was rejected: Failed to admit pod as the OS field doesn't match node OS"}},
		{name: "selector", pod: pod(func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{"disk": "tape"} }),
			want: &Rejection{"NodeAffinity", "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"}},
		{name: "selector matches", pod: pod(func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{"disk": "ssd"} })},
		{name: "port on all addresses", pod: pod(listens("", 80, "")), others: []*corev1.Pod{pod(listens("10.0.0.1", 80, "TCP"))}, want: &Rejection{"NodePorts", ports}},
		{name: "port on 0.0.0.0", pod: pod(listens("10.0.0.1", 80, "")), others: []*corev1.Pod{pod(listens("0.0.0.0", 80, "TCP"))}, want: &Rejection{"NodePorts", ports}},
		{name: "other address", pod: pod(listens("10.0.0.2", 80, "")), others: []*corev1.Pod{pod(listens("10.0.0.1", 80, "TCP"))}},
		{name: "other protocol", pod: pod(listens("", 80, "UDP")), others: []*corev1.Pod{pod(listens("", 80, "TCP"))}},
		{name: "NoExecute", node: func(n *corev1.Node) { n.Spec.Taints[0].Effect = corev1.TaintEffectNoExecute }, pod: pod(nil),
			want: &Rejection{"TaintToleration", "Pod was rejected: Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := node()
			if c.node != nil {
				c.node(n)
			}
			if diff := cmp.Diff(c.want, Check(n, c.others, c.pod)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
