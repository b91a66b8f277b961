package api

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/pod"
	"carob.dev/carob/internal/api/rule"
)

func podTemplateKind() *Kind {
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("PodTemplate"),
		Resource:         "podtemplates", Singular: "podtemplate",
		Namespaced: true,
		New:        func() runtime.Object { return &corev1.PodTemplate{} },
		NewList:    func() runtime.Object { return &corev1.PodTemplateList{} },

		Default:          defaulter(func(t *corev1.PodTemplate) { pod.DefaultTemplate(&t.Template) }),
		PrepareForCreate: onCreate(func(t *corev1.PodTemplate) { t.Generation = 1 }),
		PrepareForUpdate: onUpdate(func(t, old *corev1.PodTemplate) {
			if !equality.Semantic.DeepEqual(t.Template, old.Template) {
				t.Generation = old.Generation + 1
			}
		}),
		Validate: check(func(t *corev1.PodTemplate) field.ErrorList {
			errs := rule.Meta(&t.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
			return append(errs, pod.ValidateTemplate(field.NewPath("template"), &t.Template)...)
		}),
		ValidateUpdate: checkUpdate(func(t, old *corev1.PodTemplate) field.ErrorList {
			return append(rule.MetaUpdate(&t.ObjectMeta, &old.ObjectMeta), pod.ValidateTemplate(field.NewPath("template"), &t.Template)...)
		}),
		Warnings: func(_ context.Context, obj, _ runtime.Object) []string {
			return pod.TemplateWarnings(field.NewPath("template"), &obj.(*corev1.PodTemplate).Template)
		},
		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(),
			column("Containers", "string", "Names of each container in the template."),
			column("Images", "string", "Images referenced by each container in the template."),
			column("Pod Labels", "string", "The labels for the pod template."),
		},
		Row: row(func(t *corev1.PodTemplate, _ time.Time) []any {
			names, images := containerCells(t.Template.Spec.Containers)
			return []any{t.Name, names, images, labels.FormatLabels(t.Template.Labels)}
		}),
	}
}
