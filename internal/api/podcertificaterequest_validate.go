package api

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/mail"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

func inRange(low, high int32) string { return fmt.Sprintf("must be in the range [%d, %d]", low, high) }

// validatePodCertificateKey wants a certificate request, whose signature proves that the requester has the key.
func validatePodCertificateKey(s *certificatesv1.PodCertificateRequestSpec) field.ErrorList {
	at := field.NewPath("spec", "stubPKCS10Request")
	switch n := len(s.StubPKCS10Request); {
	case n == 0:
		return field.ErrorList{field.Required(at, "")}
	case n > maxPodCertificateKey:
		return field.ErrorList{field.TooLong(at, s.StubPKCS10Request, maxPodCertificateKey)}
	}
	csr, err := x509.ParseCertificateRequest(s.StubPKCS10Request)
	if err != nil {
		return field.ErrorList{field.Invalid(at, field.OmitValueType{}, "must be a valid PKCS#10 CSR")}
	}
	if errs := validateKey(at, csr.PublicKey); len(errs) > 0 {
		return errs
	}
	if csr.CheckSignature() != nil {
		return field.ErrorList{field.Invalid(at, field.OmitValueType{}, "invalid signature")}
	}
	return nil
}

func validateKey(at *field.Path, key any) field.ErrorList {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if c := k.Curve; c != elliptic.P256() && c != elliptic.P384() && c != elliptic.P521() {
			return field.ErrorList{field.Invalid(at, "curve "+c.Params().Name, "elliptic public keys must use curve P256, P384, or P521")}
		}
		return nil
	case *rsa.PublicKey:
		if n := k.Size() * 8; n != 3072 && n != 4096 {
			return field.ErrorList{field.Invalid(at, fmt.Sprintf("%d-bit modulus", n), "RSA keys must have modulus size 3072 or 4096")}
		}
		return nil
	}
	return field.ErrorList{field.Invalid(at, field.OmitValueType{}, "unknown public key type; supported types are Ed25519, ECDSA, and RSA")}
}

// validatePodCertificateStatus lets a request end once, in one of three ways.
func validatePodCertificateStatus(r, old *certificatesv1.PodCertificateRequest, now time.Time) field.ErrorList {
	errs := rule.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta)
	if len(errs) > 0 {
		return errs
	}
	at := field.NewPath("status")
	for i, c := range r.Status.Conditions {
		ci := at.Child("conditions").Index(i)
		errs = append(errs, rule.Known(ci.Child("type"), c.Type, certificatesv1.PodCertificateRequestConditionTypeIssued,
			certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed)...)
		errs = append(errs, rule.Known(ci.Child("status"), c.Status, metav1.ConditionTrue)...)
		if i > 0 {
			errs = append(errs, field.Invalid(ci.Child("type"), c.Type, `There may be at most one condition with type "Issued", "Denied", or "Failed"`))
		}
	}
	errs = append(errs, metav1validation.ValidateConditions(r.Status.Conditions, at.Child("conditions"))...)
	if len(errs) > 0 {
		return errs
	}
	must := func(want certificatesv1.PodCertificateRequestStatus, say string) field.ErrorList {
		if equality.Semantic.DeepEqual(r.Status, want) {
			return nil
		}
		return field.ErrorList{field.Invalid(at, field.OmitValueType{}, say)}
	}
	if podCertificateState(old) != "" {
		return must(old.Status, "immutable after PodCertificateRequest is issued, denied, or failed")
	}
	switch podCertificateState(r) {
	case "":
		return must(old.Status, `status is immutable unless transitioning to "Issued", "Denied", or "Failed"`)
	case certificatesv1.PodCertificateRequestConditionTypeIssued:
		return validateIssued(r, old, now)
	}
	return must(certificatesv1.PodCertificateRequestStatus{Conditions: r.Status.Conditions},
		"non-condition status fields must be empty when denying or failing the PodCertificateRequest")
}

