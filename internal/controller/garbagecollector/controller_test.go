package garbagecollector

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	fakediscovery "k8s.io/client-go/discovery/fake"
	metafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
)

var (
	deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	replicaSets = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"}
	podsGVR     = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	crds        = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	widgets     = schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}
	kinds       = map[schema.GroupVersionResource]string{deployments: "Deployment", replicaSets: "ReplicaSet", podsGVR: "Pod", crds: "CustomResourceDefinition", widgets: "Widget"}
	verbs       = metav1.Verbs{"get", "list", "watch", "delete", "create", "update", "patch"}
)

// server is a fake API server that keeps finalizers and deletion timestamps as the real one does.
type server struct {
	t      *testing.T
	client *metafake.FakeMetadataClient
	disc   *fakediscovery.FakeDiscovery
	rv     atomic.Int64
}

func object(gvr schema.GroupVersionResource, name string, owners ...metav1.OwnerReference) *metav1.PartialObjectMetadata {
	apiVersion, kind := gvr.GroupVersion().WithKind(kinds[gvr]).ToAPIVersionAndKind()
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: apiVersion, Kind: kind},
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name), OwnerReferences: owners, ResourceVersion: "1"},
	}
}

func ownedBy(gvr schema.GroupVersionResource, name string) metav1.OwnerReference {
	yes := true
	apiVersion, kind := gvr.GroupVersion().WithKind(kinds[gvr]).ToAPIVersionAndKind()
	return metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: name, UID: types.UID("uid-" + name), Controller: &yes, BlockOwnerDeletion: &yes}
}

