package apiserver_test

import (
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"carob.dev/carob/internal/apiserver/auth/bootstrap"
)

func rules(verbs, resources string) []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{{Verbs: strings.Split(verbs, ","), APIGroups: []string{""}, Resources: strings.Split(resources, ",")}}
}

func role(name string, r []rbacv1.PolicyRule) *rbacv1.Role {
	return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: r}
}

func bindTo(name, kind, roleName, user string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{Kind: kind, Name: roleName},
		Subjects: []rbacv1.Subject{{Kind: "User", Name: user}}}
}

// eventually is for what a write brings about a moment later.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("does not come true: %s", what)
}

func TestRolesGiveRights(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	jane := f.as(t, "jane")
	list := func(ns string) error {
		_, err := jane.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		return err
	}
	must[*rbacv1.Role](t)(f.kube.RbacV1().Roles("default").Create(ctx, role("reader", rules("get,list", "pods")), metav1.CreateOptions{}))
	b := must[*rbacv1.RoleBinding](t)(f.kube.RbacV1().RoleBindings("default").Create(ctx, bindTo("read", "Role", "reader", "jane"), metav1.CreateOptions{}))
	if b.RoleRef.APIGroup != rbacv1.GroupName || b.Subjects[0].APIGroup != rbacv1.GroupName {
		t.Errorf("groups are not filled in: %+v", b)
	}
	eventually(t, "jane reads", func() bool { return list("default") == nil })
	if err := list("kube-system"); !apierrors.IsForbidden(err) {
		t.Errorf("elsewhere: %v", err)
	}
	changed := b.DeepCopy()
	changed.RoleRef.Name = "another"
	if _, err := f.kube.RbacV1().RoleBindings("default").Update(ctx, changed, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) ||
		!strings.Contains(err.Error(), "roleRef: Invalid value") {
		t.Errorf("a changed roleRef: %v", err)
	}
	if err := f.kube.RbacV1().RoleBindings("default").Delete(ctx, "read", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "jane reads no more", func() bool { return apierrors.IsForbidden(list("default")) })
}

