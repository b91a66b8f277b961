package api

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

func roleKind() *Kind {
	return &Kind{
		GroupVersionKind: rbacv1.SchemeGroupVersion.WithKind("Role"),
		Resource:         "roles", Singular: "role",
		Namespaced: true,
		New:        func() runtime.Object { return &rbacv1.Role{} },
		NewList:    func() runtime.Object { return &rbacv1.RoleList{} },

		Validate: check(validateRole),
		ValidateUpdate: checkUpdate(func(r, old *rbacv1.Role) field.ErrorList {
			return append(validateRole(r), rule.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta)...)
		}),
		AllowUnconditionalUpdate: true,
		// The table is the one that every kind without columns of its own has.
	}
}

func validateRole(r *rbacv1.Role) field.ErrorList {
	errs := rule.Meta(&r.ObjectMeta, true, path.ValidatePathSegmentName)
	for i := range r.Rules {
		errs = append(errs, validatePolicyRule(field.NewPath("rules").Index(i), &r.Rules[i], true)...)
	}
	return errs
}

func validatePolicyRule(at *field.Path, r *rbacv1.PolicyRule, namespaced bool) field.ErrorList {
	var errs field.ErrorList
	if len(r.Verbs) == 0 {
		errs = append(errs, field.Required(at.Child("verbs"), "verbs must contain at least one value"))
	}
	if len(r.NonResourceURLs) > 0 {
		if namespaced {
			errs = append(errs, field.Invalid(at.Child("nonResourceURLs"), r.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs"))
		}
		if len(r.APIGroups)+len(r.Resources)+len(r.ResourceNames) > 0 {
			errs = append(errs, field.Invalid(at.Child("nonResourceURLs"), r.NonResourceURLs,
				"rules cannot apply to both regular resources and non-resource URLs"))
		}
		return errs
	}
	if len(r.APIGroups) == 0 {
		errs = append(errs, field.Required(at.Child("apiGroups"), "resource rules must supply at least one api group"))
	}
	if len(r.Resources) == 0 {
		errs = append(errs, field.Required(at.Child("resources"), "resource rules must supply at least one resource"))
	}
	return errs
}
