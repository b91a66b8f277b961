package api

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/pod"
	"carob.dev/carob/internal/api/rule"
)

func runtimeClassKind() *Kind {
	return &Kind{
		GroupVersionKind: nodev1.SchemeGroupVersion.WithKind("RuntimeClass"),
		Resource:         "runtimeclasses", Singular: "runtimeclass",
		New:     func() runtime.Object { return &nodev1.RuntimeClass{} },
		NewList: func() runtime.Object { return &nodev1.RuntimeClassList{} },

		Validate: check(validateRuntimeClass),
		ValidateUpdate: checkUpdate(func(c, old *nodev1.RuntimeClass) field.ErrorList {
			errs := rule.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)
			errs = append(errs, rule.Immutable(field.NewPath("handler"), c.Handler, old.Handler)...)
			return append(errs, validateRuntimeClass(c)...)
		}),

		Columns: []metav1.TableColumnDefinition{
			nameColumn(), column("Handler", "string", nodev1.RuntimeClass{}.SwaggerDoc()["handler"]), ageColumn(),
		},
		Row: row(func(c *nodev1.RuntimeClass, now time.Time) []any {
			return []any{c.Name, c.Handler, age(c.CreationTimestamp, now)}
		}),
	}
}

func validateRuntimeClass(c *nodev1.RuntimeClass) field.ErrorList {
	errs := rule.Meta(&c.ObjectMeta, false, apivalidation.NameIsDNSSubdomain)
	if c.Handler == "" {
		errs = append(errs, field.Required(field.NewPath("handler"), ""))
	} else {
		errs = append(errs, rule.DNSLabel(field.NewPath("handler"), c.Handler)...)
	}
	if o := c.Overhead; o != nil {
		errs = append(errs, rule.Resources(field.NewPath("overhead"), &corev1.ResourceRequirements{Limits: o.PodFixed})...)
	}
	if s := c.Scheduling; s != nil {
		at := field.NewPath("scheduling")
		errs = append(errs, metav1validation.ValidateLabels(s.NodeSelector, at.Child("nodeSelector"))...)
		errs = append(errs, pod.Tolerations(at.Child("tolerations"), s.Tolerations)...)
		errs = append(errs, uniqueTolerations(at.Child("tolerations"), s.Tolerations)...)
	}
	return errs
}

// uniqueTolerations refuses two tolerations that differ in nothing but their seconds.
func uniqueTolerations(path *field.Path, list []corev1.Toleration) field.ErrorList {
	var errs field.ErrorList
	seen := map[corev1.Toleration]bool{}
	for i, t := range list {
		key := corev1.Toleration{Key: t.Key, Operator: t.Operator, Value: t.Value, Effect: t.Effect}
		if seen[key] {
			errs = append(errs, field.Duplicate(path.Index(i), t))
		}
		seen[key] = true
	}
	return errs
}
