package api

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRoles(t *testing.T) {
	const group = "rbac.authorization.k8s.io"
	for _, tc := range []struct {
		name, kind, object string
		want               []string
	}{
		{"as it is", "Role", `{metadata: {name: "a:b", namespace: n}, rules: [{verbs: [get], apiGroups: [""], resources: [pods]}]}`, nil},
		{"a name of two segments", "Role", `{metadata: {name: a/b, namespace: n}}`, []string{`metadata.name: Invalid value: "a/b": may not contain '/'`}},
		{"no verbs", "Role", `{metadata: {name: a, namespace: n}, rules: [{apiGroups: [""], resources: [pods]}]}`,
			[]string{"rules[0].verbs: Required value: verbs must contain at least one value"}},
		{"no groups and resources", "ClusterRole", `{metadata: {name: a}, rules: [{verbs: [get]}]}`, []string{
			"rules[0].apiGroups: Required value: resource rules must supply at least one api group",
			"rules[0].resources: Required value: resource rules must supply at least one resource",
		}},
		{"paths in a namespace", "Role", `{metadata: {name: a, namespace: n}, rules: [{verbs: [get], nonResourceURLs: [/x]}]}`,
			[]string{`rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs`}},
		{"paths and resources", "ClusterRole", `{metadata: {name: a}, rules: [{verbs: [get], nonResourceURLs: [/x], resources: [pods]}]}`,
			[]string{`rules[0].nonResourceURLs: Invalid value: ["/x"]: rules cannot apply to both regular resources and non-resource URLs`}},
		{"gathers nothing", "ClusterRole", `{metadata: {name: a}, aggregationRule: {}}`,
			[]string{"aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"}},
		{"binding", "RoleBinding", `{metadata: {name: b, namespace: n}, roleRef: {kind: Role, name: a},
			subjects: [{kind: User, name: u}, {kind: Group, name: g}, {kind: ServiceAccount, name: s}]}`, nil},
		{"to a role in the whole cluster", "ClusterRoleBinding", `{metadata: {name: b}, roleRef: {kind: Role, name: a}}`,
			[]string{`roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"`}},
		{"to nothing", "RoleBinding", `{metadata: {name: b, namespace: n}}`,
			[]string{`roleRef.kind: Unsupported value: "": supported values: "Role", "ClusterRole"`, "roleRef.name: Required value"}},
		{"of nobody", "ClusterRoleBinding", `{metadata: {name: b}, roleRef: {kind: ClusterRole, name: a}, subjects: [{kind: ServiceAccount, name: s},
			{kind: User}, {kind: Robot, name: r}, {kind: User, name: u, apiGroup: x}]}`, []string{
			"subjects[0].namespace: Required value",
			"subjects[1].name: Required value",
			`subjects[2].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group"`,
			`subjects[3].apiGroup: Unsupported value: "x": supported values: "rbac.authorization.k8s.io"`,
		}},
	} {
		k := kindOf(t, group, tc.kind)
		if tc.want == nil {
			tc.want = []string{}
		}
		if diff := cmp.Diff(tc.want, messages(k.Validate(context.Background(), object(t, k, tc.object)))); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", tc.name, diff)
		}
	}
}
