package api

import (
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/device"
)

func deviceClassKind() *Kind {
	return &Kind{
		GroupVersionKind: resourcev1.SchemeGroupVersion.WithKind("DeviceClass"),
		Resource:         "deviceclasses", Singular: "deviceclass",
		New:     func() runtime.Object { return &resourcev1.DeviceClass{} },
		NewList: func() runtime.Object { return &resourcev1.DeviceClassList{} },

		PrepareForCreate: onCreate(func(c *resourcev1.DeviceClass) { c.Generation = 1 }),
		PrepareForUpdate: onUpdate(func(c, old *resourcev1.DeviceClass) {
			if !equality.Semantic.DeepEqual(c.Spec, old.Spec) {
				c.Generation = old.Generation + 1
			}
		}),
		Validate:                 check(func(c *resourcev1.DeviceClass) field.ErrorList { return device.Class(c, nil) }),
		ValidateUpdate:           checkUpdate(device.Class),
		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{nameColumn(), ageColumn()},
		Row: row(func(c *resourcev1.DeviceClass, now time.Time) []any {
			return []any{c.Name, age(c.CreationTimestamp, now)}
		}),
	}
}
