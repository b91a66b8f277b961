package api

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/rule"
)

func configMapKind() *Kind {
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ConfigMap"),
		Resource:         "configmaps", Singular: "configmap", ShortNames: []string{"cm"},
		Namespaced: true,
		New:        func() runtime.Object { return &corev1.ConfigMap{} },
		NewList:    func() runtime.Object { return &corev1.ConfigMapList{} },

		Default: defaulter(func(c *corev1.ConfigMap) {
			if c.Data == nil {
				c.Data = map[string]string{}
			}
		}),
		Validate:                 check(validateConfigMap),
		ValidateUpdate:           checkUpdate(validateConfigMapUpdate),
		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(), column("Data", "string", corev1.ConfigMap{}.SwaggerDoc()["data"]), ageColumn(),
		},
		Row: row(func(c *corev1.ConfigMap, now time.Time) []any {
			return []any{c.Name, int64(len(c.Data) + len(c.BinaryData)), age(c.CreationTimestamp, now)}
		}),
	}
}

func validateConfigMap(c *corev1.ConfigMap) field.ErrorList {
	errs := rule.Meta(&c.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
	size := 0
	for key, value := range c.Data {
		at := field.NewPath("data").Key(key)
		errs = append(errs, rule.ConfigMapKey(at, key)...)
		if _, ok := c.BinaryData[key]; ok {
			errs = append(errs, field.Invalid(at, key, "duplicate of key present in binaryData"))
		}
		size += len(value)
	}
	for key, value := range c.BinaryData {
		errs = append(errs, rule.ConfigMapKey(field.NewPath("binaryData").Key(key), key)...)
		size += len(value)
	}
	if size > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(field.NewPath(""), "", corev1.MaxSecretSize))
	}
	return errs
}

func validateConfigMapUpdate(c, old *corev1.ConfigMap) field.ErrorList {
	errs := rule.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	if ptr.Deref(old.Immutable, false) {
		errs = append(errs, frozen("immutable", ptr.Deref(c.Immutable, false))...)
		errs = append(errs, frozen("data", equality.Semantic.DeepEqual(c.Data, old.Data))...)
		errs = append(errs, frozen("binaryData", equality.Semantic.DeepEqual(c.BinaryData, old.BinaryData))...)
	}
	return append(errs, validateConfigMap(c)...)
}

// frozen refuses a changed field of an object that was declared immutable.
func frozen(name string, same bool) field.ErrorList {
	if same {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath(name), "field is immutable when `immutable` is set")}
}
