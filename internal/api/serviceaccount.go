package api

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

func serviceAccountKind() *Kind {
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ServiceAccount"),
		Resource:         "serviceaccounts", Singular: "serviceaccount", ShortNames: []string{"sa"},
		Namespaced: true,
		New:        func() runtime.Object { return &corev1.ServiceAccount{} },
		NewList:    func() runtime.Object { return &corev1.ServiceAccountList{} },

		// Of the Secrets that the account may mount only the names are kept.
		PrepareForCreate: onCreate(keepSecretNames),
		PrepareForUpdate: onUpdate(func(s, _ *corev1.ServiceAccount) { keepSecretNames(s) }),

		Validate: check(validateServiceAccount),
		ValidateUpdate: checkUpdate(func(s, old *corev1.ServiceAccount) field.ErrorList {
			return append(rule.MetaUpdate(&s.ObjectMeta, &old.ObjectMeta), validateServiceAccount(s)...)
		}),
		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{nameColumn(), ageColumn()},
		Row: row(func(s *corev1.ServiceAccount, now time.Time) []any {
			return []any{s.Name, age(s.CreationTimestamp, now)}
		}),
	}
}

func keepSecretNames(s *corev1.ServiceAccount) {
	for i := range s.Secrets {
		s.Secrets[i] = corev1.ObjectReference{Name: s.Secrets[i].Name}
	}
}

func validateServiceAccount(s *corev1.ServiceAccount) field.ErrorList {
	return rule.Meta(&s.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
}
