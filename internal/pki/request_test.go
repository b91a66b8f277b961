package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
)

func TestSignRequest(t *testing.T) {
	p, err := Open(t.TempDir(), Config{NodeName: "n"})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "jane", Organization: []string{"team"}}, PublicKey: &key.PublicKey}
	raw, err := p.Sign(r, []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(raw)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if cert.IsCA || cert.Subject.CommonName != "jane" || !key.PublicKey.Equal(cert.PublicKey) || cert.NotAfter.After(time.Now().Add(time.Hour)) {
		t.Errorf("%+v", cert)
	}
	as := func(u x509.ExtKeyUsage) error {
		_, err := cert.Verify(x509.VerifyOptions{Roots: p.CACertPool(), KeyUsages: []x509.ExtKeyUsage{u}})
		return err
	}
	if err := as(x509.ExtKeyUsageClientAuth); err != nil {
		t.Error(err)
	}
	if err := as(x509.ExtKeyUsageServerAuth); err == nil {
		t.Error("it is good for a server too")
	}
	raw, err = p.Sign(r, nil, 200*365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	block, _ = pem.Decode(raw)
	if cert, err = x509.ParseCertificate(block.Bytes); err != nil || cert.NotAfter.After(p.ca.cert.NotAfter) {
		t.Errorf("it outlives the authority: %v %v", cert.NotAfter, err)
	}
}
