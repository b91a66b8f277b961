// Package rbac keeps those who write roles and bindings from giving rights that they do not have themselves.
//
// It imports the generic registry and the policy of auth/rbac. Invariant: nobody gets around it but system:masters, who may do everything,
// and those whom a role allows to escalate or bind.
package rbac

import (
	"context"
	"errors"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"carob.dev/carob/internal/apiserver/registry"
)

// Policy is what is known of roles.
type Policy interface {
	RoleRules(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error)
	ConfirmHeld(ctx context.Context, rules []rbacv1.PolicyRule) error
}

// Guard serves one of roles, clusterroles, rolebindings and clusterrolebindings.
type Guard struct {
	*registry.Store
	Authorizer authorizer.Authorizer
	Policy     Policy
}

// Create implements rest.Creater.
func (g *Guard) Create(
	ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions,
) (runtime.Object, error) {
	if err := g.check(ctx, obj, nil); err != nil {
		return nil, err
	}
	return g.Store.Create(ctx, obj, validate, options)
}

// Update implements rest.Updater.
func (g *Guard) Update(
	ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc, update rest.ValidateObjectUpdateFunc,
	forceCreate bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	info = rest.WrapUpdatedObjectInfo(info, func(ctx context.Context, obj, old runtime.Object) (runtime.Object, error) {
		return obj, g.check(ctx, obj, old)
	})
	return g.Store.Update(ctx, name, info, create, update, forceCreate, options)
}

// check refuses obj if it gives more than the user of the request has. old is nil if there is none.
func (g *Guard) check(ctx context.Context, obj, old runtime.Object) error {
	u, ok := request.UserFrom(ctx)
	if ok && slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) {
		return nil
	}
	if !ok {
		return apierrors.NewForbidden(g.DefaultQualifiedResource, "", errors.New("no user on context"))
	}
	if old != nil && onlyCollectable(obj, old) {
		return nil
	}
	namespace, _ := request.NamespaceFrom(ctx)
	switch o := obj.(type) {
	case *rbacv1.Role:
		return g.role(ctx, u, namespace, o.Name, o.Rules, false)
	case *rbacv1.ClusterRole:
		before, _ := old.(*rbacv1.ClusterRole)
		return g.role(ctx, u, "", o.Name, o.Rules, gathers(o) || gathers(before))
	case *rbacv1.RoleBinding:
		return g.binding(ctx, u, namespace, o.Name, o.RoleRef)
	case *rbacv1.ClusterRoleBinding:
		return g.binding(ctx, u, "", o.Name, o.RoleRef)
	}
	return apierrors.NewInternalError(fmt.Errorf("unexpected object: %T", obj))
}

// role is for those who have the rules. A role that gathers others may come to hold anything.
func (g *Guard) role(ctx context.Context, u user.Info, namespace, name string, rules []rbacv1.PolicyRule, gathers bool) error {
	info, _ := request.RequestInfoFrom(ctx)
	at := ""
	if info != nil {
		at = info.Name
	}
	if g.allowed(ctx, u, "escalate", namespace, g.DefaultQualifiedResource.Resource, at) {
		return nil
	}
	if err := g.Policy.ConfirmHeld(ctx, rules); err != nil {
		return apierrors.NewForbidden(g.DefaultQualifiedResource, name, err)
	}
	everything := []rbacv1.PolicyRule{
		{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}}, {Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
	}
	if gathers && g.Policy.ConfirmHeld(ctx, everything) != nil {
		return apierrors.NewForbidden(g.DefaultQualifiedResource, name, errors.New("must have cluster-admin privileges to use the aggregationRule"))
	}
	return nil
}

// binding is for those who may bind the role, or have all its rules.
func (g *Guard) binding(ctx context.Context, u user.Info, namespace, name string, ref rbacv1.RoleRef) error {
	resource := map[string]string{"Role": "roles", "ClusterRole": "clusterroles"}[ref.Kind]
	if resource != "" && g.allowed(ctx, u, "bind", namespace, resource, ref.Name) {
		return nil
	}
	rules, err := g.Policy.RoleRules(ref, namespace)
	if err != nil {
		return err
	}
	if err := g.Policy.ConfirmHeld(ctx, rules); err != nil {
		return apierrors.NewForbidden(g.DefaultQualifiedResource, name, err)
	}
	return nil
}

func (g *Guard) allowed(ctx context.Context, u user.Info, verb, namespace, resource, name string) bool {
	decision, _, _ := g.Authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: u, Verb: verb, Namespace: namespace, APIGroup: rbacv1.GroupName, APIVersion: "*", Resource: resource, Name: name, ResourceRequest: true,
	})
	return decision == authorizer.DecisionAllow
}

func gathers(r *rbacv1.ClusterRole) bool {
	return r != nil && r.AggregationRule != nil && len(r.AggregationRule.ClusterRoleSelectors) > 0
}

// onlyCollectable says whether nothing is changed but what the garbage collector changes.
func onlyCollectable(obj, old runtime.Object) bool {
	now := obj.DeepCopyObject()
	n, err1 := meta.Accessor(now)
	o, err2 := meta.Accessor(old)
	if err1 != nil || err2 != nil {
		return false
	}
	n.SetOwnerReferences(o.GetOwnerReferences())
	n.SetFinalizers(o.GetFinalizers())
	n.SetManagedFields(o.GetManagedFields())
	return equality.Semantic.DeepEqual(now, old)
}
