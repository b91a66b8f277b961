package replicaset

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
)

func TestAsSetKeepsAll(t *testing.T) {
	n := int32(3)
	rc := &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "u", Generation: 2},
		Spec: corev1.ReplicationControllerSpec{Replicas: &n, MinReadySeconds: 4, Selector: web,
			Template: &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: web}}},
		Status: corev1.ReplicationControllerStatus{Replicas: 3, FullyLabeledReplicas: 2, ReadyReplicas: 1, AvailableReplicas: 1, ObservedGeneration: 2,
			Conditions: []corev1.ReplicationControllerCondition{{Type: corev1.ReplicationControllerReplicaFailure, Status: corev1.ConditionTrue,
				LastTransitionTime: metav1.Unix(1, 0), Reason: "FailedCreate", Message: "m"}}}}
	if diff := cmp.Diff(rc, withStatus(asSet(rc))); diff != "" {
		t.Errorf("there and back (-want +got):\n%s", diff)
	}
}

// TestReplicationController: Pods are made, owned as a ReplicationController owns them, and the status is written once.
func TestReplicationController(t *testing.T) {
	two := int32(2)
	rc := &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "uid-web", Generation: 1},
		Spec: corev1.ReplicationControllerSpec{Replicas: &two, Selector: web, Template: &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: web}}}}
	client := fake.NewClientset(rc)
	var serial, writes atomic.Int64
	client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		p := a.(clienttesting.CreateAction).GetObject().(*corev1.Pod)
		p.Name = fmt.Sprintf("%s%05d", p.GenerateName, serial.Add(1))
		p.UID = types.UID(p.Name)
		return true, p, client.Tracker().Create(a.GetResource(), p, p.Namespace)
	})
	client.PrependReactor("update", "replicationcontrollers", func(clienttesting.Action) (bool, runtime.Object, error) {
		writes.Add(1)
		return false, nil, nil
	})
	factory := informers.NewSharedInformerFactory(client, 0)
	c, err := NewReplication(Config{Client: client, Informers: factory, Recorder: record.NewFakeRecorder(100), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		factory.Shutdown()
	}()
	var pods []corev1.Pod
	var got corev1.ReplicationControllerStatus
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline) && (len(pods) != 2 || got.Replicas != 2); time.Sleep(5 * time.Millisecond) {
		list, err := client.CoreV1().Pods("ns").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		pods = list.Items
		now, err := client.CoreV1().ReplicationControllers("ns").Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got = now.Status
	}
	if diff := cmp.Diff(corev1.ReplicationControllerStatus{Replicas: 2, FullyLabeledReplicas: 2, ObservedGeneration: 1}, got); diff != "" || len(pods) != 2 {
		t.Fatalf("%d pods, status (-want +got):\n%s", len(pods), diff)
	}
	if ref := metav1.GetControllerOf(&pods[0]); ref == nil || ref.Kind != "ReplicationController" || ref.APIVersion != "v1" || ref.UID != "uid-web" {
		t.Errorf("owner %+v", ref)
	}
	settled := writes.Load()
	time.Sleep(100 * time.Millisecond)
	if n := writes.Load(); n != settled || n > 4 {
		t.Errorf("the status was written %d times, %d of them with nothing new", n, n-settled)
	}
}
