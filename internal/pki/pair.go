package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"carob.dev/carob/internal/sys"
)

const (
	certBlock = "CERTIFICATE"
	keyBlock  = "EC PRIVATE KEY"
)

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// due says whether at most a third of the certificate's life is left.
func due(c *x509.Certificate, now time.Time) bool {
	return now.After(c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3))
}

func (p pair) certPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: p.cert.Raw})
}

func (p pair) keyPEM() []byte {
	der, err := x509.MarshalECPrivateKey(p.key)
	if err != nil { // only for curves that have no name, and all our keys are P-256
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der})
}

func (p pair) write(path string) error {
	if err := sys.WriteFileAtomic(path, append(p.certPEM(), p.keyPEM()...), 0o600); err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	return nil
}

// serves says whether the certificate was issued for the same subject, names and addresses.
func (p pair) serves(r request) bool {
	got := slices.Clone(p.cert.DNSNames)
	for _, ip := range p.cert.IPAddresses {
		got = append(got, ip.String())
	}
	want := slices.Clone(r.names)
	for _, ip := range r.ips {
		want = append(want, ip.Unmap().String())
	}
	slices.Sort(got)
	slices.Sort(want)
	return slices.Equal(slices.Compact(got), slices.Compact(want)) &&
		p.cert.Subject.CommonName == r.subject.CommonName &&
		slices.Equal(p.cert.Subject.Organization, r.subject.Organization)
}

// readPair reads a PEM file with one certificate and the key that belongs to it.
func readPair(path string) (pair, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return pair{}, err
	}
	key, err := parseKey(data)
	if err != nil {
		return pair{}, err
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != certBlock {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return pair{}, err
		}
		if !key.PublicKey.Equal(cert.PublicKey) {
			return pair{}, fmt.Errorf("the key does not belong to the certificate")
		}
		return pair{cert: cert, key: key}, nil
	}
	return pair{}, fmt.Errorf("no %s block", certBlock)
}

// parseKey finds the private key among the PEM blocks of data.
func parseKey(data []byte) (*ecdsa.PrivateKey, error) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == keyBlock {
			return x509.ParseECPrivateKey(block.Bytes)
		}
	}
	return nil, fmt.Errorf("no %s block", keyBlock)
}

func serial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("pki: serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

func selfSign(key *ecdsa.PrivateKey, now time.Time) (pair, error) {
	n, err := serial()
	if err != nil {
		return pair{}, err
	}
	t := &x509.Certificate{
		SerialNumber:          n,
		Subject:               pkix.Name{CommonName: "carob"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(CALifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	return sign(t, t, key, key)
}

func issue(ca pair, r request, now time.Time) (pair, error) {
	n, err := serial()
	if err != nil {
		return pair{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, fmt.Errorf("pki: make a key: %w", err)
	}
	usage := x509.ExtKeyUsageClientAuth
	if r.server {
		usage = x509.ExtKeyUsageServerAuth
	}
	t := &x509.Certificate{
		SerialNumber: n,
		Subject:      r.subject,
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(LeafLifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{usage},
		DNSNames:     compact(r.names, func(a, b string) bool { return a == b }),
		IPAddresses:  compact(addresses(r.ips), net.IP.Equal),
	}
	return sign(t, ca.cert, key, ca.key)
}

func sign(t, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, signer)
	if err != nil {
		return pair{}, fmt.Errorf("pki: sign %s: %w", t.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return pair{}, fmt.Errorf("pki: sign %s: %w", t.Subject.CommonName, err)
	}
	return pair{cert: cert, key: key}, nil
}

func addresses(in []netip.Addr) []net.IP {
	out := make([]net.IP, len(in))
	for i, a := range in {
		out[i] = a.Unmap().AsSlice()
	}
	return out
}

// compact drops later copies of the same element and keeps the order.
func compact[T any](in []T, same func(a, b T) bool) []T {
	var out []T
	for _, v := range in {
		if !slices.ContainsFunc(out, func(o T) bool { return same(o, v) }) {
			out = append(out, v)
		}
	}
	return out
}
