package replicaset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
)

// world is a controller on a fake API server.
type world struct {
	t      *testing.T
	client *fake.Clientset
	events *record.FakeRecorder
	quota  atomic.Bool
}

func start(t *testing.T, objects ...runtime.Object) *world {
	t.Helper()
	w := &world{t: t, client: fake.NewClientset(objects...), events: record.NewFakeRecorder(1000)}
	var serial atomic.Int64
	w.client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		p := a.(clienttesting.CreateAction).GetObject().(*corev1.Pod)
		if w.quota.Load() {
			return true, nil, errors.New("exceeded quota")
		}
		p.Name = fmt.Sprintf("%s%05d", p.GenerateName, serial.Add(1))
		p.UID = types.UID(p.Name)
		return true, p, w.client.Tracker().Create(a.GetResource(), p, p.Namespace)
	})
	// The fake would let a status update write the spec too.
	sets := appsv1.SchemeGroupVersion.WithResource("replicasets")
	w.client.PrependReactor("update", "replicasets", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "status" {
			return false, nil, nil
		}
		update := a.(clienttesting.UpdateAction).GetObject().(*appsv1.ReplicaSet)
		have, err := w.client.Tracker().Get(sets, update.Namespace, update.Name)
		if err != nil {
			return true, nil, err
		}
		rs := have.(*appsv1.ReplicaSet).DeepCopy()
		rs.Status = update.Status
		return true, rs, w.client.Tracker().Update(sets, rs, rs.Namespace)
	})
	// The fake would let two adopt the same Pod, which the API server refuses.
	var adopting sync.Mutex
	pods := corev1.SchemeGroupVersion.WithResource("pods")
	w.client.PrependReactor("patch", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		patch := a.(clienttesting.PatchAction)
		if !strings.Contains(string(patch.GetPatch()), `"controller":true`) {
			return false, nil, nil
		}
		adopting.Lock()
		defer adopting.Unlock()
		have, err := w.client.Tracker().Get(pods, patch.GetNamespace(), patch.GetName())
		if err != nil {
			return true, nil, err
		}
		p := have.(*corev1.Pod).DeepCopy()
		if metav1.GetControllerOf(p) != nil {
			return true, nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Pod").GroupKind(), p.Name, nil)
		}
		var add corev1.Pod
		if err := json.Unmarshal(patch.GetPatch(), &add); err != nil {
			return true, nil, err
		}
		p.OwnerReferences = append(p.OwnerReferences, add.OwnerReferences...)
		return true, p, w.client.Tracker().Update(pods, p, p.Namespace)
	})
	factory := informers.NewSharedInformerFactory(w.client, 0)
	c, err := New(Config{Client: w.client, Informers: factory, Recorder: w.events, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		factory.Shutdown()
	})
	return w
}

func (w *world) pods() []corev1.Pod {
	list, err := w.client.CoreV1().Pods("ns").List(w.t.Context(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return list.Items
}

func (w *world) set(name string) *appsv1.ReplicaSet {
	rs, err := w.client.AppsV1().ReplicaSets("ns").Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return rs
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	w.t.Fatalf("does not come true: %s; pods %d", what, len(w.pods()))
}

func replicaSet(name string, n int32, lbls map[string]string) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name), Generation: 1},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &n,
			Selector: &metav1.LabelSelector{MatchLabels: lbls},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: lbls}},
		},
	}
}

var web = map[string]string{"app": "web"}

func TestCreatesReplacesAndScalesDown(t *testing.T) {
	w := start(t, replicaSet("web", 30, web))
	w.eventually("30 pods", func() bool { return len(w.pods()) == 30 })
	w.eventually("status", func() bool {
		s := w.set("web").Status
		return s.Replicas == 30 && s.FullyLabeledReplicas == 30 && s.ObservedGeneration == 1
	})

	p := w.pods()[0]
	if ref := metav1.GetControllerOf(&p); ref == nil || ref.UID != "uid-web" || ref.Kind != "ReplicaSet" || !*ref.BlockOwnerDeletion {
		t.Errorf("owner: %+v", ref)
	}
	if err := w.client.CoreV1().Pods("ns").Delete(t.Context(), p.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("a pod in its place", func() bool { return len(w.pods()) == 30 })

	rs := w.set("web")
	three := int32(3)
	rs.Spec.Replicas = &three
	if _, err := w.client.AppsV1().ReplicaSets("ns").Update(t.Context(), rs, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("3 pods", func() bool { return len(w.pods()) == 3 })
	time.Sleep(50 * time.Millisecond)
	if n := len(w.pods()); n != 3 {
		t.Errorf("%d pods", n)
	}
	if first := <-w.events.Events; !strings.HasPrefix(first, "Normal SuccessfulCreate Created pod: web-") {
		t.Errorf("event %q", first)
	}
}

func TestAdoptsReleasesAndLeavesOthersAlone(t *testing.T) {
	yes := true
	pod := func(name string, lbls map[string]string, owner string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name), Labels: lbls}}
		if owner != "" {
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: owner, UID: types.UID("uid-" + owner), Controller: &yes}}
		}
		return p
	}
	w := start(t, replicaSet("web", 1, web), replicaSet("twin", 1, web),
		pod("orphan", map[string]string{"app": "other"}, "web"), pod("twins", web, "twin"))
	w.eventually("the stray pod is released, and a new one made", func() bool {
		ps := w.pods()
		for _, p := range ps {
			if p.Name == "orphan" && metav1.GetControllerOf(&p) != nil {
				return false
			}
		}
		return len(ps) == 3
	})
	for _, p := range w.pods() {
		if p.Name == "twins" && metav1.GetControllerOf(&p).UID != "uid-twin" {
			t.Error("took the twin's pod")
		}
	}
	w.eventually("status", func() bool { return w.set("web").Status.Replicas == 1 && w.set("twin").Status.Replicas == 1 })

	// The released Pod gets the label again and somebody adopts it; one too many then goes.
	o, err := w.client.CoreV1().Pods("ns").Get(t.Context(), "orphan", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	o.Labels, o.ResourceVersion = web, "999999"
	if _, err := w.client.CoreV1().Pods("ns").Update(t.Context(), o, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("two pods again", func() bool {
		ps := w.pods()
		for _, p := range ps {
			if metav1.GetControllerOf(&p) == nil {
				return false
			}
		}
		return len(ps) == 2
	})
}

func TestQuota(t *testing.T) {
	w := start(t)
	w.quota.Store(true)
	if _, err := w.client.AppsV1().ReplicaSets("ns").Create(t.Context(), replicaSet("web", 3, web), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("ReplicaFailure", func() bool {
		c := w.set("web").Status.Conditions
		return len(c) == 1 && c[0].Type == appsv1.ReplicaSetReplicaFailure && c[0].Reason == "FailedCreate" && c[0].Message == "exceeded quota"
	})
	if e := <-w.events.Events; e != "Warning FailedCreate Error creating: exceeded quota" {
		t.Errorf("event %q", e)
	}
	w.quota.Store(false)
	w.eventually("3 pods and no failure", func() bool { return len(w.pods()) == 3 && len(w.set("web").Status.Conditions) == 0 })
}
