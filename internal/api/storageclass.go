package api

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/pod"
	"carob.dev/carob/internal/api/rule"
	"carob.dev/carob/internal/api/volume"
)

func storageClassKind() *Kind {
	doc := storagev1.StorageClass{}.SwaggerDoc()
	return &Kind{
		GroupVersionKind: storagev1.SchemeGroupVersion.WithKind("StorageClass"),
		Resource:         "storageclasses", Singular: "storageclass", ShortNames: []string{"sc"},
		New:     func() runtime.Object { return &storagev1.StorageClass{} },
		NewList: func() runtime.Object { return &storagev1.StorageClassList{} },

		Default: defaulter(func(c *storagev1.StorageClass) {
			if c.ReclaimPolicy == nil {
				c.ReclaimPolicy = ptr.To(corev1.PersistentVolumeReclaimDelete)
			}
			if c.VolumeBindingMode == nil {
				c.VolumeBindingMode = ptr.To(storagev1.VolumeBindingImmediate)
			}
		}),
		Validate: check(validateStorageClass),
		ValidateUpdate: checkUpdate(func(c, old *storagev1.StorageClass) field.ErrorList {
			errs := append(validateStorageClass(c), rule.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)...)
			errs = append(errs, rule.Immutable(field.NewPath("parameters"), c.Parameters, old.Parameters)...)
			errs = append(errs, rule.Immutable(field.NewPath("provisioner"), c.Provisioner, old.Provisioner)...)
			errs = append(errs, rule.Immutable(field.NewPath("reclaimPolicy"), c.ReclaimPolicy, old.ReclaimPolicy)...)
			return append(errs, rule.Immutable(field.NewPath("volumeBindingMode"), c.VolumeBindingMode, old.VolumeBindingMode)...)
		}),
		Warnings: func(_ context.Context, obj, _ runtime.Object) []string {
			var out []string
			for i, t := range obj.(*storagev1.StorageClass).AllowedTopologies {
				for j, e := range t.MatchLabelExpressions {
					if why := pod.DeprecatedLabel(e.Key); why != "" {
						out = append(out, fmt.Sprintf("%s: %s", field.NewPath("allowedTopologies").Index(i).Child("matchLabelExpressions").Index(j).Child("key"), why))
					}
				}
			}
			return out
		},
		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(), column("Provisioner", "string", doc["provisioner"]), column("ReclaimPolicy", "string", doc["reclaimPolicy"]),
			column("VolumeBindingMode", "string", doc["volumeBindingMode"]), column("AllowVolumeExpansion", "string", doc["allowVolumeExpansion"]),
			ageColumn(),
		},
		Row: row(func(c *storagev1.StorageClass, now time.Time) []any {
			return []any{
				c.Name, c.Provisioner, string(ptr.Deref(c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)),
				string(ptr.Deref(c.VolumeBindingMode, storagev1.VolumeBindingImmediate)), ptr.Deref(c.AllowVolumeExpansion, false),
				age(c.CreationTimestamp, now),
			}
		}),
		Mark: markDefaultClass,
	}
}

// markDefaultClass tells in a list of classes which one is given to claims that name none.
func markDefaultClass(objs []runtime.Object, rows [][]any) {
	var classes []*storagev1.StorageClass
	for _, o := range objs {
		if c, ok := o.(*storagev1.StorageClass); ok {
			classes = append(classes, c)
		}
	}
	if d := volume.DefaultClass(classes); d != nil {
		for i, o := range objs {
			if o == runtime.Object(d) {
				rows[i][0] = d.Name + " (default)"
			}
		}
	}
}

func validateStorageClass(c *storagev1.StorageClass) field.ErrorList {
	errs := rule.Meta(&c.ObjectMeta, false, apivalidation.NameIsDNSSubdomain)
	errs = append(errs, validateProvisioner(field.NewPath("provisioner"), c.Provisioner)...)
	errs = append(errs, validateParameters(field.NewPath("parameters"), c.Parameters)...)
	if p := c.ReclaimPolicy; p != nil && *p != "" {
		errs = append(errs, rule.Known(field.NewPath("reclaimPolicy"), *p, corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)...)
	}
	if m := c.VolumeBindingMode; m == nil {
		errs = append(errs, field.Required(field.NewPath("volumeBindingMode"), ""))
	} else {
		errs = append(errs, rule.Known(field.NewPath("volumeBindingMode"), *m, storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)...)
	}
	return append(errs, validateTopologies(field.NewPath("allowedTopologies"), c.AllowedTopologies)...)
}

func validateProvisioner(at *field.Path, name string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return rule.QualifiedName(at, strings.ToLower(name))
}

const (
	parametersMaxCount = 512
	parametersMaxSize  = 256 << 10
)

func validateParameters(at *field.Path, parameters map[string]string) field.ErrorList {
	if len(parameters) > parametersMaxCount {
		return field.ErrorList{field.TooLong(at, "", parametersMaxCount)}
	}
	var errs field.ErrorList
	size := 0
	for key, value := range parameters {
		if key == "" {
			errs = append(errs, field.Invalid(at, key, "field can not be empty."))
		}
		size += len(key) + len(value)
	}
	if size > parametersMaxSize {
		errs = append(errs, field.TooLong(at, "", parametersMaxSize))
	}
	return errs
}

// validateTopologies checks the terms that say where volumes may be made. No two may say the same, whatever their order.
func validateTopologies(path *field.Path, terms []corev1.TopologySelectorTerm) field.ErrorList {
	var errs field.ErrorList
	var seen []map[string]map[string]bool
	for i, t := range terms {
		term := map[string]map[string]bool{}
		for j, e := range t.MatchLabelExpressions {
			at := path.Index(i).Child("matchLabelExpressions").Index(j)
			values := map[string]bool{}
			if len(e.Values) == 0 {
				errs = append(errs, field.Required(at.Child("values"), ""))
			}
			for k, v := range e.Values {
				if values[v] {
					errs = append(errs, field.Duplicate(at.Child("values").Index(k), v))
				}
				values[v] = true
			}
			errs = append(errs, metav1validation.ValidateLabelName(e.Key, at.Child("key"))...)
			if _, ok := term[e.Key]; ok {
				errs = append(errs, field.Duplicate(at.Child("key"), e.Key))
			}
			term[e.Key] = values
		}
		for _, other := range seen {
			if maps.EqualFunc(term, other, maps.Equal) {
				errs = append(errs, field.Duplicate(path.Index(i).Child("matchLabelExpressions"), ""))
			}
		}
		seen = append(seen, term)
	}
	return errs
}
