package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
)

const (
	// longest is how long a certificate lives at most, and if the request does not say; shortest the least.
	longest  = 365 * 24 * time.Hour
	shortest = 10 * time.Minute

	// How long requests are kept: those that nobody decided about, and those that came to an end. Kubernetes' values.
	keepPending = 24 * time.Hour
	keepDecided = time.Hour
)

func has(r *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == t })
}

// ready says whether a request waits for a certificate of a signer of ours.
func ready(r *certificatesv1.CertificateSigningRequest) bool {
	switch r.Spec.SignerName {
	case certificatesv1.KubeAPIServerClientSignerName, certificatesv1.KubeAPIServerClientKubeletSignerName, certificatesv1.KubeletServingSignerName:
	default:
		return false
	}
	return has(r, certificatesv1.CertificateApproved) && !has(r, certificatesv1.CertificateDenied) && !has(r, certificatesv1.CertificateFailed) &&
		len(r.Status.Certificate) == 0
}

// over is when a request is of no more use to anybody. A request that was approved for a signer that does not sign is kept as long as one
// that nobody decided about.
func over(r *certificatesv1.CertificateSigningRequest) time.Time {
	at := r.CreationTimestamp.Add(keepPending)
	for _, c := range r.Status.Conditions {
		decided := c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed ||
			c.Type == certificatesv1.CertificateApproved && len(r.Status.Certificate) > 0
		if end := c.LastUpdateTime.Add(keepDecided); decided && end.Before(at) {
			at = end
		}
	}
	return at
}

// life is how long the certificate lives that was asked for.
func life(seconds *int32) time.Duration {
	if seconds == nil {
		return longest
	}
	return min(longest, max(shortest, time.Duration(*seconds)*time.Second))
}

func parse(in []byte) (*x509.CertificateRequest, error) {
	b, _ := pem.Decode(in)
	if b == nil {
		return nil, errors.New("the request is not in PEM")
	}
	csr, err := x509.ParseCertificateRequest(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("unable to parse csr: %w", err)
	}
	return csr, csr.CheckSignature()
}

// check is what a signer wants of a request, whoever has approved it.
func check(signer string, csr *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	role := certificatesv1.UsageClientAuth
	if signer == certificatesv1.KubeletServingSignerName {
		role = certificatesv1.UsageServerAuth
	}
	for _, u := range usages {
		if u != role && u != certificatesv1.UsageDigitalSignature && u != certificatesv1.UsageKeyEncipherment {
			return fmt.Errorf("invalid usage for this signer: %s", u)
		}
	}
	if !slices.Contains(usages, role) {
		return fmt.Errorf("missing required usage: %s", role)
	}
	if signer == certificatesv1.KubeAPIServerClientSignerName {
		if slices.Contains(csr.Subject.Organization, "system:masters") {
			return errors.New("the group system:masters is not given by certificates")
		}
		return nil
	}
	switch {
	case !slices.Equal(csr.Subject.Organization, []string{"system:nodes"}):
		return errors.New("subject organization is not system:nodes")
	case !strings.HasPrefix(csr.Subject.CommonName, "system:node:"):
		return errors.New("subject common name does not begin with system:node:")
	case !slices.Contains(usages, certificatesv1.UsageDigitalSignature):
		return fmt.Errorf("missing required usage: %s", certificatesv1.UsageDigitalSignature)
	case len(csr.EmailAddresses) > 0:
		return errors.New("Email subjectAltNames are not allowed")
	case len(csr.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	}
	names := len(csr.DNSNames) + len(csr.IPAddresses)
	switch {
	case signer == certificatesv1.KubeletServingSignerName && names == 0:
		return errors.New("DNS or IP subjectAltName is required")
	case signer != certificatesv1.KubeletServingSignerName && names > 0:
		return errors.New("DNS and IP subjectAltNames are not allowed")
	}
	return nil
}
