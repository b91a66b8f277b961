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

func deviceTaintRuleKind() *Kind {
	doc := resourcev1.DeviceTaint{}.SwaggerDoc()
	return &Kind{
		GroupVersionKind: resourcev1.SchemeGroupVersion.WithKind("DeviceTaintRule"),
		Resource:         "devicetaintrules", Singular: "devicetaintrule",
		New:     func() runtime.Object { return &resourcev1.DeviceTaintRule{} },
		NewList: func() runtime.Object { return &resourcev1.DeviceTaintRuleList{} },

		Default: defaulter(func(r *resourcev1.DeviceTaintRule) { defaultDeviceTaint(&r.Spec.Taint) }),
		PrepareForCreate: onCreate(func(r *resourcev1.DeviceTaintRule) {
			r.Status, r.Generation = resourcev1.DeviceTaintRuleStatus{}, 1
		}),
		PrepareForUpdate: onUpdate(func(r, old *resourcev1.DeviceTaintRule) {
			r.Status = old.Status
			// The time tells since when the effect holds, unless the client says otherwise.
			if now, was := &r.Spec.Taint, &old.Spec.Taint; now.Effect != was.Effect && now.TimeAdded.Equal(was.TimeAdded) {
				now.TimeAdded = &metav1.Time{Time: time.Now().Truncate(time.Second)}
			}
			if !equality.Semantic.DeepEqual(r.Spec, old.Spec) {
				r.Generation = old.Generation + 1
			}
		}),
		Validate:       check(func(r *resourcev1.DeviceTaintRule) field.ErrorList { return device.TaintRule(r, nil) }),
		ValidateUpdate: checkUpdate(device.TaintRule),

		Columns: []metav1.TableColumnDefinition{
			nameColumn(), column("Key", "string", doc["key"]), column("Value", "string", doc["value"]), column("Effect", "string", doc["effect"]),
			column("TimeAdded", "string", doc["timeAdded"]), ageColumn(),
		},
		Row: row(func(r *resourcev1.DeviceTaintRule, now time.Time) []any {
			t, added := r.Spec.Taint, ""
			if t.TimeAdded != nil {
				added = age(*t.TimeAdded, now)
			}
			return []any{r.Name, t.Key, t.Value, string(t.Effect), added, age(r.CreationTimestamp, now)}
		}),
		Status: &Subresource{
			PrepareForUpdate: onUpdate(func(r, old *resourcev1.DeviceTaintRule) {
				r.Spec = old.Spec
				metav1.ResetObjectMetaForStatus(&r.ObjectMeta, &old.ObjectMeta)
			}),
			ValidateUpdate: checkUpdate(device.TaintRuleStatus),
			ResetFields:    []string{"metadata", "spec"},
		},
	}
}
