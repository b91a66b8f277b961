package namespace

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	fakediscovery "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	metafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestConditions(t *testing.T) {
	now := time.Unix(1_900_000_000, 0)
	f := findings{
		remaining:  map[schema.GroupVersionResource]int{podResource: 2, {Group: "apps", Version: "v1", Resource: "deployments"}: 1},
		finalizers: map[string]int{"example.com/hold": 2},
		deletion:   []error{errors.New("b"), errors.New("a")},
	}
	got, changed := conditions(nil, f, now)
	if !changed {
		t.Error("not changed")
	}
	var lines []string
	for _, c := range got {
		lines = append(lines, strings.Join([]string{string(c.Type), string(c.Status), c.Reason, c.Message}, "|"))
	}
	want := []string{
		"NamespaceDeletionDiscoveryFailure|False|ResourcesDiscovered|All resources successfully discovered",
		"NamespaceDeletionGroupVersionParsingFailure|False|ParsedGroupVersions|All legacy kube types successfully parsed",
		"NamespaceDeletionContentFailure|True|ContentDeletionFailed|Failed to delete all resource types, 2 remaining: a, b",
		"NamespaceContentRemaining|True|SomeResourcesRemain|Some resources are remaining: deployments.apps has 1 resource instances, pods. has 2 resource instances",
		"NamespaceFinalizersRemaining|True|SomeFinalizersRemain|Some content in the namespace has finalizers remaining: example.com/hold in 2 resource instances",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	if _, again := conditions(got, f, now.Add(time.Hour)); again {
		t.Error("changed again")
	}
	done, changed := conditions(got, findings{}, now.Add(time.Hour))
	if !changed || done[3].Status != corev1.ConditionFalse || done[3].Reason != "ContentRemoved" || !done[3].LastTransitionTime.Time.Equal(now.Add(time.Hour)) {
		t.Errorf("%+v", done[3])
	}
}

func partial(apiVersion, kind, name string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{APIVersion: apiVersion, Kind: kind}, ObjectMeta: metav1.ObjectMeta{Namespace: "gone", Name: name},
	}
}

func TestEmptiesPodsFirstAndFinalizes(t *testing.T) {
	now := metav1.Now()
	ns := &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: "gone", DeletionTimestamp: &now},
		Spec:       corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes, "example.com/mine"}},
	}
	client := fake.NewClientset(ns)
	scheme := metafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	meta := metafake.NewSimpleMetadataClient(scheme,
		runtime.Object(partial("v1", "Pod", "p")), partial("v1", "ConfigMap", "cm"), partial("v1", "ConfigMap", "cm2"))
	var order []string
	meta.PrependReactor("delete-collection", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		r := a.GetResource()
		order = append(order, r.Resource)
		if r.Resource == "pods" {
			return true, nil, meta.Tracker().Delete(r, "gone", "p")
		}
		return true, nil, apierrors.NewMethodNotSupported(r.GroupResource(), "deletecollection")
	})
	verbs := metav1.Verbs{"delete", "list", "deletecollection"}
	disc := &fakediscovery.FakeDiscovery{Fake: &clienttesting.Fake{Resources: []*metav1.APIResourceList{{GroupVersion: "v1", APIResources: []metav1.APIResource{
		{Name: "configmaps", Kind: "ConfigMap", Namespaced: true, Verbs: verbs}, {Name: "pods", Kind: "Pod", Namespaced: true, Verbs: verbs},
		{Name: "bindings", Kind: "Binding", Namespaced: true, Verbs: metav1.Verbs{"create"}},
	}}}}}
	factory := informers.NewSharedInformerFactory(client, 0)
	c, err := New(Config{Client: client, Metadata: meta, Discovery: preferred{disc}, Informers: factory, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.sync(context.Background(), "gone"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"pods", "configmaps"}, order); diff != "" {
		t.Error(diff)
	}
	got, err := client.CoreV1().Namespaces().Get(t.Context(), "gone", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Status.Phase != corev1.NamespaceTerminating {
		t.Errorf("phase %s", got.Status.Phase)
	}
	finalized := false
	for _, a := range client.Actions() {
		if a.GetSubresource() == "finalize" {
			f := a.(clienttesting.CreateAction).GetObject().(*corev1.Namespace).Spec.Finalizers
			finalized = len(f) == 1 && f[0] == "example.com/mine"
		}
	}
	if !finalized {
		t.Errorf("not finalized: %v", client.Actions())
	}
}

// preferred adds to the fake what it leaves out.
type preferred struct{ *fakediscovery.FakeDiscovery }

func (p preferred) ServerPreferredNamespacedResources() ([]*metav1.APIResourceList, error) {
	return p.Resources, nil
}
