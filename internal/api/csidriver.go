package api

import (
	"context"
	"strings"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/rule"
)

func csiDriverKind() *Kind {
	doc := storagev1.CSIDriverSpec{}.SwaggerDoc()
	return &Kind{
		GroupVersionKind: storagev1.SchemeGroupVersion.WithKind("CSIDriver"),
		Resource:         "csidrivers", Singular: "csidriver",
		New:     func() runtime.Object { return &storagev1.CSIDriver{} },
		NewList: func() runtime.Object { return &storagev1.CSIDriverList{} },

		Default: defaulter(defaultCSIDriver),
		PrepareForUpdate: onUpdate(func(d, old *storagev1.CSIDriver) {
			if !equality.Semantic.DeepEqual(d.Spec, old.Spec) {
				d.Generation = old.Generation + 1
			}
		}),
		Validate: check(func(d *storagev1.CSIDriver) field.ErrorList {
			return append(rule.Meta(&d.ObjectMeta, false, apivalidation.NameIsDNSSubdomain), validateCSIDriver(&d.Spec)...)
		}),
		ValidateUpdate: checkUpdate(func(d, old *storagev1.CSIDriver) field.ErrorList {
			errs := append(rule.MetaUpdate(&d.ObjectMeta, &old.ObjectMeta), validateCSIDriver(&d.Spec)...)
			spec := field.NewPath("spec")
			errs = append(errs, rule.Immutable(spec.Child("attachedRequired"), d.Spec.AttachRequired, old.Spec.AttachRequired)...)
			return append(errs, rule.Immutable(spec.Child("volumeLifecycleModes"), d.Spec.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes)...)
		}),
		Warnings: func(_ context.Context, obj, old runtime.Object) []string {
			d := obj.(*storagev1.CSIDriver)
			was, changed := old.(*storagev1.CSIDriver)
			same := changed && equality.Semantic.DeepEqual(d.Spec.TokenRequests, was.Spec.TokenRequests)
			if len(d.Spec.TokenRequests) == 0 || d.Spec.ServiceAccountTokenInSecrets != nil || same {
				return nil
			}
			return []string{"spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true " +
				"to prevent possible logging of tokens in volume attributes"}
		},

		Columns: []metav1.TableColumnDefinition{
			nameColumn(), column("AttachRequired", "boolean", doc["attachRequired"]), column("PodInfoOnMount", "boolean", doc["podInfoOnMount"]),
			column("StorageCapacity", "boolean", doc["storageCapacity"]), column("TokenRequests", "string", doc["tokenRequests"]),
			column("RequiresRepublish", "boolean", doc["requiresRepublish"]), column("Modes", "string", doc["volumeLifecycleModes"]), ageColumn(),
		},
		Row: row(func(d *storagev1.CSIDriver, now time.Time) []any {
			var modes, audiences []string
			for _, m := range d.Spec.VolumeLifecycleModes {
				modes = append(modes, string(m))
			}
			tokens := "<unset>"
			if d.Spec.TokenRequests != nil {
				for _, t := range d.Spec.TokenRequests {
					audiences = append(audiences, t.Audience)
				}
				tokens = strings.Join(audiences, ",")
			}
			s := &d.Spec
			return []any{
				d.Name, ptr.Deref(s.AttachRequired, true), ptr.Deref(s.PodInfoOnMount, false), ptr.Deref(s.StorageCapacity, false), tokens,
				ptr.Deref(s.RequiresRepublish, false), or(strings.Join(modes, ","), "<none>"), age(d.CreationTimestamp, now),
			}
		}),
	}
}

func defaultCSIDriver(d *storagev1.CSIDriver) {
	s := &d.Spec
	for _, f := range []struct {
		field **bool
		value bool
	}{
		{&s.AttachRequired, true}, {&s.PodInfoOnMount, false}, {&s.StorageCapacity, false}, {&s.RequiresRepublish, false}, {&s.SELinuxMount, false},
		{&s.PreventPodSchedulingIfMissing, false},
	} {
		if *f.field == nil {
			*f.field = &f.value
		}
	}
	if s.FSGroupPolicy == nil {
		s.FSGroupPolicy = ptr.To(storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	}
	if len(s.VolumeLifecycleModes) == 0 {
		s.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
}

func validateCSIDriver(s *storagev1.CSIDriverSpec) field.ErrorList {
	at := field.NewPath("spec")
	var errs field.ErrorList
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"attachedRequired", s.AttachRequired != nil}, {"podInfoOnMount", s.PodInfoOnMount != nil}, {"storageCapacity", s.StorageCapacity != nil},
		{"seLinuxMount", s.SELinuxMount != nil}, {"preventPodSchedulingIfMissing", s.PreventPodSchedulingIfMissing != nil},
	} {
		if !f.set {
			errs = append(errs, field.Required(at.Child(f.name), ""))
		}
	}
	if p := s.FSGroupPolicy; p != nil {
		errs = append(errs, rule.Known(at.Child("fsGroupPolicy"), *p,
			storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)...)
	}
	errs = append(errs, validateTokenRequests(at.Child("tokenRequests"), s.TokenRequests)...)
	for _, m := range s.VolumeLifecycleModes {
		errs = append(errs, rule.Known(at.Child("volumeLifecycleModes"), m, storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral)...)
	}
	if n := s.NodeAllocatableUpdatePeriodSeconds; n != nil && *n < 10 {
		errs = append(errs, field.Invalid(at.Child("nodeAllocatableUpdatePeriodSeconds"), *n, "must be greater than or equal to 10 seconds"))
	}
	if s.ServiceAccountTokenInSecrets != nil && len(s.TokenRequests) == 0 {
		errs = append(errs, field.Invalid(at.Child("serviceAccountTokenInSecrets"), s.ServiceAccountTokenInSecrets,
			"serviceAccountTokenInSecrets is set but no tokenRequests are specified"))
	}
	return errs
}

func validateTokenRequests(path *field.Path, requests []storagev1.TokenRequest) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, r := range requests {
		at := path.Index(i)
		if seen[r.Audience] {
			errs = append(errs, field.Duplicate(at.Child("audience"), r.Audience))
			continue
		}
		seen[r.Audience] = true
		switch n := r.ExpirationSeconds; {
		case n == nil:
		case *n < 10*60:
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *n, "may not specify a duration less than 10 minutes"))
		case *n > 1<<32:
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *n, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	return errs
}
