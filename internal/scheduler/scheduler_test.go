package scheduler

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	testclock "k8s.io/utils/clock/testing"
)

// start runs a Scheduler against a fake API whose binding subresource binds.
func start(t *testing.T, objects ...runtime.Object) (*fake.Clientset, *record.FakeRecorder) {
	t.Helper()
	client := fake.NewClientset(objects...)
	client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "binding" {
			return false, nil, nil
		}
		b := a.(clienttesting.CreateAction).GetObject().(*corev1.Binding)
		gvr := corev1.SchemeGroupVersion.WithResource("pods")
		obj, err := client.Tracker().Get(gvr, b.Namespace, b.Name)
		if err != nil {
			return true, nil, err
		}
		p := obj.(*corev1.Pod).DeepCopy()
		p.Spec.NodeName = b.Target.Name
		return true, b, client.Tracker().Update(gvr, p, b.Namespace)
	})
	factory := informers.NewSharedInformerFactory(client, 0)
	recorder := record.NewFakeRecorder(100)
	s, err := New(Config{Client: client, Informers: factory, Recorder: recorder, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	factory.Start(ctx.Done())
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		factory.Shutdown()
	})
	return client, recorder
}

func event(t *testing.T, r *record.FakeRecorder, want string) {
	t.Helper()
	select {
	case got := <-r.Events:
		if got != want {
			t.Errorf("event %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("no event; want %q", want)
	}
}

func create(t *testing.T, c *fake.Clientset, p *corev1.Pod) {
	t.Helper()
	if _, err := c.CoreV1().Pods(p.Namespace).Create(context.Background(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestBinds(t *testing.T) {
	client, recorder := start(t, node("a"))
	create(t, client, pod("p"))
	event(t, recorder, "Normal Scheduled Successfully assigned default/p to a")
	got, err := client.CoreV1().Pods("default").Get(context.Background(), "p", metav1.GetOptions{})
	if err != nil || got.Spec.NodeName != "a" {
		t.Errorf("bound to %q, %v", got.Spec.NodeName, err)
	}
}

func TestDoesNotFitThenFits(t *testing.T) {
	client, recorder := start(t, node("a"), pod("big", asks("cpu", "2"), on("a")))
	create(t, client, pod("p", asks("cpu", "1")))
	const message = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
	event(t, recorder, "Warning FailedScheduling "+message)
	deadline := time.Now().Add(5 * time.Second)
	for {
		got, err := client.CoreV1().Pods("default").Get(context.Background(), "p", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Status.Conditions) == 1 {
			c := got.Status.Conditions[0]
			if c.Type != corev1.PodScheduled || c.Status != corev1.ConditionFalse || c.Reason != "Unschedulable" || c.Message != message {
				t.Errorf("condition %+v", c)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no condition")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := client.CoreV1().Pods("default").Delete(context.Background(), "big", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	event(t, recorder, "Normal Scheduled Successfully assigned default/p to a")
}

func TestLeavesOthersAlone(t *testing.T) {
	client, recorder := start(t, node("a"))
	create(t, client, pod("gated", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}} }))
	create(t, client, pod("foreign", func(p *corev1.Pod) { p.Spec.SchedulerName = "other" }))
	create(t, client, pod("mine"))
	event(t, recorder, "Normal Scheduled Successfully assigned default/mine to a")
	select {
	case e := <-recorder.Events:
		t.Errorf("event %q", e)
	case <-time.After(50 * time.Millisecond):
	}
	gated, err := client.CoreV1().Pods("default").Get(context.Background(), "gated", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	gated.Spec.SchedulingGates = nil
	if _, err := client.CoreV1().Pods("default").Update(context.Background(), gated, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	event(t, recorder, "Normal Scheduled Successfully assigned default/gated to a")
}

func TestPodsPlacedTogetherDoNotOverfill(t *testing.T) {
	client, recorder := start(t, node("a"))
	for _, name := range []string{"a", "b", "c"} {
		create(t, client, pod(name, asks("cpu", "900m")))
	}
	scheduled, failed := 0, 0
	for range 3 {
		select {
		case e := <-recorder.Events:
			if strings.HasPrefix(e, "Normal Scheduled") {
				scheduled++
			} else {
				failed++
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no event")
		}
	}
	if scheduled != 2 || failed != 1 {
		t.Errorf("%d scheduled, %d failed", scheduled, failed)
	}
}

func TestQueueOrderAndBackoff(t *testing.T) {
	clk := testclock.NewFakeClock(time.Unix(0, 0))
	q := newQueue(clk)
	high := int32(10)
	q.put(pod("first"), false)
	clk.Step(time.Second)
	q.put(pod("second"), false)
	q.put(pod("urgent", func(p *corev1.Pod) { p.Spec.Priority = &high }), false)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, want := range []string{"urgent", "first", "second"} {
		if it, _, _ := q.next(ctx); it.pod.Name != want {
			t.Errorf("%s before %s", it.pod.Name, want)
		}
	}
	it := &item{pod: pod("p")}
	q.back(it, 0, false)
	if got, _, wait := q.pick(); got != nil || wait != parkedFor {
		t.Errorf("parked for %v", wait)
	}
	q.wake(nil)
	if got, _, wait := q.pick(); got != nil || wait != firstBackoff {
		t.Errorf("backs off for %v", wait)
	}
	clk.Step(firstBackoff)
	got, moves, _ := q.pick()
	if got == nil {
		t.Fatal("not ready after its back-off")
	}
	q.wake(nil) // while it is tried
	q.back(got, moves, false)
	if _, _, wait := q.pick(); wait != 2*firstBackoff {
		t.Errorf("backs off for %v after an event that came in between", wait)
	}
}
