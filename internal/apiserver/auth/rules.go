package auth

import (
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// rule allows verbs on resources of groups, or on paths. "*" stands for all; a path may end with it.
type rule struct {
	verbs, groups, resources []string
	paths                    []string
}

func (r rule) allows(a authorizer.Attributes) bool {
	if !has(r.verbs, a.GetVerb()) {
		return false
	}
	if !a.IsResourceRequest() {
		return slices.ContainsFunc(r.paths, func(p string) bool {
			prefix, open := strings.CutSuffix(p, "*")
			return p == a.GetPath() || open && strings.HasPrefix(a.GetPath(), prefix)
		})
	}
	resource := a.GetResource()
	if sub := a.GetSubresource(); sub != "" {
		resource += "/" + sub
	}
	return has(r.groups, a.GetAPIGroup()) && has(r.resources, resource)
}

func has(list []string, s string) bool { return slices.Contains(list, "*") || slices.Contains(list, s) }

var (
	everything = []rule{
		{verbs: []string{"*"}, groups: []string{"*"}, resources: []string{"*"}},
		{verbs: []string{"*"}, paths: []string{"*"}},
	}
	// publicInfo is Kubernetes' ClusterRole system:public-info-viewer.
	publicInfo = []rule{{verbs: []string{"get"}, paths: []string{"/healthz", "/livez", "/readyz", "/version", "/version/"}}}
	// known are Kubernetes' ClusterRoles system:basic-user and system:discovery.
	known = []rule{
		{
			verbs: []string{"create"}, groups: []string{"authorization.k8s.io"},
			resources: []string{"selfsubjectaccessreviews", "selfsubjectrulesreviews"},
		},
		{verbs: []string{"create"}, groups: []string{"authentication.k8s.io"}, resources: []string{"selfsubjectreviews"}},
		{verbs: []string{"get"}, paths: []string{
			"/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/",
		}},
	}
)

// rulesFor returns what a user may do.
func rulesFor(u user.Info) []rule {
	switch {
	case u == nil:
		return nil
	case slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup), component(u):
		return everything
	case slices.Contains(u.GetGroups(), user.AllAuthenticated):
		return slices.Concat(publicInfo, known)
	case slices.Contains(u.GetGroups(), user.AllUnauthenticated):
		return publicInfo
	}
	return nil
}

// component says whether u is a part of the cluster itself. Certificates for these names come only from the cluster's authority. A
// controller's service account counts only without a token: those parts run in this process, and a Pod that borrows their name does not.
func component(u user.Info) bool {
	name := u.GetName()
	switch {
	case name == user.KubeScheduler, name == user.KubeControllerManager:
		return true
	case strings.HasPrefix(name, "system:node:"):
		return slices.Contains(u.GetGroups(), user.NodesGroup)
	}
	namespace, account, err := serviceaccount.SplitUsername(name)
	return err == nil && namespace == "kube-system" && controller(account) && len(u.GetExtra()[user.CredentialIDKey]) == 0
}

// controller says whether an account of kube-system has a name as the built-in controllers' are.
func controller(account string) bool {
	for _, end := range []string{"-controller", "-collector", "-publisher"} {
		if strings.HasSuffix(account, end) {
			return true
		}
	}
	return false
}
