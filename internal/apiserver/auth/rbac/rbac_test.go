package rbac

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/kubernetes/fake"
)

func allow(verbs, groups, resources string, names ...string) rbacv1.PolicyRule {
	split := func(s string) []string { return strings.Split(s, ",") }
	return rbacv1.PolicyRule{Verbs: split(verbs), APIGroups: split(groups), Resources: split(resources), ResourceNames: names}
}

func TestAllows(t *testing.T) {
	res := func(verb, group, resource, sub, name string) authorizer.AttributesRecord {
		return authorizer.AttributesRecord{Verb: verb, APIGroup: group, Resource: resource, Subresource: sub, Name: name, ResourceRequest: true}
	}
	path := func(verb, p string) authorizer.AttributesRecord {
		return authorizer.AttributesRecord{Verb: verb, Path: p}
	}
	urls := func(list ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: list}
	}
	for _, tt := range []struct {
		name string
		rule rbacv1.PolicyRule
		attr authorizer.AttributesRecord
		want bool
	}{
		{"exact", allow("get", "", "pods"), res("get", "", "pods", "", "p"), true},
		{"other verb", allow("get", "", "pods"), res("list", "", "pods", "", ""), false},
		{"other group", allow("get", "", "pods"), res("get", "apps", "pods", "", ""), false},
		{"other resource", allow("get", "", "pods"), res("get", "", "podtemplates", "", ""), false},
		{"no subresource", allow("get", "", "pods"), res("get", "", "pods", "log", "p"), false},
		{"subresource", allow("get", "", "pods/log"), res("get", "", "pods", "log", "p"), true},
		{"subresource is not the resource", allow("get", "", "pods/log"), res("get", "", "pods", "", "p"), false},
		{"subresource of all", allow("get", "", "*/scale"), res("get", "", "deployments", "scale", "d"), true},
		{"subresource of all is not another", allow("get", "", "*/scale"), res("get", "", "deployments", "status", "d"), false},
		{"suffix alone", allow("get", "", "xpods/log"), res("get", "", "pods", "log", "p"), false},
		{"shorter subresource", allow("get", "", "pods/catalog"), res("get", "", "pods", "log", "p"), false},
		{"all of a resource is no wildcard", allow("get", "", "pods/*"), res("get", "", "pods", "log", "p"), false},
		{"everything", allow("*", "*", "*"), res("delete", "x.y", "zs", "w", "n"), true},
		{"named", allow("get", "", "secrets", "a", "b"), res("get", "", "secrets", "", "b"), true},
		{"other name", allow("get", "", "secrets", "a"), res("get", "", "secrets", "", "b"), false},
		{"a list has no name", allow("list", "", "secrets", "a"), res("list", "", "secrets", "", ""), false},
		{"resources say nothing about paths", allow("*", "*", "*"), path("get", "/healthz"), false},
		{"path", urls("/healthz"), path("get", "/healthz"), true},
		{"path, other verb", urls("/healthz"), path("post", "/healthz"), false},
		{"path below", urls("/healthz"), path("get", "/healthz/etcd"), false},
		{"paths below", urls("/healthz/*"), path("get", "/healthz/etcd"), true},
		{"paths below are not the path", urls("/healthz/*"), path("get", "/healthz"), false},
		{"all paths", urls("*"), path("get", "/x"), true},
		{"paths say nothing about resources", urls("*"), res("get", "", "pods", "", ""), false},
	} {
		if got := Allows(&tt.rule, tt.attr); got != tt.want {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
}

func policy(t *testing.T, objects ...runtime.Object) *Policy {
	t.Helper()
	p, err := New(fake.NewClientset(objects...))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := p.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); p.Wait() })
	return p
}

func ref(kind, name string) rbacv1.RoleRef {
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
}

func example() []runtime.Object {
	return []runtime.Object{
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "reader"}, Rules: []rbacv1.PolicyRule{allow("get,list", "", "pods")}},
		&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "writer"}, Rules: []rbacv1.PolicyRule{allow("create", "", "pods")}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "all-read"}, RoleRef: ref("ClusterRole", "reader"), Subjects: []rbacv1.Subject{
			{Kind: "Group", Name: "readers"}, {Kind: "ServiceAccount", Namespace: "a", Name: "robot"}, {Kind: "ServiceAccount", Name: "nowhere"},
		}},
		&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "write"}, RoleRef: ref("Role", "writer"), Subjects: []rbacv1.Subject{
			{Kind: "User", Name: "jane"}, {Kind: "ServiceAccount", Name: "local"},
		}},
		&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "b", Name: "read"}, RoleRef: ref("ClusterRole", "reader"),
			Subjects: []rbacv1.Subject{{Kind: "User", Name: "jane"}}},
		&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "b", Name: "broken"}, RoleRef: ref("Role", "none"),
			Subjects: []rbacv1.Subject{{Kind: "User", Name: "jim"}}},
	}
}