func start(t *testing.T, objects ...runtime.Object) *server {
	t.Helper()
	scheme := metafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, client: metafake.NewSimpleMetadataClient(scheme, objects...)}
	s.rv.Store(100)
	s.client.PrependReactor("delete", "*", s.delete)
	s.client.PrependReactor("patch", "*", s.patch)
	s.disc = &fakediscovery.FakeDiscovery{Fake: &clienttesting.Fake{Resources: []*metav1.APIResourceList{
		{GroupVersion: "v1", APIResources: []metav1.APIResource{
			{Name: "pods", Kind: "Pod", Namespaced: true, Verbs: verbs}, {Name: "events", Kind: "Event", Namespaced: true, Verbs: verbs},
			{Name: "pods/status", Kind: "Pod", Namespaced: true, Verbs: verbs},
		}},
		{GroupVersion: "apps/v1", APIResources: []metav1.APIResource{
			{Name: "deployments", Kind: "Deployment", Namespaced: true, Verbs: verbs},
			{Name: "replicasets", Kind: "ReplicaSet", Namespaced: true, Verbs: verbs},
		}},
		{GroupVersion: "apiextensions.k8s.io/v1", APIResources: []metav1.APIResource{
			{Name: "customresourcedefinitions", Kind: "CustomResourceDefinition", Verbs: verbs},
		}},
	}}}
	c, err := New(Config{Metadata: s.client, Discovery: s.disc, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

func (s *server) get(gvr schema.GroupVersionResource, ns, name string) *metav1.PartialObjectMetadata {
	o, err := s.client.Tracker().Get(gvr, ns, name)
	if err != nil {
		return nil
	}
	return o.(*metav1.PartialObjectMetadata).DeepCopy()
}

// put stores o, or removes it if it is being deleted and nothing holds it.
func (s *server) put(gvr schema.GroupVersionResource, o *metav1.PartialObjectMetadata) error {
	if o.DeletionTimestamp != nil && len(o.Finalizers) == 0 {
		return s.client.Tracker().Delete(gvr, o.Namespace, o.Name)
	}
	o.ResourceVersion = time.Unix(s.rv.Add(1), 0).UTC().Format("150405")
	return s.client.Tracker().Update(gvr, o, o.Namespace)
}

func (s *server) delete(a clienttesting.Action) (bool, runtime.Object, error) {
	d := a.(clienttesting.DeleteActionImpl)
	o := s.get(d.Resource, d.Namespace, d.Name)
	if o == nil {
		return true, nil, errors.NewNotFound(d.Resource.GroupResource(), d.Name)
	}
	if p := d.DeleteOptions.Preconditions; p != nil && p.ResourceVersion != nil && *p.ResourceVersion != o.ResourceVersion {
		return true, nil, errors.NewConflict(d.Resource.GroupResource(), d.Name, nil)
	}
	now := metav1.Now()
	o.DeletionTimestamp = &now
	if p := d.DeleteOptions.PropagationPolicy; p != nil {
		switch *p {
		case metav1.DeletePropagationForeground:
			o.Finalizers = append(o.Finalizers, metav1.FinalizerDeleteDependents)
		case metav1.DeletePropagationOrphan:
			o.Finalizers = append(o.Finalizers, metav1.FinalizerOrphanDependents)
		}
	}
	return true, nil, s.put(d.Resource, o)
}

func (s *server) patch(a clienttesting.Action) (bool, runtime.Object, error) {
	p := a.(clienttesting.PatchActionImpl)
	o := s.get(p.Resource, p.Namespace, p.Name)
	if o == nil {
		return true, nil, errors.NewNotFound(p.Resource.GroupResource(), p.Name)
	}
	var body struct {
		Metadata map[string]json.RawMessage `json:"metadata"`
	}
	if err := json.Unmarshal(p.Patch, &body); err != nil {
		return true, nil, err
	}
	var rv string
	_ = json.Unmarshal(body.Metadata["resourceVersion"], &rv)
	if rv != o.ResourceVersion {
		return true, nil, errors.NewConflict(p.Resource.GroupResource(), p.Name, nil)
	}
	if raw, ok := body.Metadata["finalizers"]; ok {
		o.Finalizers = nil
		_ = json.Unmarshal(raw, &o.Finalizers)
	}
	if raw, ok := body.Metadata["ownerReferences"]; ok {
		o.OwnerReferences = nil
		_ = json.Unmarshal(raw, &o.OwnerReferences)
	}
	return true, o, s.put(p.Resource, o)
}

func (s *server) remove(gvr schema.GroupVersionResource, name string, policy metav1.DeletionPropagation) {
	s.t.Helper()
	err := s.client.Resource(gvr).Namespace("ns").Delete(s.t.Context(), name, metav1.DeleteOptions{PropagationPolicy: &policy})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) eventually(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	s.t.Fatalf("does not come true: %s", what)
}

func (s *server) gone(gvr schema.GroupVersionResource, names ...string) func() bool {
	return func() bool {
		return !slices.ContainsFunc(names, func(n string) bool { return s.get(gvr, "ns", n) != nil })
	}
}

// family is a Deployment with a ReplicaSet with two Pods, and a Pod that is nobody's.
func family() []runtime.Object {
	return []runtime.Object{
		object(deployments, "d"), object(replicaSets, "rs", ownedBy(deployments, "d")),
		object(podsGVR, "p1", ownedBy(replicaSets, "rs")), object(podsGVR, "p2", ownedBy(replicaSets, "rs")), object(podsGVR, "free"),
	}
}

// settled lets the collector see what there is.
func (s *server) settled() { time.Sleep(100 * time.Millisecond) }

func TestBackground(t *testing.T) {
	s := start(t, family()...)
	s.settled()
	s.remove(deployments, "d", metav1.DeletePropagationBackground)
	s.eventually("all but the free pod gone", func() bool { return s.gone(replicaSets, "rs")() && s.gone(podsGVR, "p1", "p2")() })
	if s.get(podsGVR, "ns", "free") == nil {
		t.Error("a pod without owners was deleted")
	}
}

func TestForeground(t *testing.T) {
	s := start(t, family()...)
	s.settled()
	// One Pod is held by a finalizer: its owners must wait for it.
	p := s.get(podsGVR, "ns", "p1")
	p.Finalizers = []string{"example.com/hold"}
	if err := s.put(podsGVR, p); err != nil {
		t.Fatal(err)
	}
	s.remove(deployments, "d", metav1.DeletePropagationForeground)
	s.eventually("the other pod gone", s.gone(podsGVR, "p2"))
	s.settled()
	if d := s.get(deployments, "ns", "d"); d == nil || !slices.Contains(d.Finalizers, metav1.FinalizerDeleteDependents) {
		t.Fatalf("the deployment did not wait: %+v", d)
	}
	p = s.get(podsGVR, "ns", "p1")
	p.Finalizers = nil
	if err := s.put(podsGVR, p); err != nil {
		t.Fatal(err)
	}
	s.eventually("all gone", func() bool { return s.gone(replicaSets, "rs")() && s.gone(deployments, "d")() })
}

func TestOrphan(t *testing.T) {
	s := start(t, family()...)
	s.settled()
	s.remove(deployments, "d", metav1.DeletePropagationOrphan)
	s.eventually("the deployment gone", s.gone(deployments, "d"))
	s.settled()
	if rs := s.get(replicaSets, "ns", "rs"); rs == nil || len(rs.OwnerReferences) != 0 {
		t.Errorf("the replicaset: %+v", rs)
	}
	if s.get(podsGVR, "ns", "p1") == nil {
		t.Error("a pod of the orphan is gone")
	}
}

func TestAbsentOwner(t *testing.T) {
	s := start(t,
		object(replicaSets, "lost", ownedBy(deployments, "never-was")),
		object(deployments, "d"),
		object(podsGVR, "two", ownedBy(deployments, "d"), ownedBy(replicaSets, "never-was-either")))
	s.eventually("what has no owner gone", s.gone(replicaSets, "lost"))
	s.eventually("only the dangling reference gone", func() bool {
		p := s.get(podsGVR, "ns", "two")
		return p != nil && len(p.OwnerReferences) == 1 && p.OwnerReferences[0].Name == "d"
	})
}

func TestOwnerOfTheSameNameAndAnotherUID(t *testing.T) {
	ref := ownedBy(deployments, "d")
	ref.UID = "uid-of-an-earlier-d"
	s := start(t, object(deployments, "d"), object(replicaSets, "rs", ref))
	s.eventually("gone", s.gone(replicaSets, "rs"))
	if s.get(deployments, "ns", "d") == nil {
		t.Error("the namesake was deleted")
	}
}

func TestUnknownOwnerKindKeeps(t *testing.T) {
	ref := metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "Widget", Name: "w", UID: "w"}
	s := start(t, object(podsGVR, "p", ref))
	s.settled()
	s.settled()
	if s.get(podsGVR, "ns", "p") == nil {
		t.Error("deleted on the word of nobody")
	}
}

func TestNewKindIsPickedUp(t *testing.T) {
	s := start(t, object(widgets, "lost", ownedBy(widgets, "never-was")), object(podsGVR, "p", ownedBy(widgets, "never-was")))
	s.settled()
	if s.get(widgets, "ns", "lost") == nil || s.get(podsGVR, "ns", "p") == nil {
		t.Fatal("collected before its kind is known")
	}
	s.disc.Resources = append(s.disc.Resources, &metav1.APIResourceList{GroupVersion: "example.com/v1", APIResources: []metav1.APIResource{
		{Name: "widgets", Kind: "Widget", Namespaced: true, Verbs: verbs},
	}})
	crd := object(crds, "widgets.example.com")
	crd.Namespace = ""
	if err := s.client.Tracker().Create(crds, crd, ""); err != nil {
		t.Fatal(err)
	}
	s.eventually("the custom object and the pod of an absent custom owner gone", func() bool {
		return s.gone(widgets, "lost")() && s.gone(podsGVR, "p")()
	})
}
