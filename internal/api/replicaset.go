package api

import (
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/pod"
	"carob.dev/carob/internal/api/rule"
)

func replicaSetKind() *Kind {
	doc, status := appsv1.ReplicaSetSpec{}.SwaggerDoc(), appsv1.ReplicaSetStatus{}.SwaggerDoc()
	return &Kind{
		GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
		Resource:         "replicasets", Singular: "replicaset", ShortNames: []string{"rs"}, Categories: []string{"all"},
		Namespaced: true,
		New:        func() runtime.Object { return &appsv1.ReplicaSet{} },
		NewList:    func() runtime.Object { return &appsv1.ReplicaSetList{} },

		Default: defaulter(func(r *appsv1.ReplicaSet) {
			pod.DefaultTemplate(&r.Spec.Template)
			fill(&r.Spec.Replicas, 1)
		}),
		PrepareForCreate: onCreate(func(r *appsv1.ReplicaSet) {
			r.Status = appsv1.ReplicaSetStatus{}
			r.Generation = 1
		}),
		PrepareForUpdate: onUpdate(func(r, old *appsv1.ReplicaSet) {
			r.Status = old.Status
			if !equality.Semantic.DeepEqual(r.Spec, old.Spec) {
				r.Generation = old.Generation + 1
			}
		}),
		Validate: check(func(r *appsv1.ReplicaSet) field.ErrorList {
			return append(rule.Meta(&r.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), validateReplicaSetSpec(&r.Spec)...)
		}),
		ValidateUpdate: checkUpdate(func(r, old *appsv1.ReplicaSet) field.ErrorList {
			errs := append(rule.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta), validateReplicaSetSpec(&r.Spec)...)
			return append(errs, rule.Immutable(field.NewPath("spec", "selector"), r.Spec.Selector, old.Spec.Selector)...)
		}),
		Warnings:                 workloadWarnings(func(r *appsv1.ReplicaSet) *corev1.PodTemplateSpec { return &r.Spec.Template }),
		AllowUnconditionalUpdate: true,

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
		Row: row(func(r *appsv1.ReplicaSet, now time.Time) []any {
			names, images := containerCells(r.Spec.Template.Spec.Containers)
			return []any{
				r.Name, int64(ptr.Deref(r.Spec.Replicas, 1)), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas), age(r.CreationTimestamp, now),
				names, images, metav1.FormatLabelSelector(r.Spec.Selector),
			}
		}),
		Fields: selectable(func(r *appsv1.ReplicaSet) fields.Set {
			return fields.Set{"status.replicas": strconv.Itoa(int(r.Status.Replicas))}
		}),
		Status: &Subresource{
			PrepareForUpdate: onUpdate(func(r, old *appsv1.ReplicaSet) { r.Spec = old.Spec }),
			ValidateUpdate:   checkUpdate(validateReplicaSetStatus),
			ResetFields:      []string{"spec"},
		},
		Scale: &Scale{
			Get: func(obj runtime.Object) (int32, int32, string, error) {
				r := obj.(*appsv1.ReplicaSet)
				selector, err := selectorString(r.Spec.Selector)
				return ptr.Deref(r.Spec.Replicas, 1), r.Status.Replicas, selector, err
			},
			Set: func(obj runtime.Object, replicas int32) { obj.(*appsv1.ReplicaSet).Spec.Replicas = &replicas },
		},
	}
}

func validateReplicaSetSpec(s *appsv1.ReplicaSetSpec) field.ErrorList {
	at := field.NewPath("spec")
	errs := rule.NonNegative(at.Child("replicas"), int64(ptr.Deref(s.Replicas, 1)))
	errs = append(errs, rule.NonNegative(at.Child("minReadySeconds"), int64(s.MinReadySeconds))...)
	return append(errs, validateWorkload(at, s.Selector, &s.Template)...)
}

func validateReplicaSetStatus(r, old *appsv1.ReplicaSet) field.ErrorList {
	at, s := field.NewPath("status"), &r.Status
	errs := rule.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, rule.NonNegative(at.Child("observedGeneration"), s.ObservedGeneration)...)
	return append(errs, validateCounts(at, s.Replicas,
		count{"fullyLabeledReplicas", s.FullyLabeledReplicas}, count{"readyReplicas", s.ReadyReplicas},
		count{"availableReplicas", s.AvailableReplicas}, count{"terminatingReplicas", ptr.Deref(s.TerminatingReplicas, 0)})...)
}
