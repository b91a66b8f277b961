package api

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

// minCertificateSeconds is the shortest life that may be asked for.
const minCertificateSeconds = 600

// keyUsages are all that a certificate may be asked for.
func keyUsages() []certificatesv1.KeyUsage {
	return []certificatesv1.KeyUsage{
		certificatesv1.UsageAny, certificatesv1.UsageCRLSign, certificatesv1.UsageCertSign, certificatesv1.UsageClientAuth,
		certificatesv1.UsageCodeSigning, certificatesv1.UsageContentCommitment, certificatesv1.UsageDataEncipherment,
		certificatesv1.UsageDecipherOnly, certificatesv1.UsageDigitalSignature, certificatesv1.UsageEmailProtection,
		certificatesv1.UsageEncipherOnly, certificatesv1.UsageIPsecEndSystem, certificatesv1.UsageIPsecTunnel, certificatesv1.UsageIPsecUser,
		certificatesv1.UsageKeyAgreement, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageMicrosoftSGC,
		certificatesv1.UsageNetscapeSGC, certificatesv1.UsageOCSPSigning, certificatesv1.UsageSMIME, certificatesv1.UsageServerAuth,
		certificatesv1.UsageSigning, certificatesv1.UsageTimestamping,
	}
}

// ParseSigningRequest reads the certificate request in PEM of a CertificateSigningRequest.
func ParseSigningRequest(in []byte) (*x509.CertificateRequest, error) {
	b, _ := pem.Decode(in)
	if b == nil || b.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(b.Bytes)
}

func validateSigningRequest(r *certificatesv1.CertificateSigningRequest) field.ErrorList {
	at, s := field.NewPath("spec"), &r.Spec
	errs := rule.Meta(&r.ObjectMeta, false, func(string, bool) []string { return nil })
	csr, err := ParseSigningRequest(s.Request)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		errs = append(errs, field.Invalid(at.Child("request"), s.Request, err.Error()))
	}
	if len(s.Usages) == 0 {
		errs = append(errs, field.Required(at.Child("usages"), ""))
	}
	for i, u := range s.Usages {
		errs = append(errs, rule.Known(at.Child("usages").Index(i), u, keyUsages()...)...)
		if slices.Contains(s.Usages[:i], u) {
			errs = append(errs, field.Duplicate(at.Child("usages").Index(i), u))
		}
	}
	if s.SignerName == "kubernetes.io/legacy-unknown" {
		errs = append(errs, field.Invalid(at.Child("signerName"), s.SignerName, "the legacy signerName is not allowed via this API version"))
	} else {
		errs = append(errs, rule.SignerName(at.Child("signerName"), s.SignerName)...)
	}
	if n := s.ExpirationSeconds; n != nil && *n < minCertificateSeconds {
		errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *n, "may not specify a duration less than 600 seconds (10 minutes)"))
	}
	return append(errs, validateSigningConditions(&r.Status)...)
}

func validateSigningConditions(s *certificatesv1.CertificateSigningRequestStatus) field.ErrorList {
	var errs field.ErrorList
	at := field.NewPath("status", "conditions")
	for i, c := range s.Conditions {
		ci := at.Index(i)
		if c.Type == "" {
			errs = append(errs, field.Required(ci.Child("type"), ""))
		}
		allowed := []corev1.ConditionStatus{corev1.ConditionTrue}
		switch c.Type {
		case certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
		default:
			allowed = []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown}
		}
		errs = append(errs, rule.OneOf(ci.Child("status"), c.Status, allowed...)...)
		if slices.ContainsFunc(s.Conditions[:i], func(b certificatesv1.CertificateSigningRequestCondition) bool { return b.Type == c.Type }) {
			errs = append(errs, field.Duplicate(ci.Child("type"), c.Type))
		}
	}
	if hasCondition(s, certificatesv1.CertificateApproved) && hasCondition(s, certificatesv1.CertificateDenied) {
		errs = append(errs, field.Invalid(at, certificatesv1.CertificateDenied, "Approved and Denied conditions are mutually exclusive"))
	}
	return errs
}

// validateCertificate wants certificates in PEM, or nothing.
func validateCertificate(in []byte) error {
	for n := 0; len(in) > 0; n++ {
		var b *pem.Block
		b, in = pem.Decode(in)
		switch {
		case b == nil && n == 0:
			return errors.New("must contain at least one CERTIFICATE PEM block")
		case b == nil:
			return nil
		case b.Type != "CERTIFICATE":
			return fmt.Errorf("only CERTIFICATE PEM blocks are allowed, found %q", b.Type)
		case len(b.Headers) > 0:
			return errors.New("no PEM block headers are permitted")
		}
		certs, err := x509.ParseCertificates(b.Bytes)
		if err != nil {
			return err
		}
		if len(certs) == 0 {
			return errors.New("found CERTIFICATE PEM block containing 0 certificates")
		}
	}
	return nil
}

// writes is what an endpoint may change.
type writes int

const (
	neither writes = iota
	certificate
	decision
)

func validateSigningRequestUpdate(may writes) func(r, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
	return func(r, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
		errs := validateSigningRequest(r)
		conditions := field.NewPath("status", "conditions")
		for _, t := range []certificatesv1.RequestConditionType{
			certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed,
		} {
			was, is := conditionsOf(&old.Status, t), conditionsOf(&r.Status, t)
			switch {
			case len(is) < len(was):
				errs = append(errs, field.Forbidden(conditions, fmt.Sprintf("updates may not remove a condition of type %q", t)))
			case may == decision || t == certificatesv1.CertificateFailed:
			case len(is) > len(was):
				errs = append(errs, field.Forbidden(conditions, fmt.Sprintf("updates may not add a condition of type %q", t)))
			case !equality.Semantic.DeepEqual(was, is):
				errs = append(errs, field.Forbidden(conditions, fmt.Sprintf("updates may not modify a condition of type %q\n%v", t, diff.Diff(was, is))))
			}
		}
		at := field.NewPath("status", "certificate")
		if !bytes.Equal(r.Status.Certificate, old.Status.Certificate) {
			if err := validateCertificate(r.Status.Certificate); err != nil {
				errs = append(errs, field.Invalid(at, "<certificate data>", err.Error()))
			}
			switch {
			case may != certificate:
				errs = append(errs, field.Forbidden(at, "updates may not set certificate content"))
			case len(old.Status.Certificate) > 0:
				errs = append(errs, field.Forbidden(at, "updates may not modify existing certificate content"))
			}
		}
		return append(errs, rule.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta)...)
	}
}
