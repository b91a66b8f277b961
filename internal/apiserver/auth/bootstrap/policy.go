// Package bootstrap is the roles and bindings that every cluster has, with the names and rules that Kubernetes gives them, and how they are
// brought into a cluster.
//
// It imports client-go and component-helpers, which compares rules. The roles of Kubernetes' controllers are not among them: the
// controllers here run in the process of the API server, which allows them what they do without a role.
package bootstrap

import (
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Policy is what every cluster has.
type Policy struct {
	ClusterRoles        []*rbacv1.ClusterRole
	ClusterRoleBindings []*rbacv1.ClusterRoleBinding
	Roles               []*rbacv1.Role
	RoleBindings        []*rbacv1.RoleBinding
}

// Default makes the policy anew.
func Default() Policy {
	p := Policy{ClusterRoles: clusterRoles(), ClusterRoleBindings: clusterRoleBindings()}
	p.Roles, p.RoleBindings = systemRoles()
	return p
}

// Verbs that go together.
const (
	read  = "get list watch"
	write = "create update patch delete deletecollection"
	all   = read + " " + write
)

// allow makes a rule from lists whose parts are set apart by spaces. The core group is written as "core".
func allow(verbs, groups, resources string, names ...string) rbacv1.PolicyRule {
	g := strings.Fields(groups)
	for i := range g {
		if g[i] == "core" {
			g[i] = ""
		}
	}
	return rbacv1.PolicyRule{Verbs: strings.Fields(verbs), APIGroups: g, Resources: strings.Fields(resources), ResourceNames: names}
}

// allowPaths makes a rule to get paths, set apart by spaces.
func allowPaths(paths string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: strings.Fields(paths)}
}

func writeEvents() rbacv1.PolicyRule {
	return allow("create update patch", "core events.k8s.io", "events")
}

// meta marks an object as one that is brought up to date at each start, unless somebody sets the annotation to false.
func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name,
		Labels:      map[string]string{"kubernetes.io/bootstrapping": "rbac-defaults"},
		Annotations: map[string]string{rbacv1.AutoUpdateAnnotationKey: "true"},
	}
}

func clusterRole(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: meta("", name), Rules: rules}
}

const aggregateTo = "rbac.authorization.k8s.io/aggregate-to-"

// gathering is a role whose rules are those of all roles that say they belong to it; it itself belongs to another, if that is named.
func gathering(name, into string) *rbacv1.ClusterRole {
	r := clusterRole(name)
	r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{aggregateTo + name: "true"}}}}
	return belonging(r, into)
}

func belonging(r *rbacv1.ClusterRole, into string) *rbacv1.ClusterRole {
	if into != "" {
		r.Labels[aggregateTo+into] = "true"
	}
	return r
}

// Subjects, each of one kind.
func user(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: name}
}

func group(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: name}
}

func account(namespace, name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}
}

// bind binds the role of the binding's name.
func bind(name string, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta("", name), Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
	}
}
