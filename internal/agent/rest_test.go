package agent

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestRestStopsAllAndTheNextAgentGoesOn(t *testing.T) {
	b := newBench(t)
	b.create(pod("always", corev1.RestartPolicyAlways, "a", "b"))
	b.create(pod("never", corev1.RestartPolicyNever, "a"))
	b.untilPod("always", "runs", running(2))
	b.untilPod("never", "runs", running(1))
	told := make(chan string, 10)
	if err := b.agent.Rest(t.Context(), func(ns, name string) { told <- ns + "/" + name }); err != nil {
		t.Fatal(err)
	}
	if len(told) != 2 {
		t.Errorf("%d Pods rest, want 2", len(told))
	}
	b.create(pod("late", corev1.RestartPolicyAlways, "a"))
	b.untilPod("never", "has failed", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	b.untilPod("always", "is stopped and not ended", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodRunning && p.Status.ContainerStatuses[0].State.Terminated != nil
	})
	b.stop()
	if p := b.get("late"); len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Running != nil {
		t.Error("a Pod was started while all rest")
	}
	b.start()
	b.untilPod("always", "runs again, once more", func(p *corev1.Pod) bool {
		return running(2)(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	b.untilPod("late", "runs", running(1))
}

func TestPodThatTheNodeCannotTake(t *testing.T) {
	b := newBench(t)
	b.create(pod("first", corev1.RestartPolicyAlways, "a"))
	b.untilPod("first", "runs", running(1))
	b.until("the node is known", func() bool { _, err := b.agent.nodes.Get("n1"); return err == nil })
	big := pod("big", corev1.RestartPolicyAlways, "a")
	big.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Ei")}
	b.create(big)
	b.untilPod("big", "is turned away", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodFailed && p.Status.Reason == "OutOfmemory" &&
			strings.HasPrefix(p.Status.Message, "Pod was rejected: Node didn't have enough resource: memory, requested: ")
	})
	if got := b.eventTexts(); !strings.Contains(got, "Warning OutOfmemory") {
		t.Errorf("no event says so:\n%s", got)
	}
	b.delete("big", 30)
	b.until("big is gone", func() bool { return b.get("big") == nil })
	if n, err := b.client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{}); err != nil || n.Status.Allocatable == nil {
		t.Errorf("node: %v", err)
	}
}
