package api

import (
	"context"
	"fmt"
	"strings"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/device"
)

func resourceSliceKind() *Kind {
	spec := resourcev1.ResourceSliceSpec{}.SwaggerDoc()
	return &Kind{
		GroupVersionKind: resourcev1.SchemeGroupVersion.WithKind("ResourceSlice"),
		Resource:         "resourceslices", Singular: "resourceslice",
		New:     func() runtime.Object { return &resourcev1.ResourceSlice{} },
		NewList: func() runtime.Object { return &resourcev1.ResourceSliceList{} },

		Default: defaulter(func(s *resourcev1.ResourceSlice) {
			for i := range s.Spec.Devices {
				for j := range s.Spec.Devices[i].Taints {
					defaultDeviceTaint(&s.Spec.Devices[i].Taints[j])
				}
			}
		}),
		PrepareForCreate: onCreate(func(s *resourcev1.ResourceSlice) {
			s.Generation = 1
			device.DropSliceFields(&s.Spec)
		}),
		PrepareForUpdate: onUpdate(func(s, old *resourcev1.ResourceSlice) {
			device.DropSliceFields(&s.Spec)
			if !equality.Semantic.DeepEqual(s.Spec, old.Spec) {
				s.Generation = old.Generation + 1
			}
		}),
		Validate:       check(func(s *resourcev1.ResourceSlice) field.ErrorList { return device.Slice(s, nil) }),
		ValidateUpdate: checkUpdate(device.Slice),
		Warnings: func(_ context.Context, obj, _ runtime.Object) []string {
			if name := obj.(*resourcev1.ResourceSlice).Spec.Driver; name != strings.ToLower(name) {
				return []string{fmt.Sprintf("spec.driver: driver names should be lowercase; %q contains uppercase characters", name)}
			}
			return nil
		},
		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(), column("Node", "string", spec["nodeName"]), column("Driver", "string", spec["driver"]),
			column("Pool", "string", resourcev1.ResourcePool{}.SwaggerDoc()["name"]), ageColumn(),
		},
		Row: row(func(s *resourcev1.ResourceSlice, now time.Time) []any {
			return []any{s.Name, ptr.Deref(s.Spec.NodeName, ""), s.Spec.Driver, s.Spec.Pool.Name, age(s.CreationTimestamp, now)}
		}),
		Fields: selectable(func(s *resourcev1.ResourceSlice) fields.Set {
			return fields.Set{
				resourcev1.ResourceSliceSelectorNodeName: ptr.Deref(s.Spec.NodeName, ""), resourcev1.ResourceSliceSelectorDriver: s.Spec.Driver,
				"spec.pool.name": s.Spec.Pool.Name,
			}
		}),
	}
}

// defaultDeviceTaint notes when a taint came.
func defaultDeviceTaint(t *resourcev1.DeviceTaint) {
	if t.TimeAdded == nil {
		t.TimeAdded = &metav1.Time{Time: time.Now().Truncate(time.Second)}
	}
}
