package api

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/volume"
)

func persistentVolumeClaimKind() *Kind {
	spec, status := corev1.PersistentVolumeClaimSpec{}.SwaggerDoc(), corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"),
		Resource:         "persistentvolumeclaims", Singular: "persistentvolumeclaim", ShortNames: []string{"pvc"},
		Namespaced: true,
		New:        func() runtime.Object { return &corev1.PersistentVolumeClaim{} },
		NewList:    func() runtime.Object { return &corev1.PersistentVolumeClaimList{} },

		Default: defaulter(volume.DefaultClaim),
		PrepareForCreate: onCreate(func(c *corev1.PersistentVolumeClaim) {
			c.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
			volume.PrepareDataSources(&c.Spec, nil)
		}),
		PrepareForUpdate: onUpdate(func(c, old *corev1.PersistentVolumeClaim) {
			c.Status = old.Status
			volume.PrepareDataSources(&c.Spec, &old.Spec)
		}),
		Validate:       check(volume.Claim),
		ValidateUpdate: checkUpdate(volume.ClaimUpdate),
		Warnings: func(_ context.Context, obj, _ runtime.Object) []string {
			return volume.ClaimWarnings(obj.(*corev1.PersistentVolumeClaim))
		},
		AllowUnconditionalUpdate: true,
		ReturnDeleted:            true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(), column("Status", "string", status["phase"]), column("Volume", "string", spec["volumeName"]),
			column("Capacity", "string", status["capacity"]), column("Access Modes", "string", status["accessModes"]),
			column("StorageClass", "string", "StorageClass of the pvc"), column("VolumeAttributesClass", "string", "VolumeAttributesClass of the pvc"),
			ageColumn(), wide("VolumeMode", spec["volumeMode"]),
		},
		Row: row(func(c *corev1.PersistentVolumeClaim, now time.Time) []any {
			phase, capacity, modes := string(c.Status.Phase), "", ""
			if c.DeletionTimestamp != nil {
				phase = "Terminating"
			}
			if c.Spec.VolumeName != "" {
				size := c.Status.Capacity[corev1.ResourceStorage]
				capacity, modes = size.String(), volume.Modes(c.Status.AccessModes)
			}
			class, _ := volume.ClassOf(c)
			return []any{
				c.Name, phase, c.Spec.VolumeName, capacity, modes, class, ptr.Deref(c.Spec.VolumeAttributesClassName, "<unset>"),
				age(c.CreationTimestamp, now), string(ptr.Deref(c.Spec.VolumeMode, "<unset>")),
			}
		}),
		Status: &Subresource{
			PrepareForUpdate: onUpdate(func(c, old *corev1.PersistentVolumeClaim) {
				c.Spec, c.Status.HealthStatus = old.Spec, old.Status.HealthStatus // health is not kept, as in Kubernetes by default
			}),
			ValidateUpdate: checkUpdate(volume.ClaimStatusUpdate),
			ResetFields:    []string{"spec"},
		},
	}
}
