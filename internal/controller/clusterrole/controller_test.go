package clusterrole

import (
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func rule(verb string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: []string{verb}, APIGroups: []string{""}, Resources: []string{"pods"}}
}

func role(name string, labels map[string]string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Rules: rules}
}

func gathering(name string, labels map[string]string, selectors ...map[string]string) *rbacv1.ClusterRole {
	r := role(name, labels)
	r.AggregationRule = &rbacv1.AggregationRule{}
	for _, s := range selectors {
		r.AggregationRule.ClusterRoleSelectors = append(r.AggregationRule.ClusterRoleSelectors, metav1.LabelSelector{MatchLabels: s})
	}
	return r
}

func TestGather(t *testing.T) {
	a, b := map[string]string{"a": "1"}, map[string]string{"b": "1"}
	all := []*rbacv1.ClusterRole{
		role("z", a, rule("z"), rule("both")), role("y", a, rule("y"), rule("both")), role("x", b, rule("x")), role("none", nil, rule("none")),
	}
	for _, tt := range []struct {
		name string
		role *rbacv1.ClusterRole
		want []rbacv1.PolicyRule
	}{
		{"by name, each once", gathering("g", nil, a), []rbacv1.PolicyRule{rule("y"), rule("both"), rule("z")}},
		{"selector by selector", gathering("g", nil, b, a), []rbacv1.PolicyRule{rule("x"), rule("y"), rule("both"), rule("z")}},
		{"itself never", gathering("z", a, a), []rbacv1.PolicyRule{rule("y"), rule("both")}},
		{"nothing", gathering("g", nil, map[string]string{"c": "1"}), []rbacv1.PolicyRule{}},
	} {
		got, err := gather(tt.role, all)
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", tt.name, err, diff)
		}
	}
}

func TestSync(t *testing.T) {
	a := map[string]string{"a": "1"}
	stale := gathering("g", nil, a)
	stale.Rules = []rbacv1.PolicyRule{rule("old")}
	client := fake.NewClientset(stale, role("z", a, rule("z")))
	factory := informers.NewSharedInformerFactory(client, 0)
	c, err := New(Config{Client: client, Informers: factory, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*rbacv1.ClusterRole{stale, role("z", a, rule("z"))} {
		if err := factory.Rbac().V1().ClusterRoles().Informer().GetIndexer().Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.sync(t.Context(), "g"); err != nil {
		t.Fatal(err)
	}
	got, err := client.RbacV1().ClusterRoles().Get(t.Context(), "g", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]rbacv1.PolicyRule{rule("z")}, got.Rules); diff != "" {
		t.Error(diff)
	}
}
