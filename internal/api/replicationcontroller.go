package api

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/pod"
	"carob.dev/carob/internal/api/rule"
)

func replicationControllerKind() *Kind {
	doc, status := corev1.ReplicationControllerSpec{}.SwaggerDoc(), corev1.ReplicationControllerStatus{}.SwaggerDoc()
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ReplicationController"),
		Resource:         "replicationcontrollers", Singular: "replicationcontroller", ShortNames: []string{"rc"}, Categories: []string{"all"},
		Namespaced: true,
		New:        func() runtime.Object { return &corev1.ReplicationController{} },
		NewList:    func() runtime.Object { return &corev1.ReplicationControllerList{} },

		Default: defaulter(defaultReplicationController),
		PrepareForCreate: onCreate(func(r *corev1.ReplicationController) {
			r.Status = corev1.ReplicationControllerStatus{}
			r.Generation = 1
		}),
		PrepareForUpdate: onUpdate(func(r, old *corev1.ReplicationController) {
			r.Status = old.Status
			if !equality.Semantic.DeepEqual(r.Spec, old.Spec) {
				r.Generation = old.Generation + 1
			}
		}),
		Validate: check(func(r *corev1.ReplicationController) field.ErrorList {
			return append(rule.Meta(&r.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), validateReplicationControllerSpec(&r.Spec)...)
		}),
		ValidateUpdate: checkUpdate(func(r, old *corev1.ReplicationController) field.ErrorList {
			return append(rule.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta), validateReplicationControllerSpec(&r.Spec)...)
		}),
		Warnings:                 workloadWarnings(func(r *corev1.ReplicationController) *corev1.PodTemplateSpec { return r.Spec.Template }),
		AllowUnconditionalUpdate: true,
		OrphanByDefault:          true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(),
			column("Desired", "integer", doc["replicas"]),
			column("Current", "integer", status["replicas"]),
			column("Ready", "integer", status["readyReplicas"]),
			ageColumn(),
			wide("Containers", "Names of each container in the template."),
			wide("Images", "Images referenced by each container in the template."),
			wide("Selector", doc["selector"]),
		},
		Row: row(func(r *corev1.ReplicationController, now time.Time) []any {
			names, images := containerCells(ptr.Deref(r.Spec.Template, corev1.PodTemplateSpec{}).Spec.Containers)
			return []any{
				r.Name, int64(ptr.Deref(r.Spec.Replicas, 1)), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas), age(r.CreationTimestamp, now),
				names, images, labels.FormatLabels(r.Spec.Selector),
			}
		}),
		Fields: selectable(func(r *corev1.ReplicationController) fields.Set {
			return fields.Set{"status.replicas": strconv.Itoa(int(r.Status.Replicas))}
		}),
		Status: &Subresource{
			PrepareForUpdate: onUpdate(func(r, old *corev1.ReplicationController) { r.Spec = old.Spec }),
			ValidateUpdate:   checkUpdate(validateReplicationControllerStatus),
			ResetFields:      []string{"spec"},
		},
		Scale: &Scale{
			Get: func(obj runtime.Object) (int32, int32, string, error) {
				r := obj.(*corev1.ReplicationController)
				return ptr.Deref(r.Spec.Replicas, 1), r.Status.Replicas, labels.Set(r.Spec.Selector).AsSelector().String(), nil
			},
			Set: func(obj runtime.Object, replicas int32) {
				obj.(*corev1.ReplicationController).Spec.Replicas = &replicas
			},
		},
	}
}

// defaultReplicationController takes what selects the Pods, and the labels, from the template where they are not given.
func defaultReplicationController(r *corev1.ReplicationController) {
	fill(&r.Spec.Replicas, 1)
	if r.Spec.Template == nil {
		return
	}
	pod.DefaultTemplate(r.Spec.Template)
	if l := r.Spec.Template.Labels; l != nil {
		if len(r.Spec.Selector) == 0 {
			r.Spec.Selector = l
		}
		if len(r.Labels) == 0 {
			r.Labels = l
		}
	}
}

func validateReplicationControllerSpec(s *corev1.ReplicationControllerSpec) field.ErrorList {
	at := field.NewPath("spec")
	errs := rule.NonNegative(at.Child("minReadySeconds"), int64(s.MinReadySeconds))
	if len(s.Selector) == 0 {
		errs = append(errs, field.Required(at.Child("selector"), ""))
	}
	errs = append(errs, rule.NonNegative(at.Child("replicas"), int64(ptr.Deref(s.Replicas, 1)))...)
	template := at.Child("template")
	if s.Template == nil {
		return append(errs, field.Required(template, ""))
	}
	if selector := labels.Set(s.Selector).AsSelectorPreValidated(); !selector.Empty() && !selector.Matches(labels.Set(s.Template.Labels)) {
		errs = append(errs, field.Invalid(template.Child("metadata", "labels"), s.Template.Labels, "`selector` does not match template `labels`"))
	}
	return append(errs, validateLasting(template, s.Template, "activeDeadlineSeconds in ReplicationController is not Supported")...)
}

func validateReplicationControllerStatus(r, old *corev1.ReplicationController) field.ErrorList {
	at, s := field.NewPath("status"), &r.Status
	errs := rule.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, rule.NonNegative(at.Child("observedGeneration"), s.ObservedGeneration)...)
	return append(errs, validateCounts(at, s.Replicas,
		count{"fullyLabeledReplicas", s.FullyLabeledReplicas}, count{"readyReplicas", s.ReadyReplicas},
		count{"availableReplicas", s.AvailableReplicas})...)
}
