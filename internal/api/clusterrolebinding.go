package api

import (
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

func clusterRoleBindingKind() *Kind {
	return &Kind{
		GroupVersionKind: rbacv1.SchemeGroupVersion.WithKind("ClusterRoleBinding"),
		Resource:         "clusterrolebindings", Singular: "clusterrolebinding",
		New:     func() runtime.Object { return &rbacv1.ClusterRoleBinding{} },
		NewList: func() runtime.Object { return &rbacv1.ClusterRoleBindingList{} },

		Default:  defaulter(func(b *rbacv1.ClusterRoleBinding) { defaultBinding(&b.RoleRef, b.Subjects) }),
		Validate: check(validateClusterRoleBinding),
		ValidateUpdate: checkUpdate(func(b, old *rbacv1.ClusterRoleBinding) field.ErrorList {
			errs := append(validateClusterRoleBinding(b), rule.MetaUpdate(&b.ObjectMeta, &old.ObjectMeta)...)
			return append(errs, rule.Immutable(field.NewPath("roleRef"), b.RoleRef, old.RoleRef)...)
		}),
		AllowUnconditionalUpdate: true,

		Columns: bindingColumns(rbacv1.ClusterRoleBinding{}.SwaggerDoc()["roleRef"], "clusterRoleBinding"),
		Row: row(func(b *rbacv1.ClusterRoleBinding, now time.Time) []any {
			return append([]any{b.Name, b.RoleRef.Kind + "/" + b.RoleRef.Name, age(b.CreationTimestamp, now)}, subjectCells(b.Subjects)...)
		}),
	}
}

func validateClusterRoleBinding(b *rbacv1.ClusterRoleBinding) field.ErrorList {
	errs := rule.Meta(&b.ObjectMeta, false, path.ValidatePathSegmentName)
	return append(errs, validateBinding(b.RoleRef, b.Subjects, false, "ClusterRole")...)
}
