// Package pod is what the API does with Pods and with the templates of Pods in other kinds: defaults, validation, what may
// change later, warnings, the quality-of-service class. The rules, field paths and messages are those of Kubernetes.
//
// It imports rule only. Every function is pure; those named Default and Prepare change the object they are given.
//
// Invariant: a field that Carob does not act on yet is refused in unsupported.go, never ignored. A test walks the whole PodSpec
// type and fails when a field is neither known as supported nor refused.
package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// eachContainer visits init, ordinary and ephemeral containers, each with its path under spec. An ephemeral container is visited
// as a Container that shares its fields with the original.
func eachContainer(spec *corev1.PodSpec, path *field.Path, visit func(c *corev1.Container, path *field.Path)) {
	for i := range spec.InitContainers {
		visit(&spec.InitContainers[i], path.Child("initContainers").Index(i))
	}
	for i := range spec.Containers {
		visit(&spec.Containers[i], path.Child("containers").Index(i))
	}
	for i := range spec.EphemeralContainers {
		visit((*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon), path.Child("ephemeralContainers").Index(i))
	}
}

func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}
