package nodelifecycle

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
)

// cluster is a node with Pods, and the controller at work.
type cluster struct {
	*testing.T
	client *fake.Clientset
	events *record.FakeRecorder
}

func run(t *testing.T, pods ...*corev1.Pod) *cluster {
	t.Helper()
	client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}})
	for _, p := range pods {
		if err := client.Tracker().Add(p); err != nil {
			t.Fatal(err)
		}
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	c := &cluster{T: t, client: client, events: record.NewFakeRecorder(100)}
	ctl, err := New(Config{Client: client, Informers: factory, Recorder: c.events, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	var wg sync.WaitGroup
	wg.Go(func() { ctl.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait(); factory.Shutdown() })
	return c
}

// taint gives the node these taints, as a client does that does not say since when.
func (c *cluster) taint(list ...corev1.Taint) {
	c.Helper()
	n, err := c.client.CoreV1().Nodes().Get(c.Context(), "n", metav1.GetOptions{})
	if err != nil {
		c.Fatal(err)
	}
	n.Spec.Taints = list
	if _, err := c.client.CoreV1().Nodes().Update(c.Context(), n, metav1.UpdateOptions{}); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) event(want string) {
	c.Helper()
	select {
	case got := <-c.events.Events:
		if !strings.Contains(got, want) {
			c.Errorf("event %q, want %q", got, want)
		}
	case <-time.After(5 * time.Second):
		c.Fatalf("no event: %s", want)
	}
}

func (c *cluster) there(name string) bool {
	_, err := c.client.CoreV1().Pods("ns").Get(c.Context(), name, metav1.GetOptions{})
	return !apierrors.IsNotFound(err)
}

func (c *cluster) gone(name string) {
	c.Helper()
	for end := time.Now().Add(5 * time.Second); c.there(name); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			c.Fatalf("%s is not evicted", name)
		}
	}
}

func pod(name string, tolerate *int64, forEver bool) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: corev1.PodSpec{NodeName: "n"}}
	if tolerate != nil || forEver {
		p.Spec.Tolerations = []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpExists, TolerationSeconds: tolerate}}
	}
	return p
}

func TestTaintsEvict(t *testing.T) {
	c := run(t, pod("plain", nil, false), pod("tolerant", nil, true), pod("for-a-second", ptr.To(int64(1)), false))
	c.taint(corev1.Taint{Key: "k", Effect: corev1.TaintEffectNoExecute})
	c.event("TaintManagerEviction Marking for deletion Pod ns/plain")
	c.gone("plain")
	start := time.Now()
	if !c.there("for-a-second") {
		t.Error("evicted before its time")
	}
	c.gone("for-a-second")
	if took := time.Since(start); took < 800*time.Millisecond {
		t.Errorf("evicted after %v", took)
	}
	if !c.there("tolerant") {
		t.Error("the tolerant Pod is gone")
	}
}

func TestEvictionIsCancelled(t *testing.T) {
	c := run(t, pod("p", ptr.To(int64(1)), false))
	c.taint(corev1.Taint{Key: "k", Effect: corev1.TaintEffectNoExecute})
	time.Sleep(300 * time.Millisecond) // what the Pod waits for, another change of the node does not put off
	c.taint(corev1.Taint{Key: "k", Effect: corev1.TaintEffectNoExecute}, corev1.Taint{Key: "other", Effect: corev1.TaintEffectNoSchedule})
	c.taint()
	c.event("TaintManagerEviction Cancelling deletion of Pod ns/p")
	time.Sleep(1200 * time.Millisecond)
	if !c.there("p") {
		t.Error("evicted although the taint is gone")
	}
}
