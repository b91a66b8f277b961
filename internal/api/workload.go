package api

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/pod"
	"carob.dev/carob/internal/api/rule"
)

// This file is what the kinds that keep Pods alive have in common.

// validateWorkload checks a selector and the template it must match, whose Pods run for ever.
func validateWorkload(spec *field.Path, s *metav1.LabelSelector, t *corev1.PodTemplateSpec) field.ErrorList {
	var errs field.ErrorList
	at := spec.Child("selector")
	if s == nil {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, metav1validation.ValidateLabelSelector(s, metav1validation.LabelSelectorValidationOptions{}, at)...)
		if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
			errs = append(errs, field.Invalid(at, s, "empty selector is invalid for deployment"))
		}
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return append(errs, field.Invalid(at, s, "invalid label selector"))
	}
	template := spec.Child("template")
	if !selector.Empty() && !selector.Matches(labels.Set(t.Labels)) {
		errs = append(errs, field.Invalid(template.Child("metadata", "labels"), t.Labels, "`selector` does not match template `labels`"))
	}
	return append(errs, validateLasting(template, t, "activeDeadlineSeconds in ReplicaSet is not Supported")...)
}

// validateLasting checks the template of Pods that run for ever. noDeadline is said of one that has a deadline.
func validateLasting(template *field.Path, t *corev1.PodTemplateSpec, noDeadline string) field.ErrorList {
	errs := pod.ValidateTemplate(template, t)
	if t.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(template.Child("spec", "restartPolicy"), t.Spec.RestartPolicy,
			[]corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if t.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(template.Child("spec", "activeDeadlineSeconds"), noDeadline))
	}
	return errs
}

// workloadWarnings warns of a name that makes odd host names, and of the template where it is new.
func workloadWarnings[T interface {
	runtime.Object
	metav1.Object
}](template func(T) *corev1.PodTemplateSpec) func(context.Context, runtime.Object, runtime.Object) []string {
	return func(_ context.Context, obj, old runtime.Object) []string {
		now := obj.(T)
		var warnings []string
		if old == nil {
			if wrong := validation.IsDNS1123Label(now.GetName()); len(wrong) > 0 {
				warnings = append(warnings, fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, "+
					"which can result in surprising behavior; a DNS label is recommended: %v", wrong))
			}
		} else if old.(T).GetGeneration() == now.GetGeneration() {
			return nil
		}
		return append(warnings, pod.TemplateWarnings(field.NewPath("spec", "template"), template(now))...)
	}
}

// count is one number of a workload's status.
type count struct {
	name  string
	value int32
}

// validateCounts wants numbers of zero or more, and none greater than all replicas.
func validateCounts(at *field.Path, replicas int32, parts ...count) field.ErrorList {
	errs := rule.NonNegative(at.Child("replicas"), int64(replicas))
	ready := int32(0)
	for _, p := range parts {
		errs = append(errs, rule.NonNegative(at.Child(p.name), int64(p.value))...)
		if p.name == "readyReplicas" {
			ready = p.value
		}
	}
	for _, p := range parts {
		switch p.name {
		case "unavailableReplicas", "terminatingReplicas", "collisionCount":
			continue
		}
		if p.value > replicas {
			errs = append(errs, field.Invalid(at.Child(p.name), p.value, "cannot be greater than status.replicas"))
		}
		if p.name == "availableReplicas" && p.value > ready {
			errs = append(errs, field.Invalid(at.Child(p.name), p.value, "cannot be greater than readyReplicas"))
		}
	}
	return errs
}

// validateStrategy checks how a Deployment replaces its Pods.
func validateStrategy(at *field.Path, s *appsv1.DeploymentStrategy) field.ErrorList {
	rolling := at.Child("rollingUpdate")
	switch s.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if s.RollingUpdate != nil {
			return field.ErrorList{field.Forbidden(rolling, "may not be specified when strategy `type` is 'Recreate'")}
		}
		return nil
	case appsv1.RollingUpdateDeploymentStrategyType:
	default:
		return field.ErrorList{field.NotSupported(at, s,
			[]appsv1.DeploymentStrategyType{appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType})}
	}
	if s.RollingUpdate == nil {
		return field.ErrorList{field.Required(rolling, "this should be defaulted and never be nil")}
	}
	unavailable := ptr.Deref(s.RollingUpdate.MaxUnavailable, intstr.IntOrString{})
	surge := ptr.Deref(s.RollingUpdate.MaxSurge, intstr.IntOrString{})
	errs := intOrPercent(rolling.Child("maxUnavailable"), unavailable)
	errs = append(errs, intOrPercent(rolling.Child("maxSurge"), surge)...)
	if amount(unavailable) == 0 && amount(surge) == 0 {
		errs = append(errs, field.Invalid(rolling.Child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0"))
	}
	if unavailable.Type == intstr.String && amount(unavailable) > 100 {
		errs = append(errs, field.Invalid(rolling.Child("maxUnavailable"), unavailable, "must not be greater than 100%"))
	}
	return errs
}

func intOrPercent(at *field.Path, v intstr.IntOrString) field.ErrorList {
	if v.Type == intstr.String {
		return rule.Messages(at, v, validation.IsValidPercent(v.StrVal))
	}
	return rule.NonNegative(at, int64(v.IntValue()))
}

// amount is the number in a count or in a percentage; 0 for text that is neither.
func amount(v intstr.IntOrString) int {
	if v.Type == intstr.Int {
		return v.IntValue()
	}
	n, err := strconv.Atoi(strings.TrimSuffix(v.StrVal, "%"))
	if err != nil {
		return 0
	}
	return n
}
