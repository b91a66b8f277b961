package api

import (
	"math"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/rule"
	"carob.dev/carob/internal/api/volume"
)

func volumeAttachmentKind() *Kind {
	spec := storagev1.VolumeAttachmentSpec{}.SwaggerDoc()
	update := checkUpdate(func(a, old *storagev1.VolumeAttachment) field.ErrorList {
		errs := append(validateVolumeAttachment(a), rule.MetaUpdate(&a.ObjectMeta, &old.ObjectMeta)...)
		return append(errs, rule.Immutable(field.NewPath("spec"), a.Spec, old.Spec)...)
	})
	return &Kind{
		GroupVersionKind: storagev1.SchemeGroupVersion.WithKind("VolumeAttachment"),
		Resource:         "volumeattachments", Singular: "volumeattachment",
		New:     func() runtime.Object { return &storagev1.VolumeAttachment{} },
		NewList: func() runtime.Object { return &storagev1.VolumeAttachmentList{} },

		Default: defaulter(func(a *storagev1.VolumeAttachment) {
			if inline := a.Spec.Source.InlineVolumeSpec; inline != nil {
				volume.DefaultSpec(inline)
			}
		}),
		PrepareForCreate: onCreate(func(a *storagev1.VolumeAttachment) { a.Status = storagev1.VolumeAttachmentStatus{} }),
		PrepareForUpdate: onUpdate(func(a, old *storagev1.VolumeAttachment) { a.Status = old.Status }),
		Validate:         check(validateVolumeAttachment),
		ValidateUpdate:   update,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(),
			{Name: "Attacher", Type: "string", Format: "name", Description: spec["attacher"]},
			column("PV", "string", storagev1.VolumeAttachmentSource{}.SwaggerDoc()["persistentVolumeName"]),
			column("Node", "string", spec["nodeName"]),
			column("Attached", "boolean", storagev1.VolumeAttachmentStatus{}.SwaggerDoc()["attached"]),
			ageColumn(),
		},
		Row: row(func(a *storagev1.VolumeAttachment, now time.Time) []any {
			return []any{
				a.Name, a.Spec.Attacher, ptr.Deref(a.Spec.Source.PersistentVolumeName, ""), a.Spec.NodeName, a.Status.Attached, age(a.CreationTimestamp, now),
			}
		}),
		Status: &Subresource{
			PrepareForUpdate: onUpdate(func(a, old *storagev1.VolumeAttachment) {
				a.Spec = old.Spec
				metav1.ResetObjectMetaForStatus(&a.ObjectMeta, &old.ObjectMeta)
			}),
			ValidateUpdate: update,
			ResetFields:    []string{"metadata", "spec"},
		},
	}
}

const (
	attachmentMetadataMax = 256 << 10
	volumeErrorMax        = 1024
)

func validateVolumeAttachment(a *storagev1.VolumeAttachment) field.ErrorList {
	errs := rule.Meta(&a.ObjectMeta, false, apivalidation.NameIsDNSSubdomain)
	spec := field.NewPath("spec")
	errs = append(errs, rule.DriverName(spec.Child("attacher"), a.Spec.Attacher)...)
	source := spec.Child("source")
	switch name, inline := a.Spec.Source.PersistentVolumeName, a.Spec.Source.InlineVolumeSpec; {
	case name == nil && inline == nil:
		errs = append(errs, field.Required(source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case name != nil && inline != nil:
		errs = append(errs, field.Forbidden(source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case name != nil && *name == "":
		errs = append(errs, field.Required(source.Child("persistentVolumeName"), "must specify non empty persistentVolumeName"))
	case inline != nil:
		errs = append(errs, volume.InlineSpec(source.Child("inlineVolumeSpec"), inline)...)
	}
	if name := a.Spec.Source.PersistentVolumeName; name != nil {
		errs = append(errs, rule.Messages(source.Child("persistentVolumeName"), *name, apivalidation.NameIsDNSSubdomain(*name, false))...)
	}
	errs = append(errs, rule.Messages(spec.Child("nodeName"), a.Spec.NodeName, apivalidation.NameIsDNSSubdomain(a.Spec.NodeName, false))...)
	status := field.NewPath("status")
	size := 0
	for key, value := range a.Status.AttachmentMetadata {
		size += len(key) + len(value)
	}
	if size > attachmentMetadataMax {
		errs = append(errs, field.TooLong(status.Child("attachmentMetadata"), "", attachmentMetadataMax))
	}
	errs = append(errs, validateVolumeError(status.Child("attachError"), a.Status.AttachError)...)
	return append(errs, validateVolumeError(status.Child("detachError"), a.Status.DetachError)...)
}

func validateVolumeError(at *field.Path, e *storagev1.VolumeError) field.ErrorList {
	if e == nil {
		return nil
	}
	var errs field.ErrorList
	if len(e.Message) > volumeErrorMax {
		errs = append(errs, field.TooLong(at.Child("message"), "", volumeErrorMax))
	}
	if c := e.ErrorCode; c != nil && *c < 0 {
		errs = append(errs, field.Invalid(at.Child("errorCode"), *c, validation.InclusiveRangeError(0, math.MaxInt32)))
	}
	return errs
}
