package podstate

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	podrule "carob.dev/carob/internal/api/pod"
)

// Kind tells what a container is in its Pod.
type Kind int

// The kinds. A sidecar is an init container with restartPolicy Always.
const (
	App Kind = iota
	Init
	Sidecar
	Ephemeral
)

// Spec is a container of the Pod with its kind.
type Spec struct {
	*corev1.Container
	Kind Kind
	// Target is the container whose process namespace an ephemeral one joins; empty for the Pod's.
	Target string
}

// containersOf lists all containers: init ones and sidecars in order, app containers, ephemeral ones.
func containersOf(pod *corev1.Pod) []Spec {
	list := make([]Spec, 0, len(pod.Spec.InitContainers)+len(pod.Spec.Containers)+len(pod.Spec.EphemeralContainers))
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		kind := Init
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			kind = Sidecar
		}
		list = append(list, Spec{Container: c, Kind: kind})
	}
	for i := range pod.Spec.Containers {
		list = append(list, Spec{Container: &pod.Spec.Containers[i], Kind: App})
	}
	for i := range pod.Spec.EphemeralContainers {
		e := &pod.Spec.EphemeralContainers[i]
		c := corev1.Container(e.EphemeralContainerCommon)
		list = append(list, Spec{Container: &c, Kind: Ephemeral, Target: e.TargetContainerName})
	}
	return list
}

// Find returns the named container of the Pod.
func Find(pod *corev1.Pod, name string) (Spec, bool) {
	for _, c := range containersOf(pod) {
		if c.Name == name {
			return c, true
		}
	}
	return Spec{}, false
}

// Containers lists all containers of the Pod: init ones and sidecars in order, app containers, ephemeral ones.
func Containers(pod *corev1.Pod) []Spec { return containersOf(pod) }

// restarts says whether an ended container is to be started again.
func restarts(pod *corev1.Pod, c Spec, code int32) bool {
	switch {
	case c.Kind == Ephemeral:
		return false
	case c.Kind == Init && code == 0: // it has done its part, but for a rule about that
		return podrule.RestartRule(c.Container, code) != ""
	}
	return podrule.Restarts(&pod.Spec, c.Container, code)
}

// again says whether an ended instance is to be followed by another.
func again(pod *corev1.Pod, spec Spec, c *Container) bool {
	return c.Changed || restarts(pod, spec, c.Exit.Code)
}

// scheme is what container IDs in the API begin with.
const scheme = "://"

// shown is a container's ID as the API has it.
func (f *Facts) shown(id string) string {
	if f.Runtime == "" {
		return "carob" + scheme + id
	}
	return f.Runtime + scheme + id
}

func trimScheme(id string) string {
	if _, after, ok := strings.Cut(id, scheme); ok {
		return after
	}
	return id
}
