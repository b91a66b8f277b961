package rbac

import (
	"context"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Authorize says whether a rule allows the request. It waits for the policy to be known.
func (p *Policy) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if err := p.known(ctx); err != nil {
		return authorizer.DecisionNoOpinion, "", err
	}
	allowed := ""
	err := p.visit(a.GetUser(), a.GetNamespace(), func(source func() string, r *rbacv1.PolicyRule) bool {
		if Allows(r, a) {
			allowed = "RBAC: allowed by " + source()
		}
		return allowed == ""
	})
	switch {
	case allowed != "":
		return authorizer.DecisionAllow, allowed, nil
	case err != nil:
		return authorizer.DecisionNoOpinion, fmt.Sprintf("RBAC: %v", err), nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

// RulesFor implements authorizer.RuleResolver.
func (p *Policy) RulesFor(
	ctx context.Context, u user.Info, namespace string,
) (resources []authorizer.ResourceRuleInfo, paths []authorizer.NonResourceRuleInfo, incomplete bool, err error) {
	rules, err := p.Rules(ctx, u, namespace)
	for _, r := range rules {
		if len(r.Resources) > 0 {
			resources = append(resources, &authorizer.DefaultResourceRuleInfo{
				Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames,
			})
		}
		if len(r.NonResourceURLs) > 0 {
			paths = append(paths, &authorizer.DefaultNonResourceRuleInfo{Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs})
		}
	}
	return resources, paths, false, err
}

// Allows says whether one rule allows a request. "*" stands for all; "*/x" for the subresource x of all; a path may end with "*".
func Allows(r *rbacv1.PolicyRule, a authorizer.Attributes) bool {
	if !has(r.Verbs, a.GetVerb()) {
		return false
	}
	if !a.IsResourceRequest() {
		return slices.ContainsFunc(r.NonResourceURLs, func(p string) bool {
			prefix, open := strings.CutSuffix(p, "*")
			return p == a.GetPath() || open && strings.HasPrefix(a.GetPath(), strings.TrimRight(prefix, "*"))
		})
	}
	return has(r.APIGroups, a.GetAPIGroup()) && resource(r.Resources, a.GetResource(), a.GetSubresource()) &&
		(len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, a.GetName()))
}

func has(list []string, s string) bool {
	return slices.ContainsFunc(list, func(x string) bool { return x == "*" || x == s })
}

// resource compares without joining the two names.
func resource(list []string, name, sub string) bool {
	for _, x := range list {
		switch {
		case x == "*":
			return true
		case sub == "":
			if x == name {
				return true
			}
		case len(x) > len(sub) && x[len(x)-len(sub)-1] == '/' && strings.HasSuffix(x, sub):
			if of := x[:len(x)-len(sub)-1]; of == name || of == "*" {
				return true
			}
		}
	}
	return false
}

// describe names a binding, its role and the subject that it was found by, in Kubernetes' words.
func describe(obj any, namespace, kind, name string) string {
	text := func(what, full string, ref rbacv1.RoleRef, list []rbacv1.Subject) string {
		whom := ""
		for _, s := range list {
			if k, n, ok := identity(namespace, s); !ok || k != kind || n != name {
				continue
			}
			whom = s.Name
			if s.Kind == rbacv1.ServiceAccountKind {
				in := s.Namespace
				if in == "" {
					in = namespace
				}
				whom += "/" + in
			}
			whom = fmt.Sprintf("%s %q", s.Kind, whom)
			break
		}
		return fmt.Sprintf("%s %q of %s %q to %s", what, full, ref.Kind, ref.Name, whom)
	}
	switch b := obj.(type) {
	case *rbacv1.ClusterRoleBinding:
		return text("ClusterRoleBinding", b.Name, b.RoleRef, b.Subjects)
	case *rbacv1.RoleBinding:
		return text("RoleBinding", b.Name+"/"+b.Namespace, b.RoleRef, b.Subjects)
	}
	return ""
}
