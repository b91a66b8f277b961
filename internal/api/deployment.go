package api

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/pod"
	"carob.dev/carob/internal/api/rule"
)

func deploymentKind() *Kind {
	doc := appsv1.DeploymentStatus{}.SwaggerDoc()
	return &Kind{
		GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("Deployment"),
		Resource:         "deployments", Singular: "deployment", ShortNames: []string{"deploy"}, Categories: []string{"all"},
		Namespaced: true,
		New:        func() runtime.Object { return &appsv1.Deployment{} },
		NewList:    func() runtime.Object { return &appsv1.DeploymentList{} },

		Default: defaulter(defaultDeployment),
		PrepareForCreate: onCreate(func(d *appsv1.Deployment) {
			d.Status = appsv1.DeploymentStatus{}
			d.Generation = 1
		}),
		PrepareForUpdate: onUpdate(prepareDeploymentUpdate),
		Validate: check(func(d *appsv1.Deployment) field.ErrorList {
			return append(rule.Meta(&d.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), validateDeploymentSpec(&d.Spec)...)
		}),
		ValidateUpdate: checkUpdate(func(d, old *appsv1.Deployment) field.ErrorList {
			errs := append(rule.MetaUpdate(&d.ObjectMeta, &old.ObjectMeta), validateDeploymentSpec(&d.Spec)...)
			return append(errs, rule.Immutable(field.NewPath("spec", "selector"), d.Spec.Selector, old.Spec.Selector)...)
		}),
		Warnings:                 workloadWarnings(func(d *appsv1.Deployment) *corev1.PodTemplateSpec { return &d.Spec.Template }),
		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(),
			column("Ready", "string", "Number of the pod with ready state"),
			column("Up-to-date", "string", doc["updatedReplicas"]),
			column("Available", "string", doc["availableReplicas"]),
			ageColumn(),
			wide("Containers", "Names of each container in the template."),
			wide("Images", "Images referenced by each container in the template."),
			wide("Selector", appsv1.DeploymentSpec{}.SwaggerDoc()["selector"]),
		},
		Row: row(deploymentRow),
		Status: &Subresource{
			PrepareForUpdate: onUpdate(func(d, old *appsv1.Deployment) { d.Spec, d.Labels = old.Spec, old.Labels }),
			ValidateUpdate:   checkUpdate(validateDeploymentStatus),
			ResetFields:      []string{"spec", "metadata.labels"},
		},
		Scale: &Scale{
			Get: func(obj runtime.Object) (int32, int32, string, error) {
				d := obj.(*appsv1.Deployment)
				selector, err := selectorString(d.Spec.Selector)
				return ptr.Deref(d.Spec.Replicas, 1), d.Status.Replicas, selector, err
			},
			Set: func(obj runtime.Object, replicas int32) { obj.(*appsv1.Deployment).Spec.Replicas = &replicas },
		},
	}
}

func defaultDeployment(d *appsv1.Deployment) {
	s := &d.Spec
	pod.DefaultTemplate(&s.Template)
	fill(&s.Replicas, 1)
	fill(&s.RevisionHistoryLimit, 10)
	fill(&s.ProgressDeadlineSeconds, 600)
	if s.Strategy.Type == "" {
		s.Strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if s.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
		return
	}
	if s.Strategy.RollingUpdate == nil {
		s.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{}
	}
	fill(&s.Strategy.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
	fill(&s.Strategy.RollingUpdate.MaxSurge, intstr.FromString("25%"))
}

// fill gives a field its default where it has no value.
func fill[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}

// prepareDeploymentUpdate counts changed annotations as a new generation too: they are copied to the ReplicaSets.
func prepareDeploymentUpdate(d, old *appsv1.Deployment) {
	d.Status = old.Status
	if !equality.Semantic.DeepEqual(d.Spec, old.Spec) || !equality.Semantic.DeepEqual(d.Annotations, old.Annotations) {
		d.Generation = old.Generation + 1
	}
}

func validateDeploymentSpec(s *appsv1.DeploymentSpec) field.ErrorList {
	at := field.NewPath("spec")
	errs := rule.NonNegative(at.Child("replicas"), int64(ptr.Deref(s.Replicas, 1)))
	errs = append(errs, validateWorkload(at, s.Selector, &s.Template)...)
	errs = append(errs, validateStrategy(at.Child("strategy"), &s.Strategy)...)
	errs = append(errs, rule.NonNegative(at.Child("minReadySeconds"), int64(s.MinReadySeconds))...)
	errs = append(errs, rule.NonNegative(at.Child("revisionHistoryLimit"), int64(ptr.Deref(s.RevisionHistoryLimit, 0)))...)
	if d := s.ProgressDeadlineSeconds; d != nil {
		errs = append(errs, rule.NonNegative(at.Child("progressDeadlineSeconds"), int64(*d))...)
		if *d <= s.MinReadySeconds {
			errs = append(errs, field.Invalid(at.Child("progressDeadlineSeconds"), d, "must be greater than minReadySeconds"))
		}
	}
	return errs
}

func validateDeploymentStatus(d, old *appsv1.Deployment) field.ErrorList {
	at, s := field.NewPath("status"), &d.Status
	errs := rule.MetaUpdate(&d.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, rule.NonNegative(at.Child("observedGeneration"), s.ObservedGeneration)...)
	errs = append(errs, validateCounts(at, s.Replicas,
		count{"updatedReplicas", s.UpdatedReplicas}, count{"readyReplicas", s.ReadyReplicas}, count{"availableReplicas", s.AvailableReplicas},
		count{"unavailableReplicas", s.UnavailableReplicas}, count{"terminatingReplicas", ptr.Deref(s.TerminatingReplicas, 0)},
		count{"collisionCount", ptr.Deref(s.CollisionCount, 0)})...)
	if was, now := ptr.Deref(old.Status.CollisionCount, 0), ptr.Deref(s.CollisionCount, 0); now < was {
		errs = append(errs, field.Invalid(at.Child("collisionCount"), now, "cannot be decremented"))
	}
	return errs
}

func deploymentRow(d *appsv1.Deployment, now time.Time) []any {
	selector, err := selectorString(d.Spec.Selector)
	if err != nil {
		selector = "<invalid>"
	}
	names, images := containerCells(d.Spec.Template.Spec.Containers)
	return []any{
		d.Name, fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, ptr.Deref(d.Spec.Replicas, 1)),
		int64(d.Status.UpdatedReplicas), int64(d.Status.AvailableReplicas), age(d.CreationTimestamp, now),
		names, images, selector,
	}
}

// selectorString writes a label selector in the form that requests take.
func selectorString(s *metav1.LabelSelector) (string, error) {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return "", err
	}
	return selector.String(), nil
}
