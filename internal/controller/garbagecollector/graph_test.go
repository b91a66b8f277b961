package garbagecollector

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/restmapper"
)

func kindOf(gvr schema.GroupVersionResource) schema.GroupVersionKind {
	return gvr.GroupVersion().WithKind(kinds[gvr])
}

func sorted(uids []types.UID) []types.UID {
	slices.Sort(uids)
	return slices.Compact(uids)
}

func TestGraphWakesOwnersThatWait(t *testing.T) {
	g := newGraph()
	owner := object(deployments, "d")
	if wake := g.observe(kindOf(deployments), owner); len(wake) != 0 {
		t.Errorf("a free object is work: %v", wake)
	}
	child := object(replicaSets, "rs", ownedBy(deployments, "d"))
	if wake := g.observe(kindOf(replicaSets), child); len(wake) != 0 {
		t.Errorf("a child whose owner is known is work: %v", wake)
	}
	now := metav1.Now()
	owner.DeletionTimestamp, owner.Finalizers = &now, []string{metav1.FinalizerDeleteDependents}
	if diff := cmp.Diff([]types.UID{"uid-d", "uid-rs"}, sorted(g.observe(kindOf(deployments), owner))); diff != "" {
		t.Error(diff)
	}
	child.OwnerReferences[0].BlockOwnerDeletion = nil
	if diff := cmp.Diff([]types.UID{"uid-d", "uid-rs"}, sorted(g.observe(kindOf(replicaSets), child))); diff != "" {
		t.Errorf("the child no longer blocks: %s", diff)
	}
	if diff := cmp.Diff([]types.UID{"uid-d"}, sorted(g.remove("uid-rs"))); diff != "" {
		t.Errorf("the child is gone: %s", diff)
	}
}

func TestGraphLooksForOwnersItOnlyHeardOf(t *testing.T) {
	g := newGraph()
	wake := g.observe(kindOf(replicaSets), object(replicaSets, "rs", ownedBy(deployments, "d")))
	if diff := cmp.Diff([]types.UID{"uid-d"}, sorted(wake)); diff != "" {
		t.Fatal(diff)
	}
	n, ok := g.look("uid-d")
	if !ok || n.observed || n.namespace != "ns" || n.name != "d" {
		t.Fatalf("heard of: %+v", n)
	}
	if diff := cmp.Diff([]types.UID{"uid-rs"}, sorted(g.missing(n.identity))); diff != "" {
		t.Error(diff)
	}
	if _, ok := g.look("uid-d"); ok {
		t.Error("still there")
	}
	if !g.gone(ownedBy(deployments, "d"), "ns") {
		t.Error("its absence is not remembered")
	}
}

func TestGraphTriesAllNamesOfAnOwner(t *testing.T) {
	g := newGraph()
	wrong := ownedBy(deployments, "d")
	wrong.Name = "misspelt"
	g.observe(kindOf(replicaSets), object(replicaSets, "a", wrong))
	g.observe(kindOf(replicaSets), object(replicaSets, "b", ownedBy(deployments, "d")))
	n, _ := g.look("uid-d")
	if diff := cmp.Diff([]types.UID{"uid-a", "uid-d"}, sorted(g.missing(n.identity))); diff != "" {
		t.Error(diff)
	}
	if n, ok := g.look("uid-d"); !ok || n.name != "d" {
		t.Errorf("the other name is not tried: %+v", n)
	}
}

func TestWatchable(t *testing.T) {
	v := func(group string, versions ...string) metav1.APIGroup {
		g := metav1.APIGroup{Name: group}
		for _, name := range versions {
			g.Versions = append(g.Versions, metav1.GroupVersionForDiscovery{GroupVersion: group + "/" + name, Version: name})
		}
		g.PreferredVersion = g.Versions[0]
		return g
	}
	got, failed := watchable([]*restmapper.APIGroupResources{
		{Group: v("example.com", "v2", "v1"), VersionedResources: map[string][]metav1.APIResource{
			"v2": {{Name: "widgets", Kind: "Widget", Verbs: verbs}, {Name: "widgets/scale", Kind: "Scale", Verbs: verbs}},
			"v1": {{Name: "widgets", Kind: "Widget", Verbs: verbs}, {Name: "olds", Kind: "Old", Verbs: verbs}, {Name: "looks", Kind: "Look", Verbs: metav1.Verbs{"list"}}},
		}},
		{Group: v("broken.io", "v1"), VersionedResources: map[string][]metav1.APIResource{}},
		{Group: v("events.k8s.io", "v1"), VersionedResources: map[string][]metav1.APIResource{"v1": {{Name: "events", Kind: "Event", Verbs: verbs}}}},
	})
	want := map[schema.GroupVersionResource]schema.GroupVersionKind{
		{Group: "example.com", Version: "v2", Resource: "widgets"}: {Group: "example.com", Version: "v2", Kind: "Widget"},
		{Group: "example.com", Version: "v1", Resource: "olds"}:    {Group: "example.com", Version: "v1", Kind: "Old"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]bool{"broken.io": true}, failed); diff != "" {
		t.Error(diff)
	}
}
