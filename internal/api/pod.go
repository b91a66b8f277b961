package api

import (
	"context"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/pod"
)

// ValidateBinding checks a request to bind a Pod to a node.
func ValidateBinding(b *corev1.Binding) field.ErrorList { return pod.ValidateBinding(b) }

func podKind() *Kind {
	spec, status := corev1.PodSpec{}.SwaggerDoc(), corev1.PodStatus{}.SwaggerDoc()
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Pod"),
		Resource:         "pods", Singular: "pod", ShortNames: []string{"po"}, Categories: []string{"all"},
		Namespaced: true,
		New:        func() runtime.Object { return &corev1.Pod{} },
		NewList:    func() runtime.Object { return &corev1.PodList{} },

		Default:                  defaulter(pod.Default),
		PrepareForCreate:         onCreate(pod.PrepareForCreate),
		PrepareForUpdate:         onUpdate(pod.PrepareForUpdate),
		Validate:                 check(pod.Validate),
		ValidateUpdate:           checkUpdate(pod.ValidateUpdate),
		Warnings:                 podWarnings,
		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(),
			column("Ready", "string", "The aggregate readiness state of this pod for accepting traffic."),
			column("Status", "string", "The aggregate status of the containers in this pod."),
			column("Restarts", "string", "The number of times the containers in this pod have been restarted and when the last "+
				"container in this pod has restarted."),
			ageColumn(),
			wide("IP", status["podIP"]),
			wide("Node", spec["nodeName"]),
			wide("Nominated Node", status["nominatedNodeName"]),
			wide("Readiness Gates", spec["readinessGates"]),
		},
		Row:         row(podRow),
		Completed:   podCompleted,
		Fields:      selectable(podFields),
		FieldLabels: podFieldLabels(),
		Status: &Subresource{
			PrepareForUpdate: onUpdate(pod.PrepareStatus),
			ValidateUpdate:   checkUpdate(pod.ValidateStatusUpdate),
			ResetFields:      []string{"spec", "metadata.deletionTimestamp", "metadata.ownerReferences"},
		},
		EphemeralContainers: &Subresource{
			PrepareForUpdate: onUpdate(pod.PrepareEphemeral),
			ValidateUpdate:   checkUpdate(pod.ValidateEphemeralUpdate),
			ResetFields:      []string{"status"},
		},
		Resize: &Subresource{
			PrepareForUpdate: onUpdate(pod.PrepareResize),
			ValidateUpdate:   checkUpdate(pod.ValidateResize),
			OwnFields: []string{"spec.containers.*.resources", "spec.containers.*.resizePolicy",
				"spec.initContainers.*.resources", "spec.initContainers.*.resizePolicy"},
		},
		Graceful: func(_ context.Context, obj runtime.Object, options *metav1.DeleteOptions) bool {
			return pod.Graceful(obj.(*corev1.Pod), options)
		},
	}
}

// podWarnings warns when a Pod is made; people seldom change Pods, and agents do it often.
func podWarnings(_ context.Context, obj, old runtime.Object) []string {
	if old != nil {
		return nil
	}
	return pod.Warnings(obj.(*corev1.Pod))
}

func podFields(p *corev1.Pod) fields.Set {
	ip := ""
	if len(p.Status.PodIPs) > 0 {
		ip = p.Status.PodIPs[0].IP
	}
	return fields.Set{
		"spec.nodeName":            p.Spec.NodeName,
		"spec.restartPolicy":       string(p.Spec.RestartPolicy),
		"spec.schedulerName":       p.Spec.SchedulerName,
		"spec.serviceAccountName":  p.Spec.ServiceAccountName,
		"spec.hostNetwork":         strconv.FormatBool(p.Spec.HostNetwork),
		"status.phase":             string(p.Status.Phase),
		"status.podIP":             ip,
		"status.nominatedNodeName": p.Status.NominatedNodeName,
	}
}

// podFieldLabels are the selectable fields and their older names.
func podFieldLabels() map[string]string {
	labels := map[string]string{"spec.host": "spec.nodeName"}
	for name := range podFields(&corev1.Pod{}) {
		labels[name] = name
	}
	return labels
}
