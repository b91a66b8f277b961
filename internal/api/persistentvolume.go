package api

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/pod"
	"carob.dev/carob/internal/api/rule"
	"carob.dev/carob/internal/api/volume"
)

func persistentVolumeKind() *Kind {
	spec, status := corev1.PersistentVolumeSpec{}.SwaggerDoc(), corev1.PersistentVolumeStatus{}.SwaggerDoc()
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("PersistentVolume"),
		Resource:         "persistentvolumes", Singular: "persistentvolume", ShortNames: []string{"pv"},
		New:     func() runtime.Object { return &corev1.PersistentVolume{} },
		NewList: func() runtime.Object { return &corev1.PersistentVolumeList{} },

		Default: defaulter(volume.Default),
		PrepareForCreate: onCreate(func(v *corev1.PersistentVolume) {
			v.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending, LastPhaseTransitionTime: ptr.To(metav1.Now())}
		}),
		PrepareForUpdate: onUpdate(func(v, old *corev1.PersistentVolume) { v.Status = old.Status }),
		Validate:         check(func(v *corev1.PersistentVolume) field.ErrorList { return validatePersistentVolume(v, nil) }),
		ValidateUpdate: checkUpdate(func(v, old *corev1.PersistentVolume) field.ErrorList {
			errs := append(rule.MetaUpdate(&v.ObjectMeta, &old.ObjectMeta), validatePersistentVolume(v, old)...)
			return append(errs, volume.Update(v, old)...)
		}),
		Warnings:                 persistentVolumeWarnings,
		AllowUnconditionalUpdate: true,
		ReturnDeleted:            true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(), column("Capacity", "string", spec["capacity"]), column("Access Modes", "string", spec["accessModes"]),
			column("Reclaim Policy", "string", spec["persistentVolumeReclaimPolicy"]), column("Status", "string", status["phase"]),
			column("Claim", "string", spec["claimRef"]), column("StorageClass", "string", "StorageClass of the pv"),
			column("VolumeAttributesClass", "string", "VolumeAttributesClass of the pv"), column("Reason", "string", status["reason"]), ageColumn(),
			wide("VolumeMode", spec["volumeMode"]),
		},
		Row: row(func(v *corev1.PersistentVolume, now time.Time) []any {
			claim, phase := "", string(v.Status.Phase)
			if r := v.Spec.ClaimRef; r != nil {
				claim = r.Namespace + "/" + r.Name
			}
			if v.DeletionTimestamp != nil {
				phase = "Terminating"
			}
			size := v.Spec.Capacity[corev1.ResourceStorage]
			return []any{
				v.Name, size.String(), volume.Modes(v.Spec.AccessModes), string(v.Spec.PersistentVolumeReclaimPolicy), phase, claim,
				volume.ClassOfVolume(v), ptr.Deref(v.Spec.VolumeAttributesClassName, "<unset>"), v.Status.Reason, age(v.CreationTimestamp, now),
				string(ptr.Deref(v.Spec.VolumeMode, "<unset>")),
			}
		}),
		Status: &Subresource{
			PrepareForUpdate: onUpdate(preparePersistentVolumeStatus),
			ValidateUpdate: checkUpdate(func(v, old *corev1.PersistentVolume) field.ErrorList {
				errs := rule.MetaUpdate(&v.ObjectMeta, &old.ObjectMeta)
				if v.ResourceVersion == "" {
					errs = append(errs, field.Required(field.NewPath("resourceVersion"), ""))
				}
				return errs
			}),
			ResetFields: []string{"spec"},
		},
	}
}

// preparePersistentVolumeStatus keeps the time of the last change of phase, which clients need not know about.
func preparePersistentVolumeStatus(v, old *corev1.PersistentVolume) {
	v.Spec = old.Spec
	now, was := v.Status.LastPhaseTransitionTime, old.Status.LastPhaseTransitionTime
	switch same := v.Status.Phase == old.Status.Phase; {
	case same && now == nil:
		v.Status.LastPhaseTransitionTime = was
	case !same && (now == nil || now.Equal(was)):
		v.Status.LastPhaseTransitionTime = ptr.To(metav1.Now())
	}
}

// validatePersistentVolume checks a volume; old is nil for a new one.
func validatePersistentVolume(v, old *corev1.PersistentVolume) field.ErrorList {
	errs := rule.Meta(&v.ObjectMeta, false, apivalidation.NameIsDNSSubdomain)
	spec := field.NewPath("spec")
	errs = append(errs, volume.Spec(spec, &v.Spec, v.Name)...)
	if a := v.Spec.NodeAffinity; a != nil && a.Required != nil {
		wrong := pod.NodeSelector(spec.Child("nodeAffinity", "required"), a.Required)
		if old == nil || old.Spec.NodeAffinity == nil || old.Spec.NodeAffinity.Required == nil ||
			len(pod.NodeSelector(nil, old.Spec.NodeAffinity.Required)) == 0 { // what was wrong already may stay
			errs = append(errs, wrong...)
		}
	}
	return append(errs, volume.MountOptions(v)...)
}

func persistentVolumeWarnings(_ context.Context, obj, _ runtime.Object) []string {
	v := obj.(*corev1.PersistentVolume)
	var out []string
	annotations := field.NewPath("metadata", "annotations")
	for _, a := range []struct{ key, why string }{
		{corev1.BetaStorageClassAnnotation, `deprecated since v1.8; use "storageClassName" attribute instead`},
		{corev1.MountOptionAnnotation, `deprecated since v1.31; use "mountOptions" attribute instead`},
	} {
		if _, ok := v.Annotations[a.key]; ok {
			out = append(out, fmt.Sprintf("%s: %s", annotations.Key(a.key), a.why))
		}
	}
	spec := field.NewPath("spec")
	if v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		out = append(out, fmt.Sprintf("%s: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
			spec.Child("persistentVolumeReclaimPolicy")))
	}
	if a := v.Spec.NodeAffinity; a != nil && a.Required != nil {
		for i, t := range a.Required.NodeSelectorTerms {
			for j, e := range t.MatchExpressions {
				if why := pod.DeprecatedLabel(e.Key); why != "" {
					at := spec.Child("nodeAffinity", "required", "nodeSelectorTerms").Index(i).Child("matchExpressions").Index(j).Child("key")
					out = append(out, fmt.Sprintf("%s: %s is %s", at, e.Key, why))
				}
			}
		}
	}
	for _, s := range []struct {
		name string
		set  bool
		why  string
	}{
		{"cephfs", v.Spec.CephFS != nil, "deprecated in v1.28, non-functional in v1.31+"},
		{"photonPersistentDisk", v.Spec.PhotonPersistentDisk != nil, "deprecated in v1.11, non-functional in v1.16+"},
		{"scaleIO", v.Spec.ScaleIO != nil, "deprecated in v1.16, non-functional in v1.22+"},
		{"storageOS", v.Spec.StorageOS != nil, "deprecated in v1.22, non-functional in v1.25+"},
		{"glusterfs", v.Spec.Glusterfs != nil, "deprecated in v1.25, non-functional in v1.26+"},
		{"rbd", v.Spec.RBD != nil, "deprecated in v1.28, non-functional in v1.31+"},
	} {
		if s.set {
			out = append(out, fmt.Sprintf("%s: %s", spec.Child(s.name), s.why))
		}
	}
	return out
}
