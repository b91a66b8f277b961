package bootstrap

import rbacv1 "k8s.io/api/rbac/v1"

// NodeRules are the rules of system:node. The Node authorizer narrows them to what belongs to the node, and NodeRestriction to what a node
// may write.
func NodeRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		allow("create", "authentication.k8s.io", "tokenreviews"),
		allow("create", "authorization.k8s.io", "subjectaccessreviews localsubjectaccessreviews"),
		allow(read, "core", "services"),
		allow("create "+read, "core", "nodes"),
		allow("update patch", "core", "nodes/status"),
		allow("update patch", "core", "nodes"),
		writeEvents(),
		allow(read, "core", "pods"),
		allow("create delete", "core", "pods"),
		allow("update patch", "core", "pods/status"),
		allow("create", "core", "pods/eviction"),
		allow(read, "core", "secrets configmaps"),
		allow("get", "core", "persistentvolumeclaims persistentvolumes"),
		allow("get", "core", "endpoints"),
		allow("create "+read, "certificates.k8s.io", "certificatesigningrequests"),
		allow("get create update patch delete", "coordination.k8s.io", "leases"),
		allow("get", "storage.k8s.io", "volumeattachments"),
		allow("create", "core", "serviceaccounts/token"),
		allow("get update patch", "core", "persistentvolumeclaims/status"),
		allow(read, "storage.k8s.io", "csidrivers"),
		allow("get create update patch delete", "storage.k8s.io", "csinodes"),
		allow(read, "node.k8s.io", "runtimeclasses"),
		allow("get", "resource.k8s.io", "resourceclaims"),
		allow("deletecollection", "resource.k8s.io", "resourceslices"),
		allow(read, "certificates.k8s.io", "clustertrustbundles"),
		allow("get", "core", "serviceaccounts"),
		allow(read+" create", "certificates.k8s.io", "podcertificaterequests"),
	}
}

func schedulerRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		writeEvents(),
		allow("create", "coordination.k8s.io", "leases"),
		allow("get update list watch", "coordination.k8s.io", "leases", "kube-scheduler"),
		allow(all, "coordination.k8s.io", "leasecandidates"),
		allow(read, "core", "nodes"),
		allow(read+" delete", "core", "pods"),
		allow("create", "core", "pods/binding bindings"),
		allow("patch update", "core", "pods/status"),
		allow(read, "core", "services replicationcontrollers"),
		allow(read, "apps extensions", "replicasets"),
		allow(read, "apps", "statefulsets"),
		allow(read, "policy", "poddisruptionbudgets"),
		allow(read, "core", "persistentvolumeclaims persistentvolumes"),
		allow("create", "authentication.k8s.io", "tokenreviews"),
		allow("create", "authorization.k8s.io", "subjectaccessreviews"),
		allow(read, "storage.k8s.io", "csinodes"),
		allow(read, "storage.k8s.io", "volumeattachments"),
		allow(read, "core", "namespaces"),
		allow(read, "storage.k8s.io", "csidrivers"),
		allow(read, "storage.k8s.io", "csistoragecapacities"),
		allow(read, "resource.k8s.io", "deviceclasses resourceslices devicetaintrules"),
		allow(read+" update patch", "resource.k8s.io", "resourceclaims"),
		allow(read+" update patch", "resource.k8s.io", "resourceclaims/status"),
		allow("update patch", "resource.k8s.io", "resourceclaims/binding"),
		allow("update", "core", "pods/finalizers"),
		allow("create delete", "resource.k8s.io", "resourceclaims"),
	}
}

func controllerManagerRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		writeEvents(),
		allow("create", "coordination.k8s.io", "leases"),
		allow("get update", "coordination.k8s.io", "leases", "kube-controller-manager"),
		allow("create", "core", "secrets serviceaccounts"),
		allow("delete", "core", "secrets"),
		allow("get", "core", "namespaces secrets serviceaccounts configmaps"),
		allow("update", "core", "secrets serviceaccounts"),
		allow("create", "authentication.k8s.io", "tokenreviews"),
		allow("create", "authorization.k8s.io", "subjectaccessreviews"),
		allow("list watch", "*", "*"),
		allow("create", "core", "serviceaccounts/token"),
	}
}

// approver may approve what a signer of Kubernetes shall sign.
func approver(name, signer string) *rbacv1.ClusterRole {
	return clusterRole("system:certificates.k8s.io:"+name+"-approver", allow("approve", "certificates.k8s.io", "signers", "kubernetes.io/"+signer))
}
