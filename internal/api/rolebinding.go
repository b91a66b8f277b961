package api

import (
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

func roleBindingKind() *Kind {
	return &Kind{
		GroupVersionKind: rbacv1.SchemeGroupVersion.WithKind("RoleBinding"),
		Resource:         "rolebindings", Singular: "rolebinding",
		Namespaced: true,
		New:        func() runtime.Object { return &rbacv1.RoleBinding{} },
		NewList:    func() runtime.Object { return &rbacv1.RoleBindingList{} },

		Default:  defaulter(func(b *rbacv1.RoleBinding) { defaultBinding(&b.RoleRef, b.Subjects) }),
		Validate: check(validateRoleBinding),
		ValidateUpdate: checkUpdate(func(b, old *rbacv1.RoleBinding) field.ErrorList {
			errs := append(validateRoleBinding(b), rule.MetaUpdate(&b.ObjectMeta, &old.ObjectMeta)...)
			return append(errs, rule.Immutable(field.NewPath("roleRef"), b.RoleRef, old.RoleRef)...)
		}),
		AllowUnconditionalUpdate: true,

		Columns: bindingColumns(rbacv1.RoleBinding{}.SwaggerDoc()["roleRef"], "roleBinding"),
		Row: row(func(b *rbacv1.RoleBinding, now time.Time) []any {
			return append([]any{b.Name, b.RoleRef.Kind + "/" + b.RoleRef.Name, age(b.CreationTimestamp, now)}, subjectCells(b.Subjects)...)
		}),
	}
}

func validateRoleBinding(b *rbacv1.RoleBinding) field.ErrorList {
	errs := rule.Meta(&b.ObjectMeta, true, path.ValidatePathSegmentName)
	return append(errs, validateBinding(b.RoleRef, b.Subjects, true, "Role", "ClusterRole")...)
}

func defaultBinding(ref *rbacv1.RoleRef, subjects []rbacv1.Subject) {
	if ref.APIGroup == "" {
		ref.APIGroup = rbacv1.GroupName
	}
	for i := range subjects {
		if s := &subjects[i]; s.APIGroup == "" && (s.Kind == rbacv1.UserKind || s.Kind == rbacv1.GroupKind) {
			s.APIGroup = rbacv1.GroupName
		}
	}
}

// validateBinding checks what a binding leads to, a role of one of the kinds, and whom.
func validateBinding(ref rbacv1.RoleRef, subjects []rbacv1.Subject, namespaced bool, kinds ...string) field.ErrorList {
	at := field.NewPath("roleRef")
	errs := rule.Known(at.Child("apiGroup"), ref.APIGroup, rbacv1.GroupName)
	errs = append(errs, rule.Known(at.Child("kind"), ref.Kind, kinds...)...)
	if ref.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	} else {
		errs = append(errs, rule.Messages(at.Child("name"), ref.Name, path.ValidatePathSegmentName(ref.Name, false))...)
	}
	for i, s := range subjects {
		errs = append(errs, validateSubject(field.NewPath("subjects").Index(i), s, namespaced)...)
	}
	return errs
}

func validateSubject(at *field.Path, s rbacv1.Subject, namespaced bool) field.ErrorList {
	var errs field.ErrorList
	if s.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	}
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		if s.Name != "" {
			errs = append(errs, rule.Messages(at.Child("name"), s.Name, validation.ValidateServiceAccountName(s.Name, false))...)
		}
		errs = append(errs, rule.Known(at.Child("apiGroup"), s.APIGroup, "")...)
		if !namespaced && s.Namespace == "" {
			errs = append(errs, field.Required(at.Child("namespace"), ""))
		}
	case rbacv1.UserKind, rbacv1.GroupKind:
		errs = append(errs, rule.Known(at.Child("apiGroup"), s.APIGroup, rbacv1.GroupName)...)
	default:
		errs = append(errs, field.NotSupported(at.Child("kind"), s.Kind, []string{rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind}))
	}
	return errs
}

func bindingColumns(role, of string) []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		nameColumn(), column("Role", "string", role), ageColumn(),
		wide("Users", "Users in the "+of), wide("Groups", "Groups in the "+of), wide("ServiceAccounts", "ServiceAccounts in the "+of),
	}
}

func subjectCells(subjects []rbacv1.Subject) []any {
	var users, groups, accounts []string
	for _, s := range subjects {
		switch s.Kind {
		case rbacv1.UserKind:
			users = append(users, s.Name)
		case rbacv1.GroupKind:
			groups = append(groups, s.Name)
		case rbacv1.ServiceAccountKind:
			accounts = append(accounts, s.Namespace+"/"+s.Name)
		}
	}
	return []any{strings.Join(users, ", "), strings.Join(groups, ", "), strings.Join(accounts, ", ")}
}
