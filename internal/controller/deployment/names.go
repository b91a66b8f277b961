package deployment

// The annotations that Kubernetes keeps on Deployments and their ReplicaSets; kubectl reads them.
const (
	// annotationRevision is the number of a rollout, on both.
	annotationRevision = "deployment.kubernetes.io/revision"
	// annotationHistory lists the earlier revisions that a ReplicaSet was, separated by commas.
	annotationHistory = "deployment.kubernetes.io/revision-history"
	// annotationDesired is the Deployment's spec.replicas when the ReplicaSet was last scaled: a difference is a scaling event.
	annotationDesired = "deployment.kubernetes.io/desired-replicas"
	// annotationMax is spec.replicas plus maxSurge at that time: the base of proportions.
	annotationMax = "deployment.kubernetes.io/max-replicas"
	// annotationLastApplied is kubectl apply's; it is not copied to ReplicaSets.
	annotationLastApplied = "kubectl.kubernetes.io/last-applied-configuration"
	// annotationRollbackTo is a request of an API version long gone; it is not copied and not obeyed.
	annotationRollbackTo = "deprecated.deployment.rollback.to"
)

// maxHistory is the most characters that annotationHistory may grow to.
const maxHistory = 2000

// The reasons of conditions.
const (
	reasonReplicaSetUpdated     = "ReplicaSetUpdated"
	reasonReplicaSetCreateError = "ReplicaSetCreateError"
	reasonNewReplicaSetCreated  = "NewReplicaSetCreated"
	reasonFoundNewReplicaSet    = "FoundNewReplicaSet"
	reasonNewAvailable          = "NewReplicaSetAvailable"
	reasonDeadlineExceeded      = "ProgressDeadlineExceeded"
	reasonPaused                = "DeploymentPaused"
	reasonResumed               = "DeploymentResumed"
	reasonMinimumAvailable      = "MinimumReplicasAvailable"
	reasonMinimumUnavailable    = "MinimumReplicasUnavailable"
)
