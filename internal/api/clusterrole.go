package api

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

func clusterRoleKind() *Kind {
	return &Kind{
		GroupVersionKind: rbacv1.SchemeGroupVersion.WithKind("ClusterRole"),
		Resource:         "clusterroles", Singular: "clusterrole",
		New:     func() runtime.Object { return &rbacv1.ClusterRole{} },
		NewList: func() runtime.Object { return &rbacv1.ClusterRoleList{} },

		Validate: check(validateClusterRole),
		ValidateUpdate: checkUpdate(func(r, old *rbacv1.ClusterRole) field.ErrorList {
			return append(validateClusterRole(r), rule.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta)...)
		}),
		AllowUnconditionalUpdate: true,
		// The table is the one that every kind without columns of its own has.
	}
}

func validateClusterRole(r *rbacv1.ClusterRole) field.ErrorList {
	errs := rule.Meta(&r.ObjectMeta, false, path.ValidatePathSegmentName)
	for i := range r.Rules {
		errs = append(errs, validatePolicyRule(field.NewPath("rules").Index(i), &r.Rules[i], false)...)
	}
	if r.AggregationRule == nil {
		return errs
	}
	at := field.NewPath("aggregationRule", "clusterRoleSelectors")
	if len(r.AggregationRule.ClusterRoleSelectors) == 0 {
		errs = append(errs, field.Required(at, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
	}
	for i := range r.AggregationRule.ClusterRoleSelectors {
		errs = append(errs, metav1validation.ValidateLabelSelector(
			&r.AggregationRule.ClusterRoleSelectors[i], metav1validation.LabelSelectorValidationOptions{}, at.Index(i))...)
	}
	return errs
}
