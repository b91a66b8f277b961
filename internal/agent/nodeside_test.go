package agent

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/agent/podstate"
)

// TestAddressesFollow: when the node's address changes, the Node and its Pods tell the new one, and nothing is started anew.
func TestAddressesFollow(t *testing.T) {
	b := newBench(t)
	b.create(pod("p", corev1.RestartPolicyAlways, "a"))
	b.untilPod("p", "runs", running(1))
	b.agent.SetNodeIPs([]netip.Addr{netip.MustParseAddr("198.51.100.7")})
	b.untilPod("p", "tells the new address", func(p *corev1.Pod) bool { return p.Status.HostIP == "198.51.100.7" && running(1)(p) })
	b.until("the Node tells it", func() bool {
		n, err := b.client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
		return err == nil && len(n.Status.Addresses) > 0 && n.Status.Addresses[0].Address == "198.51.100.7"
	})
	if n := b.runtime.started("a"); n != 1 {
		t.Errorf("it was started %d times", n)
	}
}

// TestSystemPodsRestLast: the Pods of the system are stopped after all others.
func TestSystemPodsRestLast(t *testing.T) {
	b := newBench(t)
	system, high := pod("system", corev1.RestartPolicyAlways, "s"), int32(2_000_000_000)
	system.Spec.Priority = &high
	b.create(system)
	b.create(pod("usual", corev1.RestartPolicyAlways, "u"))
	b.untilPod("system", "runs", running(1))
	b.untilPod("usual", "runs", running(1))
	var order []string
	if err := b.agent.Rest(t.Context(), func(_, name string) { order = append(order, name) }); err != nil {
		t.Fatal(err)
	}
	if len(order) != 2 || order[0] != "usual" {
		t.Errorf("%v", order)
	}
}

// TestFreeLosesNothing: ended containers are removed when the disk is full, and what is known of them stays: an init container that is done does
// not run again, an exit code is still told, also by the next agent.
func TestFreeLosesNothing(t *testing.T) {
	b := newBench(t)
	p := pod("p", corev1.RestartPolicyNever, "a", "b")
	p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "busybox", ImagePullPolicy: corev1.PullIfNotPresent}}
	b.create(p)
	b.until("the init container runs", func() bool { return b.runtime.started("i") == 1 })
	b.runtime.exits("i", 0)
	b.untilPod("p", "runs", running(2))
	b.runtime.exits("a", 7)
	ended := func(p *corev1.Pod) bool {
		s := p.Status
		return len(s.ContainerStatuses) == 2 && s.ContainerStatuses[0].State.Terminated != nil && s.ContainerStatuses[0].State.Terminated.ExitCode == 7 &&
			s.InitContainerStatuses[0].State.Terminated != nil && s.InitContainerStatuses[0].State.Terminated.ExitCode == 0 && s.ContainerStatuses[1].State.Running != nil
	}
	b.untilPod("p", "shows the end of a", ended)
	if err := b.agent.free(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.runtime.mu.Lock()
	left := len(b.runtime.containers)
	b.runtime.mu.Unlock()
	if left != 1 {
		t.Errorf("%d containers are left, want the one that runs", left)
	}
	b.stop()
	b.start()
	b.until("the agent knows it", func() bool { v, ok := b.agent.View("ns", "p", ""); return ok && v.Logs["b"].RunningID != "" })
	b.untilPod("p", "still shows the end of a", ended)
	if v, _ := b.agent.View("ns", "p", ""); v.Logs["a"].Newest != 0 || v.Logs["i"].Newest != 0 {
		t.Errorf("their logs are forgotten: %+v", v.Logs)
	}
	for _, name := range []string{"i", "a", "b"} {
		if n := b.runtime.started(name); n != 1 {
			t.Errorf("%s was started %d times", name, n)
		}
	}
	b.runtime.exits("b", 0)
	b.untilPod("p", "has failed", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
}

// TestEvictedPod: a Pod that the node ends gets the time that it is given, its status tells why, and the condition is removed by nobody.
func TestEvictedPod(t *testing.T) {
	b := newBench(t)
	b.create(pod("p", corev1.RestartPolicyAlways, "a"))
	b.untilPod("p", "runs", running(1))
	uid := b.get("p").UID
	why := endForTest("too little")
	over := b.agent.end(uid, why)
	b.untilPod("p", "has failed", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodFailed && p.Status.Reason == "Evicted" && p.Status.Message == "too little"
	})
	<-over
	find := func(p *corev1.Pod) *corev1.PodCondition {
		for i := range p.Status.Conditions {
			if p.Status.Conditions[i].Type == corev1.DisruptionTarget {
				return &p.Status.Conditions[i]
			}
		}
		return nil
	}
	if c := find(b.get("p")); c == nil || c.Status != corev1.ConditionTrue || c.Reason != "TerminationByKubelet" || c.Message != "too little" {
		t.Errorf("%+v", c)
	}
	b.stop()
	b.start()
	b.until("the next agent knows it", func() bool { _, ok := b.agent.View("ns", "p", ""); return ok })
	if c := find(b.get("p")); c == nil || b.runtime.started("a") != 1 {
		t.Errorf("%+v, started %d times", c, b.runtime.started("a"))
	}
}

func endForTest(message string) podstate.End {
	grace := time.Second
	return podstate.End{Reason: "Evicted", Message: message, Grace: &grace, Disrupted: true}
}

func (r *fakeRuntime) ListContainers(context.Context, *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*runtimeapi.Container
	for _, c := range r.containers {
		list = append(list, &runtimeapi.Container{Id: c.Id, Metadata: c.Metadata, ImageId: c.ImageId, ImageRef: c.ImageRef})
	}
	return list, nil
}

// TestCriticalPodMakesRoom: a Pod of the system that the node has no room for ends one that is not, and runs.
func TestCriticalPodMakesRoom(t *testing.T) {
	b := newBench(t)
	var cpus resource.Quantity
	b.until("the Node is there", func() bool {
		n, err := b.client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
		if err == nil {
			cpus = n.Status.Allocatable[corev1.ResourceCPU]
		}
		return err == nil
	})
	asks := func(name string, priority int32, cpu resource.Quantity) *corev1.Pod {
		p := pod(name, corev1.RestartPolicyAlways, name)
		p.Spec.Priority = &priority
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: cpu}
		return p
	}
	b.create(asks("usual", 1000, cpus))
	b.untilPod("usual", "runs", running(1))
	b.create(asks("other", 1000, resource.MustParse("100m")))
	b.untilPod("other", "is refused", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed && p.Status.Reason == "OutOfcpu" })
	b.create(asks("system", 2_000_000_000, resource.MustParse("100m")))
	b.untilPod("system", "runs", running(1))
	b.untilPod("usual", "ends", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodFailed && p.Status.Reason == "Preempting" && p.Status.Message == "Preempted in order to admit critical pod" &&
			slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.DisruptionTarget && c.Reason == corev1.PodReasonTerminationByKubelet
			})
	})
	if e := b.eventTexts(); !strings.Contains(e, "Warning Preempting Preempted in order to admit critical pod") {
		t.Error(e)
	}
}