// validateIssued checks that the certificate is for the key that was asked for, and that the status says what it says.
func validateIssued(r, old *certificatesv1.PodCertificateRequest, now time.Time) field.ErrorList {
	at, s := field.NewPath("status"), &r.Status
	chain := at.Child("certificateChain")
	if len(s.CertificateChain) > maxPodCertificateChain {
		return field.ErrorList{field.TooLong(chain, s.CertificateChain, maxPodCertificateChain)}
	}
	certs, msg := parseChain(s.CertificateChain)
	if msg != "" {
		return field.ErrorList{field.Invalid(chain, s.CertificateChain, msg)}
	}
	leaf := certs[0]
	errs := validateLeafNames(chain, leaf)
	if !sameKey(requestedKey(&old.Spec), leaf.PublicKey) {
		return append(errs, field.Invalid(chain, s.CertificateChain, "leaf certificate was not issued to the requested public key"))
	}
	for _, t := range []struct {
		name, say string
		time      *metav1.Time
	}{
		{"notBefore", "must be present and consistent with the issued certificate", s.NotBefore},
		{"notAfter", "must be present and consistent with the issued certificate", s.NotAfter},
		{"beginRefreshAt", "must be present and in the range [notbefore+10min, notafter-10min]", s.BeginRefreshAt},
	} {
		if t.time == nil {
			errs = append(errs, field.Required(at.Child(t.name), t.say))
		}
	}
	if len(errs) > 0 {
		return errs
	}
	const skew, margin = 5 * time.Minute, 10 * time.Minute
	lifetime := leaf.NotAfter.Sub(leaf.NotBefore)
	var most time.Duration
	if n := r.Spec.MaxExpirationSeconds; n != nil {
		most = time.Duration(*n) * time.Second
	}
	switch {
	case !s.NotBefore.Time.Equal(leaf.NotBefore):
		return field.ErrorList{field.Invalid(at.Child("notBefore"), s.NotBefore.Time, "must be set to the NotBefore time encoded in the leaf certificate")}
	case s.NotBefore.Sub(now).Abs() >= skew:
		return field.ErrorList{field.Invalid(at.Child("notBefore"), s.NotBefore.Time, "must be set to within 5 minutes of kube-apiserver's current time")}
	case !s.NotAfter.Time.Equal(leaf.NotAfter):
		return field.ErrorList{field.Invalid(at.Child("notAfter"), s.NotAfter.Time, "must be set to the NotAfter time encoded in the leaf certificate")}
	case lifetime < time.Hour:
		return field.ErrorList{field.Invalid(chain, lifetime, "leaf certificate lifetime must be >= 1 hour")}
	case lifetime > most:
		return field.ErrorList{field.Invalid(chain, lifetime, fmt.Sprintf("leaf certificate lifetime must be <= spec.maxExpirationSeconds (%v)", int64(most.Seconds())))}
	case s.BeginRefreshAt.Time.Before(s.NotBefore.Add(margin)):
		return field.ErrorList{field.Invalid(at.Child("beginRefreshAt"), s.BeginRefreshAt.Time, "must be at least 10 minutes after status.notBefore")}
	case s.BeginRefreshAt.Time.After(s.NotAfter.Add(-margin)):
		return field.ErrorList{field.Invalid(at.Child("beginRefreshAt"), s.BeginRefreshAt.Time, "must be at least 10 minutes before status.notAfter")}
	}
	return nil
}

// parseChain reads certificates in PEM, the leaf first, or says what is wrong.
func parseChain(in string) (certs []*x509.Certificate, wrong string) {
	for rest := []byte(in); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		cert, err := x509.ParseCertificate(b.Bytes)
		switch {
		case b.Type != "CERTIFICATE":
			return nil, "issued certificate chain must consist entirely of CERTIFICATE PEM blocks"
		case err != nil && len(certs) == 0:
			return nil, "leaf certificate does not parse as valid X.509"
		case err != nil:
			return nil, "intermediate certificate does not parse as valid X.509"
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, "issued certificate chain must contain at least one certificate"
	}
	return certs, ""
}

func validateLeafNames(at *field.Path, leaf *x509.Certificate) field.ErrorList {
	var errs field.ErrorList
	for _, n := range leaf.DNSNames {
		switch {
		case n == "":
			errs = append(errs, field.Invalid(at, n, "leaf certificate should not contain empty DNSName"))
		case strings.Contains(n, ".."):
			errs = append(errs, field.Invalid(at, n, "leaf certificate's DNSName should not contain '..'"))
		case strings.HasPrefix(n, ".") || strings.HasSuffix(n, "."):
			errs = append(errs, field.Invalid(at, n, "leaf certificate's DNSName should not start or end with '.'"))
		}
	}
	for _, a := range leaf.EmailAddresses {
		if _, err := mail.ParseAddress(a); err != nil {
			errs = append(errs, field.Invalid(at, a, "leaf certificate should not contain invalid EmailAddress"))
		}
	}
	return errs
}

// requestedKey is the key of a request that was found valid.
func requestedKey(s *certificatesv1.PodCertificateRequestSpec) any {
	csr, err := x509.ParseCertificateRequest(s.StubPKCS10Request)
	if err != nil {
		return nil
	}
	return csr.PublicKey
}

func sameKey(a, b any) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
