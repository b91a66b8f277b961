package api

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/pod"
	"carob.dev/carob/internal/api/rule"
)

func validateNode(n *corev1.Node) field.ErrorList {
	errs := rule.Meta(&n.ObjectMeta, false, apivalidation.NameIsDNSSubdomain)
	errs = append(errs, validateTaints(n.Spec.Taints)...)
	errs = append(errs, validateNodeResources(&n.Status)...)
	if n.Spec.ConfigSource != nil {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "configSource"), "configSource is deprecated and has no effect"))
	}
	at := field.NewPath("spec", "podCIDRs")
	families := map[bool]int{}
	for i, cidr := range n.Spec.PodCIDRs {
		errs = append(errs, rule.CIDR(at.Index(i), cidr)...)
		if p, err := netip.ParsePrefix(cidr); err == nil {
			families[p.Addr().Is4()]++
		}
	}
	if len(n.Spec.PodCIDRs) > 1 && (len(n.Spec.PodCIDRs) > 2 || families[true] != 1 || families[false] != 1) {
		errs = append(errs, field.Invalid(at, n.Spec.PodCIDRs, "may specify no more than one CIDR for each IP family"))
	}
	return errs
}

// validateTaints reports taints under metadata, as Kubernetes does.
func validateTaints(taints []corev1.Taint) field.ErrorList {
	var errs field.ErrorList
	type kind struct {
		key    string
		effect corev1.TaintEffect
	}
	seen := map[kind]bool{}
	for i, t := range taints {
		at := field.NewPath("metadata", "taints").Index(i)
		errs = append(errs, metav1validation.ValidateLabelName(t.Key, at.Child("key"))...)
		if wrong := validation.IsValidLabelValue(t.Value); len(wrong) > 0 {
			errs = append(errs, field.Invalid(at.Child("value"), t.Value, strings.Join(wrong, ";")))
		}
		errs = append(errs, pod.TaintEffect(at.Child("effect"), t.Effect)...)
		if seen[kind{t.Key, t.Effect}] {
			again := field.Duplicate(at, t)
			again.Detail = "taints must be unique by key and effect pair"
			errs = append(errs, again)
		}
		seen[kind{t.Key, t.Effect}] = true
	}
	return errs
}

func validateNodeResources(s *corev1.NodeStatus) field.ErrorList {
	var errs field.ErrorList
	for _, list := range []struct {
		name string
		list corev1.ResourceList
	}{{"capacity", s.Capacity}, {"allocatable", s.Allocatable}} {
		for name, q := range list.list {
			errs = append(errs, rule.Quantity(field.NewPath("status", list.name, string(name)), name, q)...)
		}
	}
	return errs
}

// validateNodeUpdate checks a changed node, also through its status. Pod ranges and the provider's ID stay once they are set.
func validateNodeUpdate(n, old *corev1.Node) field.ErrorList {
	errs := rule.MetaUpdate(&n.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, validateNodeResources(&n.Status)...)
	seen := map[corev1.NodeAddress]bool{}
	for i, a := range n.Status.Addresses {
		if seen[a] {
			errs = append(errs, field.Duplicate(field.NewPath("status", "addresses").Index(i), a))
		}
		seen[a] = true
	}
	if len(old.Spec.PodCIDRs) > 0 && !slices.Equal(n.Spec.PodCIDRs, old.Spec.PodCIDRs) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "podCIDRs"), "node updates may not change podCIDR except from \"\" to valid"))
	}
	if was := old.Spec.ProviderID; was != "" && n.Spec.ProviderID != was {
		why := "field cannot be modified once set"
		if n.Spec.ProviderID == "" {
			why = "field cannot be cleared once set"
		}
		errs = append(errs, field.Invalid(field.NewPath("spec", "providerID"), nil, why))
	}
	errs = append(errs, validateTaints(n.Spec.Taints)...)
	if n.Spec.DoNotUseExternalID != old.Spec.DoNotUseExternalID {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "externalID"), "may not be updated"))
	}
	return errs
}

func nodeWarnings(_ context.Context, obj, _ runtime.Object) []string {
	n := obj.(*corev1.Node)
	var warnings []string
	if n.Spec.DoNotUseExternalID != "" {
		warnings = append(warnings, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	for i, cidr := range n.Spec.PodCIDRs {
		warnings = append(warnings, validation.GetWarningsForCIDR(field.NewPath("spec", "podCIDRs").Index(i), cidr)...)
	}
	return warnings
}
