package volumeprotection

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
)

func pod(name, node, claim string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: "u"}, Spec: corev1.PodSpec{NodeName: node, Volumes: []corev1.Volume{
		{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}}}}
	for _, c := range change {
		c(p)
	}
	return p
}

func TestWhatHoldsAClaim(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "p-e", Namespace: "ns", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "u", Controller: ptr.To(true)}}}}
	own := func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "e", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}}}
	}
	down := func(p *corev1.Pod) {
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = ptr.To(metav1.Now()), ptr.To[int64](0)
	}
	for _, tt := range []struct {
		name string
		pod  *corev1.Pod
		want bool
	}{
		{"on a node", pod("q", "n1", "p-e"), true},
		{"without a node", pod("q", "", "p-e"), false},
		{"another claim", pod("q", "n1", "x"), false},
		{"ended", pod("q", "n1", "p-e", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), true},
		{"its own Pod", pod("p", "n1", "", own), true},
		{"its own Pod, shut down", pod("p", "n1", "", own, down), false},
		{"another Pod of that name", pod("p", "n1", "", own, func(p *corev1.Pod) { p.UID = "w" }), false},
	} {
		if got := holds(tt.pod, claim); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func meta(name, finalizer string, going bool) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Name: name, Namespace: "ns", Finalizers: []string{"a/b", finalizer}}
	if going {
		m.DeletionTimestamp = ptr.To(metav1.Now())
	}
	return m
}

func TestFinalizersGoWhenNothingUsesIt(t *testing.T) {
	vac := func(name string) *storagev1.VolumeAttributesClass {
		c := &storagev1.VolumeAttributesClass{ObjectMeta: meta(name, classFinalizer, true)}
		c.Namespace = ""
		return c
	}
	vol := func(name string, phase corev1.PersistentVolumePhase, going bool) *corev1.PersistentVolume {
		v := &corev1.PersistentVolume{ObjectMeta: meta(name, volumeFinalizer, going), Status: corev1.PersistentVolumeStatus{Phase: phase}}
		v.Namespace = ""
		return v
	}
	claim := func(name string, going bool) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: meta(name, claimFinalizer, going), Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound}}
	}
	classed := claim("classed", false)
	classed.Spec.VolumeAttributesClassName = ptr.To("used")
	objects := []runtime.Object{
		vac("used"), vac("free"), vol("bound", corev1.VolumeBound, true), vol("released", corev1.VolumeReleased, true), vol("there", corev1.VolumeReleased, false),
		claim("held", true), claim("let-go", true), claim("stays", false), classed, pod("p", "n1", "held"),
	}
	client := fake.NewClientset(objects...)
	factory := informers.NewSharedInformerFactory(client, 0)
	c, err := New(Config{Client: client, Informers: factory, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	factory.Start(ctx.Done())
	go func() { done <- c.Run(ctx) }()
	core := client.CoreV1()
	finalizers := func() map[string]int {
		out := map[string]int{}
		for _, name := range []string{"used", "free"} {
			if c, err := client.StorageV1().VolumeAttributesClasses().Get(ctx, name, metav1.GetOptions{}); err == nil {
				out[name] = len(c.Finalizers)
			}
		}
		for _, name := range []string{"bound", "released", "there"} {
			if v, err := core.PersistentVolumes().Get(ctx, name, metav1.GetOptions{}); err == nil {
				out[name] = len(v.Finalizers)
			}
		}
		for _, name := range []string{"held", "let-go", "stays"} {
			if c, err := core.PersistentVolumeClaims("ns").Get(ctx, name, metav1.GetOptions{}); err == nil {
				out[name] = len(c.Finalizers)
			}
		}
		return out
	}
	await := func(want map[string]int) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); !cmp.Equal(want, finalizers()); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal(cmp.Diff(want, finalizers()))
			}
		}
	}
	await(map[string]int{"used": 2, "free": 1, "bound": 2, "released": 1, "there": 2, "held": 2, "let-go": 1, "stays": 2})
	if err := core.Pods("ns").Delete(ctx, "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(map[string]int{"used": 2, "free": 1, "bound": 2, "released": 1, "there": 2, "held": 1, "let-go": 1, "stays": 2})
	got, err := core.PersistentVolumeClaims("ns").Get(ctx, "stays", metav1.GetOptions{})
	if err != nil || len(got.Status.Conditions) != 1 || got.Status.Conditions[0].Reason != "NoPodsUsingPVC" {
		t.Errorf("%+v, %v", got.Status.Conditions, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	factory.Shutdown()
}