func TestNobodyGivesWhatTheyDoNotHave(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	all := []rbacv1.PolicyRule{{Verbs: []string{"*"}, APIGroups: []string{rbacv1.GroupName}, Resources: []string{"roles", "rolebindings"}}}
	all[0].Verbs = []string{"get", "create", "update", "patch"}
	must[*rbacv1.Role](t)(f.kube.RbacV1().Roles("default").Create(ctx, role("chief", append(all, rules("get", "pods")...)), metav1.CreateOptions{}))
	must[*rbacv1.RoleBinding](t)(f.kube.RbacV1().RoleBindings("default").Create(ctx, bindTo("chief", "Role", "chief", "jane"), metav1.CreateOptions{}))
	must[*rbacv1.Role](t)(f.kube.RbacV1().Roles("default").Create(ctx, role("secrets", rules("get", "secrets")), metav1.CreateOptions{}))
	jane := f.as(t, "jane").RbacV1()
	eventually(t, "jane may make roles", func() bool {
		_, err := jane.Roles("default").Get(ctx, "secrets", metav1.GetOptions{})
		return err == nil
	})

	must[*rbacv1.Role](t)(jane.Roles("default").Create(ctx, role("own", rules("get", "pods")), metav1.CreateOptions{}))
	must[*rbacv1.RoleBinding](t)(jane.RoleBindings("default").Create(ctx, bindTo("own", "Role", "own", "jim"), metav1.CreateOptions{}))
	want := `is attempting to grant RBAC permissions not currently held:` + "\n" + `{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}`
	refused := func(what string, err error) {
		t.Helper()
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := jane.Roles("default").Create(ctx, role("more", rules("get", "secrets")), metav1.CreateOptions{})
	refused("make a role with more", err)
	_, err = jane.Roles("default").Update(ctx, role("own", rules("get", "secrets")), metav1.UpdateOptions{})
	refused("update a role to more", err)
	_, err = jane.Roles("default").Patch(ctx, "own", types.JSONPatchType,
		[]byte(`[{"op":"replace","path":"/rules/0/resources/0","value":"secrets"}]`), metav1.PatchOptions{})
	refused("patch a role to more", err)
	_, err = jane.Roles("default").Patch(ctx, "applied", types.ApplyPatchType, []byte(`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role",
		"metadata":{"name":"applied"},"rules":[{"apiGroups":[""],"resources":["secrets"],"verbs":["get"]}]}`), metav1.PatchOptions{FieldManager: "x"})
	refused("apply a role with more", err)
	_, err = jane.RoleBindings("default").Create(ctx, bindTo("more", "Role", "secrets", "jane"), metav1.CreateOptions{})
	refused("bind a role with more", err)

	may := []rbacv1.PolicyRule{{Verbs: []string{"bind"}, APIGroups: []string{rbacv1.GroupName}, Resources: []string{"roles"}, ResourceNames: []string{"secrets"}}}
	must[*rbacv1.Role](t)(f.kube.RbacV1().Roles("default").Create(ctx, role("binder", may), metav1.CreateOptions{}))
	must[*rbacv1.RoleBinding](t)(f.kube.RbacV1().RoleBindings("default").Create(ctx, bindTo("binder", "Role", "binder", "jane"), metav1.CreateOptions{}))
	eventually(t, "who may bind a role binds it", func() bool {
		_, err := jane.RoleBindings("default").Create(ctx, bindTo("bound", "Role", "secrets", "jim"), metav1.CreateOptions{})
		return err == nil
	})
	may[0].Verbs, may[0].ResourceNames = []string{"escalate"}, nil
	must[*rbacv1.Role](t)(f.kube.RbacV1().Roles("default").Create(ctx, role("climber", may), metav1.CreateOptions{}))
	must[*rbacv1.RoleBinding](t)(f.kube.RbacV1().RoleBindings("default").Create(ctx, bindTo("climber", "Role", "climber", "jane"), metav1.CreateOptions{}))
	eventually(t, "who may escalate does", func() bool {
		_, err := jane.Roles("default").Create(ctx, role("grown", rules("get", "nodes")), metav1.CreateOptions{})
		return err == nil
	})
}

func TestFirstRoles(t *testing.T) {
	dir := t.TempDir()
	t.Run("first start", func(t *testing.T) {
		f := startIn(t, dir)
		ctx, api := t.Context(), f.kube.RbacV1()
		for _, r := range bootstrap.Default().ClusterRoles {
			have := must[*rbacv1.ClusterRole](t)(api.ClusterRoles().Get(ctx, r.Name, metav1.GetOptions{}))
			if have.Labels["kubernetes.io/bootstrapping"] != "rbac-defaults" || have.Annotations[rbacv1.AutoUpdateAnnotationKey] != "true" {
				t.Errorf("%s: %v %v", r.Name, have.Labels, have.Annotations)
			}
		}
		viewer := must[*rbacv1.ClusterRole](t)(api.ClusterRoles().Get(ctx, "system:public-info-viewer", metav1.GetOptions{}))
		viewer.Rules[0].NonResourceURLs = append(viewer.Rules[0].NonResourceURLs[1:], "/mine") // one lost, one more
		must[*rbacv1.ClusterRole](t)(api.ClusterRoles().Update(ctx, viewer, metav1.UpdateOptions{}))
		kept := must[*rbacv1.ClusterRole](t)(api.ClusterRoles().Get(ctx, "system:discovery", metav1.GetOptions{}))
		kept.Annotations[rbacv1.AutoUpdateAnnotationKey], kept.Rules = "false", nil
		must[*rbacv1.ClusterRole](t)(api.ClusterRoles().Update(ctx, kept, metav1.UpdateOptions{}))
		if err := api.ClusterRoleBindings().Delete(ctx, "system:basic-user", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("second start", func(t *testing.T) {
		f := startIn(t, dir)
		ctx, api := t.Context(), f.kube.RbacV1()
		viewer := must[*rbacv1.ClusterRole](t)(api.ClusterRoles().Get(ctx, "system:public-info-viewer", metav1.GetOptions{}))
		var paths []string
		for _, r := range viewer.Rules {
			paths = append(paths, r.NonResourceURLs...)
		}
		if all := strings.Join(paths, " "); !strings.Contains(all, "/livez") || !strings.Contains(all, "/mine") {
			t.Errorf("what was lost comes back and what was added stays: %s", all)
		}
		if kept := must[*rbacv1.ClusterRole](t)(api.ClusterRoles().Get(ctx, "system:discovery", metav1.GetOptions{})); len(kept.Rules) != 0 {
			t.Errorf("a role that is not to be updated was: %v", kept.Rules)
		}
		must[*rbacv1.ClusterRoleBinding](t)(api.ClusterRoleBindings().Get(ctx, "system:basic-user", metav1.GetOptions{}))
	})
}

func TestNodeSeesItsOwn(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	f.account(t, "default")
	for _, name := range []string{"wanted", "other"} {
		must[*corev1.Secret](t)(f.kube.CoreV1().Secrets("default").Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}))
	}
	p := newPod("p")
	p.Spec.NodeName = "n1"
	p.Spec.Volumes = []corev1.Volume{{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "wanted"}}}}
	f.pod(t, p)
	n1, n2 := f.as(t, "system:node:n1", "system:nodes"), f.as(t, "system:node:n2", "system:nodes")
	if _, err := n1.CoreV1().Secrets("default").Get(ctx, "wanted", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	w, err := n1.CoreV1().Secrets("default").Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=wanted"})
	if err != nil {
		t.Error(err)
	} else {
		w.Stop()
	}
	if _, err := n1.CoreV1().Secrets("default").Get(ctx, "other", metav1.GetOptions{}); !apierrors.IsForbidden(err) ||
		!strings.HasSuffix(err.Error(), `cannot get resource "secrets" in API group "" in the namespace "default": no relationship found between node 'n1' and this object`) {
		t.Errorf("a secret that no Pod there names: %v", err)
	}
	if _, err := n1.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("all secrets: %v", err)
	}
	if _, err := n2.CoreV1().Secrets("default").Get(ctx, "wanted", metav1.GetOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("of another node: %v", err)
	}
	if _, err := n1.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=n1"}); err != nil {
		t.Error(err)
	}
	if _, err := n2.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=n1"}); !apierrors.IsForbidden(err) {
		t.Errorf("Pods of another node: %v", err)
	}
	request := &authenticationv1.TokenRequest{}
	if _, err := n2.CoreV1().ServiceAccounts("default").CreateToken(ctx, "default", request, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("token of an account that no Pod there has: %v", err)
	}
}
