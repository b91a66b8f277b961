package agent

import (
	corev1 "k8s.io/api/core/v1"

	"carob.dev/carob/internal/agent/podstate"
)

// Reasons that the runtime gives for the end of all that ran in a Pod, which are told as events too.
const (
	reasonShimDied    = "ShimDied"
	reasonShimVersion = "ShimVersion"
)

// event writes an event about the Pod.
func (w *worker) event(kind, reason, message string) {
	w.a.cfg.Recorder.Event(w.ref(""), kind, reason, message)
}

// containerEvent writes one about one of its containers.
func (w *worker) containerEvent(name, kind, reason, message string) {
	w.a.cfg.Recorder.Event(w.containerRef(name), kind, reason, message)
}

func (w *worker) ref(field string) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: w.pod.Namespace, Name: w.pod.Name, UID: w.pod.UID,
		ResourceVersion: w.pod.ResourceVersion, FieldPath: field}
}

func (w *worker) containerRef(name string) *corev1.ObjectReference {
	list := "spec.containers"
	if spec, ok := podstate.Find(w.pod, name); ok {
		switch spec.Kind {
		case podstate.Init, podstate.Sidecar:
			list = "spec.initContainers"
		case podstate.Ephemeral:
			list = "spec.ephemeralContainers"
		}
	}
	return w.ref(list + "{" + name + "}")
}
