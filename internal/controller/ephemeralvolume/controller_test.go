package ephemeralvolume

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
)

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: "u"},
		Spec: corev1.PodSpec{Volumes: []corev1.Volume{
			{Name: "v", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}},
				Spec:       corev1.PersistentVolumeClaimSpec{StorageClassName: ptr.To("s")},
			}}}},
			{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		}},
	}
}

func start(t *testing.T, client *fake.Clientset) *record.FakeRecorder {
	t.Helper()
	factory := informers.NewSharedInformerFactory(client, 0)
	recorder := record.NewFakeRecorder(100)
	c, err := New(Config{Client: client, Informers: factory, Recorder: recorder, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	factory.Start(ctx.Done())
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		factory.Shutdown()
	})
	return recorder
}

func TestMakesTheClaim(t *testing.T) {
	client := fake.NewClientset(pod("p"))
	start(t, client)
	var got *corev1.PersistentVolumeClaim
	for deadline := time.Now().Add(5 * time.Second); got == nil; time.Sleep(5 * time.Millisecond) {
		if c, err := client.CoreV1().PersistentVolumeClaims("ns").Get(t.Context(), "p-v", metav1.GetOptions{}); err == nil {
			got = c
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	want := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "p-v", Namespace: "ns", Labels: map[string]string{"a": "b"}, OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "u", Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true)}}},
		Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: ptr.To("s")},
	}
	got.TypeMeta, got.ManagedFields = metav1.TypeMeta{}, nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLeavesSomebodyElsesClaimAlone(t *testing.T) {
	other := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "p-v", Namespace: "ns"}}
	recorder := start(t, fake.NewClientset(other, pod("p")))
	select {
	case e := <-recorder.Events:
		if want := "Warning FailedBinding ephemeral volume v: PVC ns/p-v was not created for pod ns/p (pod is not owner)"; !strings.HasPrefix(e, want) {
			t.Errorf("%q, want %q", e, want)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("no event")
	}
}
