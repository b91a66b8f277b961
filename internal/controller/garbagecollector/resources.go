package garbagecollector

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/restmapper"
)

// ignored says which resources have no part in ownership: events come by the thousand and own nothing.
func ignored(r schema.GroupResource) bool {
	return r.Resource == "events" && (r.Group == "" || r.Group == "events.k8s.io")
}

// watchable returns the resources to be watched, each in its group's preferred version, with its kind: those that can be deleted,
// listed and watched. failed are the groups of which some version could not be read.
func watchable(groups []*restmapper.APIGroupResources) (resources map[schema.GroupVersionResource]schema.GroupVersionKind, failed map[string]bool) {
	resources, failed = map[schema.GroupVersionResource]schema.GroupVersionKind{}, map[string]bool{}
	for _, g := range groups {
		seen := map[string]bool{}
		for _, v := range versions(g.Group) {
			list, ok := g.VersionedResources[v]
			if !ok {
				failed[g.Group.Name] = true
				continue
			}
			gv := schema.GroupVersion{Group: g.Group.Name, Version: v}
			for _, r := range list {
				if seen[r.Name] || strings.Contains(r.Name, "/") || !canWatch(r.Verbs) || ignored(gv.WithResource(r.Name).GroupResource()) {
					continue
				}
				seen[r.Name] = true
				resources[gv.WithResource(r.Name)] = gv.WithKind(r.Kind)
			}
		}
	}
	return resources, failed
}

func canWatch(verbs metav1.Verbs) bool {
	return slices.Contains(verbs, "delete") && slices.Contains(verbs, "list") && slices.Contains(verbs, "watch")
}

// versions lists a group's versions, the preferred one first.
func versions(g metav1.APIGroup) []string {
	out := []string{g.PreferredVersion.Version}
	for _, v := range g.Versions {
		if v.Version != out[0] {
			out = append(out, v.Version)
		}
	}
	return out
}
