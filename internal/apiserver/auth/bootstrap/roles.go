package bootstrap

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	names "k8s.io/apiserver/pkg/authentication/user"
)

func clusterRoles() []*rbacv1.ClusterRole {
	paths := allowPaths("*")
	paths.Verbs = []string{"*"}
	return []*rbacv1.ClusterRole{
		// People.
		clusterRole("cluster-admin", allow("*", "*", "*"), paths),
		gathering("admin", ""),
		gathering("edit", "admin"),
		gathering("view", "edit"),
		belonging(clusterRole("system:aggregate-to-admin", adminRules()...), "admin"),
		belonging(clusterRole("system:aggregate-to-edit", editRules()...), "edit"),
		belonging(clusterRole("system:aggregate-to-view", viewRules()...), "view"),
		// metrics-server's own, which is not there: metrics.k8s.io is built in.
		belonging(belonging(belonging(clusterRole("system:aggregated-metrics-reader", allow(read, "metrics.k8s.io", "pods nodes")), "view"), "edit"), "admin"),
		clusterRole("system:discovery", allowPaths("/livez /readyz /healthz /version /version/ /openapi /openapi/* /api /api/* /apis /apis/*")),
		clusterRole("system:basic-user",
			allow("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
			allow("create", "authentication.k8s.io", "selfsubjectreviews")),
		clusterRole("system:public-info-viewer", allowPaths("/livez /readyz /healthz /version /version/")),
		clusterRole("system:monitoring",
			allowPaths("/metrics /metrics/slis /livez /readyz /healthz /livez/* /readyz/* /healthz/* /flagz /statusz"),
			allow("get", "core", "nodes/metrics")),
		clusterRole("system:service-account-issuer-discovery",
			allowPaths("/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/")),
		clusterRole("system:cluster-trust-bundle-discovery", allow(read, "certificates.k8s.io", "clustertrustbundles")),

		// Nodes, and those who speak to them.
		clusterRole("system:node", NodeRules()...),
		clusterRole("system:node-bootstrapper", allow("create "+read, "certificates.k8s.io", "certificatesigningrequests")),
		clusterRole("system:node-problem-detector", allow("get", "core", "nodes"), allow("patch", "core", "nodes/status"), writeEvents()),
		clusterRole("system:node-proxier",
			allow("list watch", "core", "services endpoints"), allow(read, "core", "nodes"), writeEvents(),
			allow("list watch", "networking.k8s.io", "servicecidrs"), allow("list watch", "discovery.k8s.io", "endpointslices")),
		clusterRole("system:kubelet-api-admin",
			allow(read, "core", "nodes"), allow("proxy", "core", "nodes"),
			allow("*", "core", "nodes/proxy nodes/metrics nodes/stats nodes/log"), allow("*", "core", "nodes/pods nodes/healthz nodes/configz")),

		// Components and add-ons.
		clusterRole("system:auth-delegator",
			allow("create", "authentication.k8s.io", "tokenreviews"), allow("create", "authorization.k8s.io", "subjectaccessreviews")),
		clusterRole("system:kube-aggregator", allow(read, "core", "services endpoints")),
		clusterRole("system:kube-controller-manager", controllerManagerRules()...),
		clusterRole("system:kube-scheduler", schedulerRules()...),
		clusterRole("system:volume-scheduler",
			allow(read+" update patch", "core", "persistentvolumes"), allow(read, "storage.k8s.io", "storageclasses"),
			allow(read+" update patch", "core", "persistentvolumeclaims")),
		clusterRole("system:kube-dns", allow("list watch", "core", "endpoints services")),
		clusterRole("system:persistent-volume-provisioner",
			allow(read+" create delete", "core", "persistentvolumes"), allow(read+" update", "core", "persistentvolumeclaims"),
			allow(read, "storage.k8s.io", "storageclasses"), allow("watch", "core", "events"), writeEvents()),
		clusterRole("system:heapster", allow(read, "core", "events pods nodes namespaces"), allow(read, "extensions", "deployments")),

		// Certificates.
		clusterRole("system:certificates.k8s.io:certificatesigningrequests:nodeclient",
			allow("create", "certificates.k8s.io", "certificatesigningrequests/nodeclient")),
		clusterRole("system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
			allow("create", "certificates.k8s.io", "certificatesigningrequests/selfnodeclient")),
		approver("legacy-unknown", "legacy-unknown"),
		approver("kubelet-serving", "kubelet-serving"),
		approver("kube-apiserver-client", "kube-apiserver-client"),
		approver("kube-apiserver-client-kubelet", "kube-apiserver-client-kubelet"),
	}
}

func clusterRoleBindings() []*rbacv1.ClusterRoleBinding {
	return []*rbacv1.ClusterRoleBinding{
		bind("cluster-admin", group(names.SystemPrivilegedGroup)),
		bind("system:monitoring", group(names.MonitoringGroup)),
		bind("system:discovery", group(names.AllAuthenticated)),
		bind("system:basic-user", group(names.AllAuthenticated)),
		bind("system:public-info-viewer", group(names.AllAuthenticated), group(names.AllUnauthenticated)),
		bind("system:node-proxier", user(names.KubeProxy)),
		bind("system:kube-controller-manager", user(names.KubeControllerManager)),
		bind("system:kube-dns", account(metav1.NamespaceSystem, "kube-dns")),
		bind("system:kube-scheduler", user(names.KubeScheduler)),
		bind("system:volume-scheduler", user(names.KubeScheduler)),
		bind("system:node"), // nobody: nodes have these rights from the Node authorizer
		bind("system:service-account-issuer-discovery", group(serviceaccount.AllServiceAccountsGroup)),
		bind("system:cluster-trust-bundle-discovery", group(serviceaccount.AllServiceAccountsGroup)),
	}
}

// systemRoles are those of kube-system: who may learn how the API server knows its clients, and who may lead.
func systemRoles() ([]*rbacv1.Role, []*rbacv1.RoleBinding) {
	role := func(name string, rules ...rbacv1.PolicyRule) *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: meta(metav1.NamespaceSystem, name), Rules: rules}
	}
	binding := func(name, to string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{
			ObjectMeta: meta(metav1.NamespaceSystem, name), Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: to},
		}
	}
	lead := allow("get watch list create update", "coordination.k8s.io", "leases leasecandidates")
	const reader, controllers, scheduler = "extension-apiserver-authentication-reader",
		"system::leader-locking-kube-controller-manager", "system::leader-locking-kube-scheduler"
	return []*rbacv1.Role{
			role(reader, allow(read, "core", "configmaps", "extension-apiserver-authentication")),
			role(controllers, lead),
			role(scheduler, lead),
		}, []*rbacv1.RoleBinding{
			binding("system::"+reader, reader, user(names.KubeControllerManager), user(names.KubeScheduler)),
			binding(controllers, controllers, user(names.KubeControllerManager), account(metav1.NamespaceSystem, "kube-controller-manager"),
				account(metav1.NamespaceSystem, "leader-election-controller")),
			binding(scheduler, scheduler, user(names.KubeScheduler), account(metav1.NamespaceSystem, "kube-scheduler")),
		}
}
