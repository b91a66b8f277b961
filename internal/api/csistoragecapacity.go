package api

import (
	"context"
	"fmt"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/pod"
	"carob.dev/carob/internal/api/rule"
)

func csiStorageCapacityKind() *Kind {
	doc := storagev1.CSIStorageCapacity{}.SwaggerDoc()
	return &Kind{
		GroupVersionKind: storagev1.SchemeGroupVersion.WithKind("CSIStorageCapacity"),
		Resource:         "csistoragecapacities", Singular: "csistoragecapacity",
		Namespaced: true,
		New:        func() runtime.Object { return &storagev1.CSIStorageCapacity{} },
		NewList:    func() runtime.Object { return &storagev1.CSIStorageCapacityList{} },

		Validate: check(func(c *storagev1.CSIStorageCapacity) field.ErrorList { return validateCSIStorageCapacity(c, nil) }),
		ValidateUpdate: checkUpdate(func(c, old *storagev1.CSIStorageCapacity) field.ErrorList {
			errs := append(validateCSIStorageCapacity(c, old.NodeTopology), rule.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)...)
			errs = append(errs, rule.Immutable(field.NewPath("nodeTopology"), c.NodeTopology, old.NodeTopology)...)
			return append(errs, rule.Immutable(field.NewPath("storageClassName"), c.StorageClassName, old.StorageClassName)...)
		}),
		Warnings: func(_ context.Context, obj, _ runtime.Object) []string {
			c := obj.(*storagev1.CSIStorageCapacity)
			if c.NodeTopology == nil {
				return nil
			}
			var out []string
			at := field.NewPath("nodeTopology")
			for i, e := range c.NodeTopology.MatchExpressions {
				if why := pod.DeprecatedLabel(e.Key); why != "" {
					out = append(out, fmt.Sprintf("%s: %s is %s", at.Child("matchExpressions").Index(i).Child("key"), e.Key, why))
				}
			}
			for key := range c.NodeTopology.MatchLabels {
				if why := pod.DeprecatedLabel(key); why != "" {
					out = append(out, fmt.Sprintf("%s: %s", at.Child("matchLabels").Child(key), why))
				}
			}
			return out
		},

		Columns: []metav1.TableColumnDefinition{
			nameColumn(), column("StorageClassName", "string", doc["storageClassName"]), column("Capacity", "string", doc["capacity"]),
		},
		Row: row(func(c *storagev1.CSIStorageCapacity, _ time.Time) []any {
			capacity := "<unset>"
			if c.Capacity != nil {
				capacity = c.Capacity.String()
			}
			return []any{c.Name, c.StorageClassName, capacity}
		}),
	}
}

// validateCSIStorageCapacity checks a capacity; old is the topology before, nil for a new object.
func validateCSIStorageCapacity(c *storagev1.CSIStorageCapacity, old *metav1.LabelSelector) field.ErrorList {
	errs := rule.Meta(&c.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
	options := metav1validation.LabelSelectorValidationOptions{}
	options.AllowInvalidLabelValueInSelector = len(metav1validation.ValidateLabelSelector(old, options, nil)) > 0
	errs = append(errs, metav1validation.ValidateLabelSelector(c.NodeTopology, options, field.NewPath("nodeTopology"))...)
	errs = append(errs, rule.ClassName(field.NewPath("storageClassName"), c.StorageClassName)...)
	if q := c.Capacity; q != nil && q.Sign() < 0 {
		errs = append(errs, field.Invalid(field.NewPath("capacity"), q.String(), apivalidation.IsNegativeErrorMsg))
	}
	return errs
}
