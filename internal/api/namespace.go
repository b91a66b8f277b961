package api

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

func namespaceKind() *Kind {
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Namespace"),
		Resource:         "namespaces", Singular: "namespace", ShortNames: []string{"ns"},
		New:     func() runtime.Object { return &corev1.Namespace{} },
		NewList: func() runtime.Object { return &corev1.NamespaceList{} },

		Default:          defaulter(defaultNamespace),
		PrepareForCreate: onCreate(prepareNamespace),
		PrepareForUpdate: onUpdate(func(n, old *corev1.Namespace) { n.Spec.Finalizers, n.Status = old.Spec.Finalizers, old.Status }),
		Validate:         check(validateNamespace),
		ValidateUpdate: checkUpdate(func(n, old *corev1.Namespace) field.ErrorList {
			return append(validateNamespace(n), rule.MetaUpdate(&n.ObjectMeta, &old.ObjectMeta)...)
		}),
		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{nameColumn(), column("Status", "string", "The status of the namespace"), ageColumn()},
		Row: row(func(n *corev1.Namespace, now time.Time) []any {
			return []any{n.Name, string(n.Status.Phase), age(n.CreationTimestamp, now)}
		}),
		Fields: selectable(func(n *corev1.Namespace) fields.Set {
			return fields.Set{"name": n.Name, "status.phase": string(n.Status.Phase)}
		}),
		FieldLabels: map[string]string{"status.phase": "status.phase"},
		Status: &Subresource{
			PrepareForUpdate: onUpdate(func(n, old *corev1.Namespace) { n.Spec = old.Spec }),
			ValidateUpdate:   checkUpdate(validateNamespaceStatus),
			ResetFields:      []string{"spec"},
		},
		Finalize: &Subresource{
			PrepareForUpdate: onUpdate(func(n, old *corev1.Namespace) { n.Status = old.Status }),
			ValidateUpdate:   checkUpdate(validateNamespaceFinalize),
			ResetFields:      []string{"status"},
		},
	}
}

// defaultNamespace gives each namespace a phase, and the label by which selectors can name it.
func defaultNamespace(n *corev1.Namespace) {
	if n.Status.Phase == "" {
		n.Status.Phase = corev1.NamespaceActive
	}
	if n.Name == "" {
		return
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[corev1.LabelMetadataName] = n.Name
}

// prepareNamespace sets the finalizer that holds a deleted namespace until its contents are gone.
func prepareNamespace(n *corev1.Namespace) {
	n.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	for _, f := range n.Spec.Finalizers {
		if f == corev1.FinalizerKubernetes {
			return
		}
	}
	n.Spec.Finalizers = append(n.Spec.Finalizers, corev1.FinalizerKubernetes)
}

func validateNamespace(n *corev1.Namespace) field.ErrorList {
	errs := rule.Meta(&n.ObjectMeta, false, apivalidation.ValidateNamespaceName)
	for _, f := range n.Spec.Finalizers {
		errs = append(errs, rule.Finalizer(field.NewPath("spec", "finalizers"), string(f))...)
	}
	return errs
}

func validateNamespaceStatus(n, old *corev1.Namespace) field.ErrorList {
	errs := rule.MetaUpdate(&n.ObjectMeta, &old.ObjectMeta)
	phase := field.NewPath("status", "Phase")
	switch {
	case n.DeletionTimestamp.IsZero() && n.Status.Phase != corev1.NamespaceActive:
		errs = append(errs, field.Invalid(phase, n.Status.Phase, "may only be 'Active' if `deletionTimestamp` is empty"))
	case !n.DeletionTimestamp.IsZero() && n.Status.Phase != corev1.NamespaceTerminating:
		errs = append(errs, field.Invalid(phase, n.Status.Phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"))
	}
	return errs
}

func validateNamespaceFinalize(n, old *corev1.Namespace) field.ErrorList {
	errs := rule.MetaUpdate(&n.ObjectMeta, &old.ObjectMeta)
	for i, f := range n.Spec.Finalizers {
		errs = append(errs, rule.Finalizer(field.NewPath("spec", "finalizers").Index(i), string(f))...)
	}
	return errs
}
