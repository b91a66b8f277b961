package api

import (
	"strings"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"carob.dev/carob/internal/api/device"
)

func resourceClaimKind() *Kind {
	return &Kind{
		GroupVersionKind: resourcev1.SchemeGroupVersion.WithKind("ResourceClaim"),
		Resource:         "resourceclaims", Singular: "resourceclaim",
		Namespaced: true,
		New:        func() runtime.Object { return &resourcev1.ResourceClaim{} },
		NewList:    func() runtime.Object { return &resourcev1.ResourceClaimList{} },

		Default: defaulter(func(c *resourcev1.ResourceClaim) { device.DefaultClaimSpec(&c.Spec) }),
		PrepareForCreate: onCreate(func(c *resourcev1.ResourceClaim) {
			c.Status = resourcev1.ResourceClaimStatus{}
			device.DropClaimFields(&c.Spec)
		}),
		PrepareForUpdate: onUpdate(func(c, old *resourcev1.ResourceClaim) {
			c.Status = old.Status
			device.DropClaimFields(&c.Spec)
		}),
		Validate:                 check(device.Claim),
		ValidateUpdate:           checkUpdate(device.ClaimUpdate),
		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(), column("State", "string", "A summary of the current state (allocated, pending, reserved, etc.)."), ageColumn(),
		},
		Row: row(func(c *resourcev1.ResourceClaim, now time.Time) []any {
			return []any{c.Name, resourceClaimState(c), age(c.CreationTimestamp, now)}
		}),
		Status: &Subresource{
			PrepareForUpdate: onUpdate(func(c, old *resourcev1.ResourceClaim) {
				c.Spec = old.Spec
				metav1.ResetObjectMetaForStatus(&c.ObjectMeta, &old.ObjectMeta)
				device.PrepareStatus(c, old)
			}),
			ValidateUpdate: checkUpdate(device.Status),
			ResetFields:    []string{"metadata", "spec"},
		},
	}
}

func resourceClaimState(c *resourcev1.ResourceClaim) string {
	var states []string
	if c.DeletionTimestamp != nil {
		states = append(states, "deleted")
	}
	switch {
	case c.Status.Allocation != nil:
		states = append(states, "allocated")
		if len(c.Status.ReservedFor) > 0 {
			states = append(states, "reserved")
		}
	case c.DeletionTimestamp == nil:
		states = append(states, "pending")
	}
	return strings.Join(states, ",")
}

func resourceClaimTemplateKind() *Kind {
	return &Kind{
		GroupVersionKind: resourcev1.SchemeGroupVersion.WithKind("ResourceClaimTemplate"),
		Resource:         "resourceclaimtemplates", Singular: "resourceclaimtemplate",
		Namespaced: true,
		New:        func() runtime.Object { return &resourcev1.ResourceClaimTemplate{} },
		NewList:    func() runtime.Object { return &resourcev1.ResourceClaimTemplateList{} },

		Default:                  defaulter(func(t *resourcev1.ResourceClaimTemplate) { device.DefaultClaimSpec(&t.Spec.Spec) }),
		PrepareForCreate:         onCreate(func(t *resourcev1.ResourceClaimTemplate) { device.DropClaimFields(&t.Spec.Spec) }),
		PrepareForUpdate:         onUpdate(func(t, _ *resourcev1.ResourceClaimTemplate) { device.DropClaimFields(&t.Spec.Spec) }),
		Validate:                 check(device.Template),
		ValidateUpdate:           checkUpdate(device.TemplateUpdate),
		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{nameColumn(), ageColumn()},
		Row: row(func(t *resourcev1.ResourceClaimTemplate, now time.Time) []any {
			return []any{t.Name, age(t.CreationTimestamp, now)}
		}),
	}
}
