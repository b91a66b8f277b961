package bootstrap

import rbacv1 "k8s.io/api/rbac/v1"

const (
	workloadsOfApps = "controllerrevisions statefulsets statefulsets/status statefulsets/scale daemonsets daemonsets/status " +
		"deployments deployments/status deployments/scale replicasets replicasets/status replicasets/scale"
	// extensions is a group that is not served any more, but which roles still name.
	workloadsOfExtensions = "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status " +
		"replicasets replicasets/scale replicasets/status replicationcontrollers/scale networkpolicies"
)

// viewRules let one see what is in a namespace, but for what would give rights away: secrets, roles.
func viewRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		allow(read, "core", "pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status endpoints "+
			"persistentvolumeclaims persistentvolumeclaims/status configmaps"),
		allow(read, "core", "limitranges resourcequotas bindings pods/status resourcequotas/status namespaces/status "+
			"replicationcontrollers/status pods/log"),
		allow(read, "core", "namespaces"),
		allow(read, "core events.k8s.io", "events"),
		allow(read, "discovery.k8s.io", "endpointslices"),
		allow(read, "apps", workloadsOfApps),
		allow(read, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
		allow(read, "batch", "jobs cronjobs cronjobs/status jobs/status"),
		allow(read, "extensions", workloadsOfExtensions),
		allow(read, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
		allow(read, "networking.k8s.io", "networkpolicies ingresses ingresses/status"),
		allow(read, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
	}
}

// editRules let one also change what runs in a namespace, and act as its service accounts.
func editRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		allow(read, "core", "pods/attach pods/proxy pods/exec pods/portforward secrets services/proxy"),
		allow("impersonate", "core", "serviceaccounts"),
		allow(write, "core", "pods pods/attach pods/proxy pods/exec pods/portforward"),
		allow("create", "core", "pods/eviction"),
		allow(write, "core", "replicationcontrollers replicationcontrollers/scale serviceaccounts services services/proxy "+
			"persistentvolumeclaims configmaps secrets"),
		allow("create", "core", "serviceaccounts/token"),
		allow(write, "core events.k8s.io", "events"),
		allow(write, "apps", "statefulsets statefulsets/scale daemonsets deployments deployments/scale deployments/rollback "+
			"replicasets replicasets/scale"),
		allow(write, "autoscaling", "horizontalpodautoscalers"),
		allow(write, "batch", "jobs cronjobs"),
		allow(write, "extensions", "daemonsets deployments deployments/scale deployments/rollback ingresses replicasets replicasets/scale "+
			"replicationcontrollers/scale networkpolicies"),
		allow(write, "policy", "poddisruptionbudgets"),
		allow(write, "networking.k8s.io", "networkpolicies ingresses"),
		allow(all, "coordination.k8s.io", "leases"),
		allow(write, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
	}
}

// adminRules let one also give rights within a namespace.
func adminRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		allow("create", "authorization.k8s.io", "localsubjectaccessreviews"),
		allow(all, "rbac.authorization.k8s.io", "roles rolebindings"),
	}
}
