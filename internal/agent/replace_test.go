package agent

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clienttesting "k8s.io/client-go/testing"
)

// TestReplacedContainerStaysReady: a new image means another container, and no moment in which the Pod is told as not ready.
func TestReplacedContainerStaysReady(t *testing.T) {
	b := newBench(t)
	b.create(pod("p", corev1.RestartPolicyAlways, "a"))
	b.untilPod("p", "runs", running(1))
	b.until("that is written", func() bool { v, ok := b.agent.View("ns", "p", ""); return ok && v.Status.Phase == corev1.PodRunning })
	b.client.ClearActions()
	p := b.get("p")
	p.Spec.Containers[0].Image = "busybox:latest"
	if _, err := b.client.CoreV1().Pods("ns").Update(t.Context(), p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	b.untilPod("p", "has another container", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 1 && running(1)(p) })
	for _, a := range b.client.Actions() {
		if patch, ok := a.(clienttesting.PatchAction); ok && strings.Contains(string(patch.GetPatch()), `"ready":false`) {
			t.Errorf("told as not ready: %s", patch.GetPatch())
		}
	}
}
