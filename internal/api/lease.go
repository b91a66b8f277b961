package api

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/rule"
)

func leaseKind() *Kind {
	return &Kind{
		GroupVersionKind: coordinationv1.SchemeGroupVersion.WithKind("Lease"),
		Resource:         "leases", Singular: "lease",
		Namespaced: true,
		New:        func() runtime.Object { return &coordinationv1.Lease{} },
		NewList:    func() runtime.Object { return &coordinationv1.LeaseList{} },

		Validate: check(func(l *coordinationv1.Lease) field.ErrorList {
			return append(rule.Meta(&l.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), validateLease(&l.Spec)...)
		}),
		ValidateUpdate: checkUpdate(func(l, old *coordinationv1.Lease) field.ErrorList {
			return append(rule.MetaUpdate(&l.ObjectMeta, &old.ObjectMeta), validateLease(&l.Spec)...)
		}),
		AllowCreateOnUpdate: true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(), column("Holder", "string", coordinationv1.LeaseSpec{}.SwaggerDoc()["holderIdentity"]), ageColumn(),
		},
		Row: row(func(l *coordinationv1.Lease, now time.Time) []any {
			return []any{l.Name, ptr.Deref(l.Spec.HolderIdentity, ""), age(l.CreationTimestamp, now)}
		}),
	}
}

func validateLease(s *coordinationv1.LeaseSpec) field.ErrorList {
	at := field.NewPath("spec")
	var errs field.ErrorList
	if n := s.LeaseDurationSeconds; n != nil && *n <= 0 {
		errs = append(errs, field.Invalid(at.Child("leaseDurationSeconds"), n, "must be greater than 0"))
	}
	if n := s.LeaseTransitions; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(at.Child("leaseTransitions"), n, "must be greater than or equal to 0"))
	}
	for _, f := range []struct {
		name string
		set  bool
	}{{"strategy", s.Strategy != nil}, {"preferredHolder", s.PreferredHolder != nil}} {
		if f.set {
			errs = append(errs, field.Forbidden(at.Child(f.name), "coordinated leader election is not supported by Carob yet"))
		}
	}
	return errs
}
