package agent

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func (r *fakeRuntime) UpdateContainerResources(_ context.Context, id string, _ *runtimeapi.ContainerResources) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.called("UpdateContainerResources " + r.containers[id].Metadata.GetName())
}

func (r *fakeRuntime) UpdatePodSandboxResources(context.Context, *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	return nil, nil
}

func (b *bench) ask(name, cpu string) {
	b.t.Helper()
	p := b.get(name)
	p.Generation++
	p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	if _, err := b.client.CoreV1().Pods("ns").Update(b.t.Context(), p, metav1.UpdateOptions{}); err != nil {
		b.t.Fatal(err)
	}
}

// resizing is the reason of the Pod's pending change; "done" if there is none and its container has what was asked for.
func (b *bench) resizing(name, cpu string) string {
	p := b.get(name)
	if p.Status.ObservedGeneration != p.Generation {
		return "not seen"
	}
	for _, c := range p.Status.Conditions {
		switch c.Type {
		case corev1.PodResizePending:
			return c.Reason
		case corev1.PodResizeInProgress:
			return "in progress"
		}
	}
	cs := p.Status.ContainerStatuses[0]
	want := resource.MustParse(cpu)
	if cs.Resources != nil && cs.Resources.Requests.Cpu().Cmp(want) == 0 && cs.AllocatedResources.Cpu().Cmp(want) == 0 {
		return "done"
	}
	return "granted"
}

// TestResizeWaitsForRoom: two Pods ask for more than the node has together; the second gets it when the first asks for less, and not before,
// also if the agent starts anew in between.
func TestResizeWaitsForRoom(t *testing.T) {
	first, second := pod("first", corev1.RestartPolicyAlways, "a"), pod("second", corev1.RestartPolicyAlways, "b")
	for _, p := range []*corev1.Pod{first, second} {
		p.Generation = 1
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m")}
	}
	b := newBench(t)
	b.create(first)
	b.create(second)
	b.until("both run", func() bool {
		return b.get("first").Status.Phase == corev1.PodRunning && b.get("second").Status.Phase == corev1.PodRunning
	})
	node, err := b.client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := node.Status.Allocatable.Cpu()
	half := resource.NewMilliQuantity(all.MilliValue()/2+1, resource.DecimalSI).String()
	b.ask("first", half)
	b.until("the first is granted", func() bool { return b.resizing("first", half) == "done" })
	b.ask("second", half)
	b.until("the second waits", func() bool { return b.resizing("second", half) == corev1.PodReasonDeferred })
	if got := b.get("second").Status.ContainerStatuses[0].AllocatedResources.Cpu().String(); got != "1m" {
		t.Errorf("a Pod that waits has %s", got)
	}
	b.stop()
	b.start()
	b.ask("first", "2m")
	b.until("the second is granted", func() bool { return b.resizing("second", half) == "done" })
	b.ask("first", "1000")
	b.until("the first cannot be", func() bool { return b.resizing("first", "1000") == corev1.PodReasonInfeasible })
	b.ask("first", "3m")
	b.until("the first is granted", func() bool { return b.resizing("first", "3m") == "done" })
}
