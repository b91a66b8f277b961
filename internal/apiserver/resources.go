package apiserver

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/registry/rest"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"carob.dev/carob/internal/api"
	"carob.dev/carob/internal/apiserver/auth"
	"carob.dev/carob/internal/apiserver/auth/rbac"
	"carob.dev/carob/internal/apiserver/registry"
	"carob.dev/carob/internal/apiserver/registry/metrics"
	"carob.dev/carob/internal/apiserver/registry/namespace"
	"carob.dev/carob/internal/apiserver/registry/node"
	"carob.dev/carob/internal/apiserver/registry/pod"
	guard "carob.dev/carob/internal/apiserver/registry/rbac"
	"carob.dev/carob/internal/apiserver/registry/review"
	"carob.dev/carob/internal/apiserver/registry/service"
	"carob.dev/carob/internal/apiserver/registry/serviceaccount"
)

// resources is the storage of all that is served, by group and version and then by name, as in "pods" and "pods/log".
type resources map[schema.GroupVersion]map[string]rest.Storage

func (r resources) add(gv schema.GroupVersion, name string, s rest.Storage) {
	if r[gv] == nil {
		r[gv] = map[string]rest.Storage{}
	}
	r[gv][name] = s
}

// newResources makes the kinds' own resources, then adds what cannot be said as data.
func newResources(cfg *Config, kinds []*api.Kind, all stores, tokens *auth.Tokens, authz *auth.Authorizer, policy *rbac.Policy) (resources, error) {
	// Hooks come first: subresources take over those of their kind.
	services := all.core("services")
	allocator, err := service.NewAllocator(cfg.ServiceCIDR, service.Lister(services))
	if err != nil {
		return nil, err
	}
	allocator.Install(services)
	namespaces := namespace.New(all.core("namespaces"))

	out := resources{}
	for _, k := range kinds {
		out.addKind(k, all)
	}
	core := schema.GroupVersion{Version: "v1"}
	addPods(out, core, cfg, all, authz)
	out.add(core, "namespaces", namespaces)
	out.add(core, "namespaces/finalize", namespace.NewFinalize(all.core("namespaces")))
	out.add(core, "nodes/proxy", &node.Proxy{Store: all.core("nodes"), Transport: cfg.NodeTransport})
	out.add(core, "serviceaccounts/token", &serviceaccount.Token{
		Accounts: all.core("serviceaccounts"), Pods: all.core("pods"), Secrets: all.core("secrets"), Nodes: all.core("nodes"), Tokens: tokens,
		Clock: cfg.Clock,
	})

	roles := schema.GroupVersion{Group: rbacv1.GroupName, Version: "v1"}
	for _, r := range []string{"roles", "clusterroles", "rolebindings", "clusterrolebindings"} {
		out.add(roles, r, &guard.Guard{Store: all[schema.GroupResource{Group: roles.Group, Resource: r}], Authorizer: authz, Policy: policy})
	}
	source := metrics.Source{Transport: cfg.NodeTransport, Log: cfg.Log}
	out.add(metricsv1beta1.SchemeGroupVersion, "nodes", &metrics.Nodes{Store: all.core("nodes"), Source: source})
	out.add(metricsv1beta1.SchemeGroupVersion, "pods", &metrics.Pods{Store: all.core("pods"), Source: source})

	authorization := schema.GroupVersion{Group: "authorization.k8s.io", Version: "v1"}
	out.add(authorization, "subjectaccessreviews", review.SubjectAccess(authz))
	out.add(authorization, "localsubjectaccessreviews", review.LocalSubjectAccess(authz))
	out.add(authorization, "selfsubjectaccessreviews", review.SelfSubjectAccess(authz))
	out.add(authorization, "selfsubjectrulesreviews", review.SelfSubjectRules(authz))
	authentication := schema.GroupVersion{Group: "authentication.k8s.io", Version: "v1"}
	out.add(authentication, "tokenreviews", review.Token(group.NewTokenGroupAdder(tokens, []string{user.AllAuthenticated}), authenticator.Audiences{auth.Issuer}))
	out.add(authentication, "selfsubjectreviews", review.SelfSubject())
	return out, nil
}

// addKind adds a kind and its subresources.
func (r resources) addKind(k *api.Kind, all stores) {
	gr := schema.GroupResource{Group: k.Group, Resource: k.Resource}
	gv := k.GroupVersion()
	if !k.StoredAs.Empty() {
		r.add(gv, k.Resource, &registry.Store{Store: all[k.StoredAs].Store, Kind: k})
		return
	}
	s := all[gr]
	r.add(gv, k.Resource, s)
	if k.Status != nil {
		r.add(gv, k.Resource+"/status", registry.NewSubresource(s, k.Status))
	}
	if k.EphemeralContainers != nil {
		r.add(gv, k.Resource+"/ephemeralcontainers", registry.NewSubresource(s, k.EphemeralContainers))
	}
	if k.Resize != nil {
		r.add(gv, k.Resource+"/resize", registry.NewOwnedPart(s, k.Resize))
	}
	if k.Approval != nil {
		r.add(gv, k.Resource+"/approval", registry.NewSubresource(s, k.Approval))
	}
	if k.Scale != nil {
		r.add(gv, k.Resource+"/scale", registry.NewScale(s))
	}
}

func addPods(out resources, core schema.GroupVersion, cfg *Config, all stores, authz authorizer.Authorizer) {
	pods := all.core("pods")
	agents := pod.Agents{Store: pods.Store, Transport: cfg.NodeTransport}
	binding := &pod.Binding{Store: pods.Store}
	exec, attach, forward := pod.NewStreams(agents, authz)
	status := registry.NewSubresource(pods, pods.Kind.Status)
	for name, s := range map[string]rest.Storage{
		"bindings":         &pod.LegacyBinding{Binding: binding},
		"pods/binding":     binding,
		"pods/eviction":    &pod.Eviction{Pods: pods, Status: status},
		"pods/log":         &pod.Log{Agents: agents},
		"pods/exec":        exec,
		"pods/attach":      attach,
		"pods/portforward": forward,
		"pods/proxy":       &pod.Proxy{Agents: agents, To: cfg.PodTransport},
	} {
		out.add(core, name, s)
	}
}
