// Package rbac decides by roles and bindings: who is bound to a role may do what its rules say, in the whole cluster or in one namespace.
//
// It imports client-go's informers and k8s.io/apiserver. Invariants: it answers from memory, and gives no answer before it has seen every
// role and binding that there was when it started; what no rule allows it has no opinion on.
package rbac

import (
	"context"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	rbaclisters "k8s.io/client-go/listers/rbac/v1"
	"k8s.io/client-go/tools/cache"
)

// subjects is the index of bindings by whom they name.
const subjects = "subjects"

// Policy is the roles and bindings of the cluster.
type Policy struct {
	factory             informers.SharedInformerFactory
	roles               rbaclisters.RoleLister
	clusterRoles        rbaclisters.ClusterRoleLister
	roleBindings        cache.Indexer
	clusterRoleBindings cache.Indexer
	ready               chan struct{}
}

// New makes a Policy that learns by client, once Start is called.
func New(client kubernetes.Interface) (*Policy, error) {
	f := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(func(obj any) (any, error) {
		if m, err := meta.Accessor(obj); err == nil {
			m.SetManagedFields(nil)
		}
		return obj, nil
	}))
	in := f.Rbac().V1()
	p := &Policy{
		factory: f, roles: in.Roles().Lister(), clusterRoles: in.ClusterRoles().Lister(),
		roleBindings: in.RoleBindings().Informer().GetIndexer(), clusterRoleBindings: in.ClusterRoleBindings().Informer().GetIndexer(),
		ready: make(chan struct{}),
	}
	if err := p.clusterRoleBindings.AddIndexers(cache.Indexers{subjects: func(obj any) ([]string, error) {
		b, ok := obj.(*rbacv1.ClusterRoleBinding)
		if !ok {
			return nil, fmt.Errorf("not a ClusterRoleBinding: %T", obj)
		}
		return keys("", b.Subjects), nil
	}}); err != nil {
		return nil, err
	}
	if err := p.roleBindings.AddIndexers(cache.Indexers{subjects: func(obj any) ([]string, error) {
		b, ok := obj.(*rbacv1.RoleBinding)
		if !ok {
			return nil, fmt.Errorf("not a RoleBinding: %T", obj)
		}
		return keys(b.Namespace, b.Subjects), nil
	}}); err != nil {
		return nil, err
	}
	return p, nil
}

// Start learns the policy and returns once all of it is known. It goes on learning until ctx ends; Wait waits for that end.
func (p *Policy) Start(ctx context.Context) error {
	p.factory.StartWithContext(ctx)
	if err := p.factory.WaitForCacheSyncWithContext(ctx).AsError(); err != nil {
		return fmt.Errorf("read roles and bindings: %w", err)
	}
	close(p.ready)
	return nil
}

// Wait returns once all that Start started has ended.
func (p *Policy) Wait() { p.factory.Shutdown() }

// keys are what bindings of a namespace, or of the cluster if that is empty, are found by.
func keys(namespace string, list []rbacv1.Subject) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		if kind, name, ok := identity(namespace, s); ok {
			out = append(out, key(namespace, kind, name))
		}
	}
	return out
}

// identity is the kind, user or group, and the name that a subject has as an authenticated user. The namespace of a service account that
// names none is the binding's.
func identity(namespace string, s rbacv1.Subject) (kind, name string, ok bool) {
	switch s.Kind {
	case rbacv1.UserKind, rbacv1.GroupKind:
		return s.Kind, s.Name, true
	case rbacv1.ServiceAccountKind:
		if s.Namespace != "" {
			namespace = s.Namespace
		}
		return rbacv1.UserKind, serviceaccount.MakeUsername(namespace, s.Name), namespace != ""
	}
	return "", "", false
}

func key(namespace, kind, name string) string { return namespace + "/" + kind + "/" + name }

// visit calls f with each rule for u in the namespace, and where it comes from, until f returns false. What cannot be resolved is returned.
func (p *Policy) visit(u user.Info, namespace string, f func(source func() string, r *rbacv1.PolicyRule) bool) error {
	var errs []error
	each := func(from cache.Indexer, in, kind, name string) bool {
		list, err := from.ByIndex(subjects, key(in, kind, name))
		if err != nil {
			errs = append(errs, err)
		}
		for _, obj := range list {
			var ref rbacv1.RoleRef
			switch b := obj.(type) {
			case *rbacv1.ClusterRoleBinding:
				ref = b.RoleRef
			case *rbacv1.RoleBinding:
				ref = b.RoleRef
			}
			rules, err := p.RoleRules(ref, in)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			source := func() string { return describe(obj, in, kind, name) }
			for i := range rules {
				if !f(source, &rules[i]) {
					return false
				}
			}
		}
		return true
	}
	in := []string{""}
	if namespace != "" {
		in = append(in, namespace)
	}
	for i, ns := range in {
		from := p.clusterRoleBindings
		if i > 0 {
			from = p.roleBindings
		}
		if !each(from, ns, rbacv1.UserKind, u.GetName()) {
			return nil
		}
		for _, g := range u.GetGroups() {
			if !each(from, ns, rbacv1.GroupKind, g) {
				return nil
			}
		}
	}
	return utilerrors.NewAggregate(errs)
}

// RoleRules returns the rules of the role that a binding of the namespace refers to; the namespace is empty for a binding of the cluster.
func (p *Policy) RoleRules(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	switch ref.Kind {
	case "Role":
		r, err := p.roles.Roles(namespace).Get(ref.Name)
		if err != nil {
			return nil, err
		}
		return r.Rules, nil
	case "ClusterRole":
		r, err := p.clusterRoles.Get(ref.Name)
		if err != nil {
			return nil, err
		}
		return r.Rules, nil
	}
	return nil, fmt.Errorf("unsupported role reference kind: %q", ref.Kind)
}

// Rules returns all rules for u in the namespace. With an error they may not be all, but those that are there count.
func (p *Policy) Rules(ctx context.Context, u user.Info, namespace string) ([]rbacv1.PolicyRule, error) {
	if err := p.known(ctx); err != nil {
		return nil, err
	}
	var out []rbacv1.PolicyRule
	err := p.visit(u, namespace, func(_ func() string, r *rbacv1.PolicyRule) bool {
		out = append(out, *r)
		return true
	})
	return out, err
}

// known waits until the policy is.
func (p *Policy) known(ctx context.Context) error {
	select {
	case <-p.ready:
		return nil
	default:
	}
	select {
	case <-p.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("roles and bindings are not known yet: %w", ctx.Err())
	}
}
