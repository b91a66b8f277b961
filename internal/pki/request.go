package pki

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
)

// Sign makes a certificate for the key, the subject and the names of a request, with these usages and no other rights, and returns it in PEM. It
// never outlives the authority. Whether the request may have it, the caller knows.
func (p *PKI) Sign(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage, life time.Duration) ([]byte, error) {
	n, err := serial()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	ca := p.ca
	p.mu.Unlock()
	now := p.clock.Now()
	end := now.Add(life)
	if end.After(ca.cert.NotAfter) {
		end = ca.cert.NotAfter
	}
	t := &x509.Certificate{
		SerialNumber: n, Subject: r.Subject, NotBefore: now.Add(-backdate), NotAfter: end, BasicConstraintsValid: true,
		DNSNames: r.DNSNames, IPAddresses: r.IPAddresses, EmailAddresses: r.EmailAddresses, URIs: r.URIs,
	}
	if slices.Contains(usages, certificatesv1.UsageDigitalSignature) {
		t.KeyUsage |= x509.KeyUsageDigitalSignature
	}
	if slices.Contains(usages, certificatesv1.UsageKeyEncipherment) {
		t.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	if slices.Contains(usages, certificatesv1.UsageClientAuth) {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if slices.Contains(usages, certificatesv1.UsageServerAuth) {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca.cert, r.PublicKey, ca.key)
	if err != nil {
		return nil, fmt.Errorf("pki: sign %s: %w", r.Subject.CommonName, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
