package api

import (
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

// Limits of a PodCertificateRequest. Signers of Kubernetes' own domain give certificates for a day at most.
const (
	minPodCertificateSeconds        = 3600
	maxPodCertificateSeconds        = 91 * 24 * 3600
	maxKubernetesCertificateSeconds = 24 * 3600
	maxPodCertificateKey            = 10 << 10
	maxPodCertificateChain          = 100 << 10
	maxUID                          = 128
)

func podCertificateRequestKind() *Kind {
	doc := certificatesv1.PodCertificateRequestSpec{}.SwaggerDoc()
	return &Kind{
		GroupVersionKind: certificatesv1.SchemeGroupVersion.WithKind("PodCertificateRequest"),
		Resource:         "podcertificaterequests", Singular: "podcertificaterequest",
		Namespaced: true,
		New:        func() runtime.Object { return &certificatesv1.PodCertificateRequest{} },
		NewList:    func() runtime.Object { return &certificatesv1.PodCertificateRequestList{} },

		PrepareForCreate: onCreate(func(r *certificatesv1.PodCertificateRequest) { r.Status = certificatesv1.PodCertificateRequestStatus{} }),
		PrepareForUpdate: onUpdate(func(r, old *certificatesv1.PodCertificateRequest) { r.Status = old.Status }),
		Default: defaulter(func(r *certificatesv1.PodCertificateRequest) {
			if r.Spec.MaxExpirationSeconds == nil {
				day := int32(maxKubernetesCertificateSeconds)
				r.Spec.MaxExpirationSeconds = &day
			}
		}),
		Validate: check(validatePodCertificateRequest),
		ValidateUpdate: checkUpdate(func(r, old *certificatesv1.PodCertificateRequest) field.ErrorList {
			return append(rule.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta), rule.Immutable(field.NewPath("spec"), r.Spec, old.Spec)...)
		}),
		Status: &Subresource{
			PrepareForUpdate: onUpdate(func(r, old *certificatesv1.PodCertificateRequest) {
				r.Spec = old.Spec
				metav1.ResetObjectMetaForStatus(&r.ObjectMeta, &old.ObjectMeta)
			}),
			ValidateUpdate: checkUpdate(func(r, old *certificatesv1.PodCertificateRequest) field.ErrorList {
				return validatePodCertificateStatus(r, old, time.Now())
			}),
			ResetFields: []string{"metadata", "spec"},
		},

		Columns: []metav1.TableColumnDefinition{
			nameColumn(), column("PodName", "string", doc["podName"]), column("ServiceAccountName", "string", doc["serviceAccountName"]),
			column("NodeName", "string", doc["nodeName"]), column("SignerName", "string", doc["signerName"]),
			column("State", "string", "Is the request Pending, Issued, Denied, or Failed?"),
			column("UnverifiedUserAnnotations", "string", doc["unverifiedUserAnnotations"]),
		},
		Row: row(func(r *certificatesv1.PodCertificateRequest, _ time.Time) []any {
			s := &r.Spec
			return []any{r.Name, s.PodName, s.ServiceAccountName, string(s.NodeName), s.SignerName, or(podCertificateState(r), "Pending"),
				labels.FormatLabels(s.UnverifiedUserAnnotations)}
		}),
		Fields: selectable(func(r *certificatesv1.PodCertificateRequest) fields.Set {
			return fields.Set{"spec.signerName": r.Spec.SignerName, "spec.podName": r.Spec.PodName, "spec.nodeName": string(r.Spec.NodeName)}
		}),
	}
}

func validatePodCertificateRequest(r *certificatesv1.PodCertificateRequest) field.ErrorList {
	at, s := field.NewPath("spec"), &r.Spec
	errs := rule.Meta(&r.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
	errs = append(errs, rule.SignerName(at.Child("signerName"), s.SignerName)...)
	if s.UnverifiedUserAnnotations != nil {
		errs = append(errs, rule.UserAnnotations(at.Child("unverifiedUserAnnotations"), s.UnverifiedUserAnnotations)...)
	}
	named := func(name, value, uidName string, uid types.UID, valid rule.NameFunc) {
		errs = append(errs, rule.Messages(at.Child(name), value, valid(value, false))...)
		if uid == "" {
			errs = append(errs, field.Invalid(at.Child(uidName), uid, "must not be empty"))
		}
		if len(uid) > maxUID {
			errs = append(errs, field.TooLong(at.Child(uidName), uid, maxUID))
		}
	}
	named("podName", s.PodName, "podUID", s.PodUID, apivalidation.NameIsDNSSubdomain)
	named("serviceAccountName", s.ServiceAccountName, "serviceAccountUID", s.ServiceAccountUID, apivalidation.ValidateServiceAccountName)
	named("nodeName", string(s.NodeName), "nodeUID", s.NodeUID, apivalidation.NameIsDNSSubdomain)
	most := int32(maxPodCertificateSeconds)
	if rule.KubernetesSigner(s.SignerName) {
		most = maxKubernetesCertificateSeconds
	}
	switch n := s.MaxExpirationSeconds; {
	case n == nil:
		return append(errs, field.Required(at.Child("maxExpirationSeconds"), "must be set"))
	case *n < minPodCertificateSeconds || *n > most:
		errs = append(errs, field.Invalid(at.Child("maxExpirationSeconds"), *n, inRange(minPodCertificateSeconds, most)))
	}
	return append(errs, validatePodCertificateKey(s)...)
}

// podCertificateState is how the request ended; empty if it has not.
func podCertificateState(r *certificatesv1.PodCertificateRequest) string {
	for _, c := range r.Status.Conditions {
		switch c.Type {
		case certificatesv1.PodCertificateRequestConditionTypeIssued, certificatesv1.PodCertificateRequestConditionTypeDenied,
			certificatesv1.PodCertificateRequestConditionTypeFailed:
			return c.Type
		}
	}
	return ""
}
