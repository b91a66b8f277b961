package bootstrap

import (
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/component-helpers/auth/rbac/validation"
)

func TestEnsure(t *testing.T) {
	client := fake.NewClientset()
	ctx, api := t.Context(), client.RbacV1()
	writes := func() (n int) {
		for _, a := range client.Actions() {
			if a.GetVerb() != "get" && a.GetResource().Group == rbacv1.GroupName {
				n++
			}
		}
		client.ClearActions()
		return n
	}
	ensure := func() int {
		t.Helper()
		if err := Default().Ensure(kubernetes.Interface(client)); err != nil {
			t.Fatal(err)
		}
		return writes()
	}
	p := Default()
	if n, want := ensure(), len(p.ClusterRoles)+len(p.ClusterRoleBindings)+len(p.Roles)+len(p.RoleBindings); n != want {
		t.Errorf("%d writes at first, want %d", n, want)
	}
	if n := ensure(); n != 0 {
		t.Errorf("%d writes where nothing was changed", n)
	}
	admin, err := api.ClusterRoles().Get(ctx, "admin", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, rules := range map[string][]rbacv1.PolicyRule{"view": viewRules(), "edit": editRules(), "admin": adminRules()} {
		if ok, missing := validation.Covers(admin.Rules, rules); !ok {
			t.Errorf("admin lacks what %s has: %v", name, missing)
		}
	}

	change := func(name string, f func(*rbacv1.ClusterRole)) {
		t.Helper()
		r, err := api.ClusterRoles().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		r = r.DeepCopy()
		f(r)
		if _, err := api.ClusterRoles().Update(ctx, r, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		client.ClearActions()
	}
	change("system:kube-dns", func(r *rbacv1.ClusterRole) { r.Rules = append(r.Rules, allow("get", "core", "nodes")) })
	if n := ensure(); n != 0 {
		t.Errorf("%d writes where somebody has added a rule", n)
	}
	change("system:kube-dns", func(r *rbacv1.ClusterRole) { r.Rules = r.Rules[1:] })
	if n := ensure(); n != 1 {
		t.Errorf("%d writes where a rule was lost", n)
	}
	change("system:kube-dns", func(r *rbacv1.ClusterRole) {
		r.Rules, r.Annotations = nil, map[string]string{rbacv1.AutoUpdateAnnotationKey: "false"}
	})
	if n := ensure(); n != 0 {
		t.Errorf("%d writes of a role that is not to be updated", n)
	}
}
