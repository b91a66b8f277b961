package api

// Kinds lists every kind that Carob serves, in the order in which discovery shows them. Each call makes new values.
func Kinds() []*Kind {
	return []*Kind{
		configMapKind(),
		endpointsKind(),
		eventKind(),
		namespaceKind(),
		nodeKind(),
		podKind(),
		podTemplateKind(),
		secretKind(),
		serviceKind(),
		serviceAccountKind(),
		controllerRevisionKind(),
		deploymentKind(),
		replicaSetKind(),
		leaseKind(),
		endpointSliceKind(),
		eventsEventKind(),
		runtimeClassKind(),
		clusterRoleBindingKind(),
		clusterRoleKind(),
		roleBindingKind(),
		roleKind(),
	}
}
