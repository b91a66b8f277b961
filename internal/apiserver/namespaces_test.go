package apiserver_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestNamespaceEnds(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	api := f.kube.CoreV1().Namespaces()
	ns := must[*corev1.Namespace](t)(api.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{}))
	if ns.Status.Phase != corev1.NamespaceActive || len(ns.Spec.Finalizers) != 1 || ns.Labels[corev1.LabelMetadataName] != "a" {
		t.Errorf("new: %+v", ns)
	}
	if err := api.Delete(ctx, "a", metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Error(err)
	}
	if got := must[*corev1.Namespace](t)(api.Get(ctx, "a", metav1.GetOptions{})); got.DeletionTimestamp != nil {
		t.Error("a dry delete was stored")
	}
	for range 2 { // the second changes nothing
		if err := api.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	ns = must[*corev1.Namespace](t)(api.Get(ctx, "a", metav1.GetOptions{}))
	if ns.Status.Phase != corev1.NamespaceTerminating || ns.DeletionTimestamp == nil {
		t.Errorf("deleted: %+v", ns)
	}
	_, err := f.kube.CoreV1().ConfigMaps("a").Create(ctx, configMap("c", nil), metav1.CreateOptions{})
	want := "unable to create new content in namespace a because it is being terminated"
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want) || !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		t.Errorf("create while it ends: %v", err)
	}
	ns.Status.Conditions = []corev1.NamespaceCondition{{Type: corev1.NamespaceContentRemaining, Status: corev1.ConditionTrue}}
	ns = must[*corev1.Namespace](t)(api.UpdateStatus(ctx, ns, metav1.UpdateOptions{}))
	must[*corev1.Namespace](t)(api.Get(ctx, "a", metav1.GetOptions{})) // a write of the status does not end it
	ns.Spec.Finalizers = nil
	if ns, err = api.Update(ctx, ns, metav1.UpdateOptions{}); err != nil || len(ns.Spec.Finalizers) != 1 {
		t.Errorf("a plain update took the finalizer away: %v %v", ns, err)
	}
	ns.Spec.Finalizers = nil
	if _, err = api.Finalize(ctx, ns, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err = api.Get(ctx, "a", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("finalized: %v", err)
	}
	if _, err = f.kube.CoreV1().ConfigMaps("a").Create(ctx, configMap("c", nil), metav1.CreateOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("create in what is gone: %v", err)
	}
	for _, name := range []string{"default", "kube-system", "kube-public"} {
		if err := api.Delete(ctx, name, metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("delete %s: %v", name, err)
		}
	}
}

// TestRestart finds what was there, and the Service kubernetes leading to the new port.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	var port int32
	t.Run("first", func(t *testing.T) {
		f := startIn(t, dir)
		must[*corev1.ConfigMap](t)(f.kube.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("a", nil), metav1.CreateOptions{}))
		must[*corev1.Service](t)(f.kube.CoreV1().Services("default").Create(t.Context(), service("s", "10.43.0.77"), metav1.CreateOptions{}))
		port = must[*corev1.Service](t)(f.kube.CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})).Spec.Ports[0].TargetPort.IntVal
	})
	t.Run("second", func(t *testing.T) {
		began := time.Now()
		f := startIn(t, dir)
		t.Logf("ready after %v", time.Since(began))
		must[*corev1.ConfigMap](t)(f.kube.CoreV1().ConfigMaps("default").Get(t.Context(), "a", metav1.GetOptions{}))
		s := must[*corev1.Service](t)(f.kube.CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{}))
		if s.Spec.ClusterIP != "10.43.0.1" || s.Spec.Ports[0].TargetPort.IntVal == port {
			t.Errorf("service kubernetes: %+v", s.Spec)
		}
		e := must[*corev1.Endpoints](t)(f.kube.CoreV1().Endpoints("default").Get(t.Context(), "kubernetes", metav1.GetOptions{}))
		if len(e.Subsets) != 1 || e.Subsets[0].Ports[0].Port != s.Spec.Ports[0].TargetPort.IntVal || e.Subsets[0].Addresses[0].IP != "192.0.2.1" {
			t.Errorf("endpoints: %+v", e.Subsets)
		}
		_, err := f.kube.CoreV1().Services("default").Create(t.Context(), service("other", "10.43.0.77"), metav1.CreateOptions{})
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "provided IP is already allocated") {
			t.Errorf("the address of a Service from before: %v", err)
		}
	})
}