func TestAuthorize(t *testing.T) {
	p := policy(t, example()...)
	for _, tt := range []struct {
		name, user  string
		groups      []string
		verb, space string
		want        string // what the reason contains; nothing for a request that is not allowed
	}{
		{"by group, in any namespace", "x", []string{"others", "readers"}, "get", "zz", `RBAC: allowed by ClusterRoleBinding "all-read" of ClusterRole "reader" to Group "readers"`},
		{"by group, in the whole cluster", "x", []string{"readers"}, "list", "", `to Group "readers"`},
		{"a group is no user", "readers", nil, "get", "a", ""},
		{"account of the cluster's binding", "system:serviceaccount:a:robot", nil, "get", "b", `to ServiceAccount "robot/a"`},
		{"account of another namespace", "system:serviceaccount:b:robot", nil, "get", "b", ""},
		{"account without a namespace in the cluster's binding", "system:serviceaccount::nowhere", nil, "get", "b", ""},
		{"role in its namespace", "jane", nil, "create", "a", `RBAC: allowed by RoleBinding "write/a" of Role "writer" to User "jane"`},
		{"role elsewhere", "jane", nil, "create", "b", ""},
		{"role in the whole cluster", "jane", nil, "create", "", ""},
		{"cluster role bound in a namespace", "jane", nil, "get", "b", `RoleBinding "read/b"`},
		{"cluster role elsewhere", "jane", nil, "get", "a", ""},
		{"account of the binding's own namespace", "system:serviceaccount:a:local", nil, "create", "a", `to ServiceAccount "local/a"`},
		{"account of the same name elsewhere", "system:serviceaccount:b:local", nil, "create", "a", ""},
	} {
		a := authorizer.AttributesRecord{User: &user.DefaultInfo{Name: tt.user, Groups: tt.groups}, Verb: tt.verb, Namespace: tt.space,
			Resource: "pods", ResourceRequest: true}
		decision, reason, err := p.Authorize(t.Context(), a)
		if err != nil || (decision == authorizer.DecisionAllow) != (tt.want != "") || !strings.Contains(reason, tt.want) {
			t.Errorf("%s: %v %q %v", tt.name, decision, reason, err)
		}
	}
	_, reason, _ := p.Authorize(t.Context(), authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "jim"}, Verb: "get", Namespace: "b", Resource: "pods", ResourceRequest: true})
	if !strings.Contains(reason, `RBAC: role.rbac.authorization.k8s.io "none" not found`) {
		t.Errorf("a role that is missing: %q", reason)
	}
}

func TestNoAnswerBeforeThePolicyIsKnown(t *testing.T) {
	p, err := New(fake.NewClientset(example()...))
	if err != nil {
		t.Fatal(err)
	}
	a := authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "x", Groups: []string{"readers"}}, Verb: "get", Resource: "pods", ResourceRequest: true}
	bounded, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if d, _, err := p.Authorize(bounded, a); d == authorizer.DecisionAllow || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v %v", d, err)
	}
	answered := make(chan authorizer.Decision)
	go func() {
		d, _, _ := p.Authorize(t.Context(), a)
		answered <- d
	}()
	ctx, end := context.WithCancel(t.Context())
	if err := p.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if d := <-answered; d != authorizer.DecisionAllow {
		t.Errorf("who waited: %v", d)
	}
	end()
	p.Wait()
}

func TestConfirmHeld(t *testing.T) {
	p := policy(t, example()...)
	ctx := request.WithNamespace(request.WithUser(t.Context(), &user.DefaultInfo{Name: "jane", Groups: []string{"g"}}), "a")
	if err := p.ConfirmHeld(ctx, []rbacv1.PolicyRule{allow("create", "", "pods")}); err != nil {
		t.Error(err)
	}
	err := p.ConfirmHeld(ctx, []rbacv1.PolicyRule{allow("create,get,delete", "", "pods"), allow("get", "", "secrets", "s")})
	want := `user "jane" (groups=["g"]) is attempting to grant RBAC permissions not currently held:
{APIGroups:[""], Resources:["pods"], Verbs:["get" "delete"]}
{APIGroups:[""], Resources:["secrets"], ResourceNames:["s"], Verbs:["get"]}`
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

func BenchmarkAuthorize(b *testing.B) {
	p, err := New(fake.NewClientset(example()...))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := p.Start(ctx); err != nil {
		b.Fatal(err)
	}
	defer func() { cancel(); p.Wait() }()
	a := authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "x", Groups: []string{"a", "b", "readers"}}, Verb: "get", Namespace: "a",
		Resource: "pods", ResourceRequest: true}
	b.ReportAllocs()
	for b.Loop() {
		if d, _, _ := p.Authorize(ctx, a); d != authorizer.DecisionAllow {
			b.Fatal(d)
		}
	}
}
