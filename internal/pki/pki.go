// Package pki is the cluster's own trust: one ECDSA certificate authority, the certificates that the API server and the node
// agent serve with, client certificates, and the key that signs service account tokens.
//
// Everything lives in one folder, one PEM file (mode 0600, certificate and key together) per identity, written atomically. Nothing
// runs in the background: a certificate is looked at each time it is used and made anew when a third of its life is left, so a process
// that runs for years never serves an expired one. It imports sys for the atomic write and health for coded problems.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"carob.dev/carob/internal/health"
	"carob.dev/carob/internal/sys"
	"k8s.io/utils/clock"
)

// Lifetimes of what is issued. Certificates start valid a little in the past, for clocks that differ.
const (
	CALifetime   = 10 * 365 * 24 * time.Hour
	LeafLifetime = 365 * 24 * time.Hour
	backdate     = 5 * time.Minute
)

// CodeCorrupt is the code of the Problem that Open returns when a file that cannot be made anew without breaking trust is unreadable.
const CodeCorrupt = "PKICorrupt"

// Config says who the certificates are for.
type Config struct {
	// NodeName is the node's name in the API; the agent's certificate carries it.
	NodeName string
	// IPs are the addresses that the API server and the agent are reached at, the kubernetes Service's among them. Loopback is added.
	IPs []netip.Addr
	// DNSNames are more names of the API server. localhost and kubernetes.default.svc and its like are added.
	DNSNames []string
	// ClusterDomain ends the names of Services; cluster.local if empty.
	ClusterDomain string
	// Clock is the time; the real one if nil.
	Clock clock.PassiveClock
}

// PKI is an open folder of keys and certificates. It is safe for concurrent use.
type PKI struct {
	dir   string
	clock clock.PassiveClock

	serving, agent, admin *Leaf
	serviceAccount        *ecdsa.PrivateKey

	mu sync.Mutex // guards ca and serialises its renewal
	ca pair
}

// Open reads dir, and makes what is missing, about to expire, or issued for other names than cfg says.
// A certificate authority or service account key that is there but unreadable is a *health.Problem and is left as it is.
func Open(dir string, cfg Config) (*PKI, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.ClusterDomain == "" {
		cfg.ClusterDomain = "cluster.local"
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	p := &PKI{dir: dir, clock: cfg.Clock}
	if err := p.openCA(); err != nil {
		return nil, err
	}
	var err error
	if p.serviceAccount, err = p.openKey("service-account.pem"); err != nil {
		return nil, err
	}
	ips := withLoopback(cfg.IPs)
	names := []string{
		"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc." + cfg.ClusterDomain,
	}
	agentNames := []string{"localhost"}
	if cfg.NodeName != "" {
		names = append(names, cfg.NodeName)
		agentNames = append(agentNames, cfg.NodeName)
	}
	names = append(names, cfg.DNSNames...)

	p.serving = p.leaf("serving.pem", request{subject: pkix.Name{CommonName: "kube-apiserver"}, ips: ips, names: names, server: true})
	p.agent = p.leaf("agent-serving.pem", request{
		subject: pkix.Name{CommonName: "system:node:" + cfg.NodeName, Organization: []string{"system:nodes"}},
		ips:     ips, names: agentNames, server: true,
	})
	p.admin = p.leaf("admin.pem", request{
		subject: pkix.Name{CommonName: AdminUser, Organization: []string{AdminGroup}},
	})
	for _, l := range []*Leaf{p.serving, p.agent, p.admin} {
		if err := l.open(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// SetIPs says that the servers are reached at other addresses now: certificates for them are made when they are used next.
func (p *PKI) SetIPs(ips []netip.Addr) {
	for _, l := range []*Leaf{p.serving, p.agent} {
		l.readdress(withLoopback(ips))
	}
}

func withLoopback(ips []netip.Addr) []netip.Addr {
	return append([]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, ips...)
}

// ServingCert is the API server's certificate.
func (p *PKI) ServingCert() *Leaf { return p.serving }

// AgentServingCert is the certificate of the node agent's own server.
func (p *PKI) AgentServingCert() *Leaf { return p.agent }

// ServiceAccountKey signs service account tokens; its public half verifies them.
func (p *PKI) ServiceAccountKey() *ecdsa.PrivateKey { return p.serviceAccount }

// CA is the authority's certificate in PEM: what clients trust.
func (p *PKI) CA() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ca.certPEM()
}

// CACertPool is a new pool that holds the authority alone.
func (p *PKI) CACertPool() *x509.CertPool {
	p.mu.Lock()
	defer p.mu.Unlock()
	pool := x509.NewCertPool()
	pool.AddCert(p.ca.cert)
	return pool
}

// openCA reads the authority or makes it. An authority that nears its end gets a new certificate over the same key, so that all that
// it signed stays valid and clients that trust the old one go on until that expires.
func (p *PKI) openCA() error {
	path := filepath.Join(p.dir, "ca.pem")
	ca, err := readPair(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return fmt.Errorf("pki: make the authority's key: %w", err)
		}
		ca = pair{key: key}
	case err != nil:
		return corrupt(path, "the cluster's certificate authority", err)
	case !due(ca.cert, p.clock.Now()):
		p.ca = ca
		return nil
	}
	if p.ca, err = selfSign(ca.key, p.clock.Now()); err != nil {
		return err
	}
	return p.ca.write(path)
}

// authority returns the authority, renewed if it is time.
func (p *PKI) authority() (pair, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if due(p.ca.cert, p.clock.Now()) {
		ca, err := selfSign(p.ca.key, p.clock.Now())
		if err != nil {
			return pair{}, err
		}
		if err := ca.write(filepath.Join(p.dir, "ca.pem")); err != nil {
			return pair{}, err
		}
		p.ca = ca
	}
	return p.ca, nil
}

// openKey reads a bare private key or makes it.
func (p *PKI) openKey(name string) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(p.dir, name)
	data, err := os.ReadFile(path)
	if err == nil {
		key, err := parseKey(data)
		if err != nil {
			return nil, corrupt(path, "the key that signs service account tokens", err)
		}
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("pki: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("pki: make %s: %w", name, err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("pki: make %s: %w", name, err)
	}
	if err := sys.WriteFileAtomic(path, pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), 0o600); err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	return key, nil
}

func corrupt(path, what string, err error) error {
	return &health.Problem{
		Code:     CodeCorrupt,
		Severity: health.Error,
		What:     fmt.Sprintf("%s (%s) cannot be read", what, path),
		Why:      err.Error(),
		Fix: fmt.Sprintf("restore %s from a backup; if there is none, move it away: a new one is made at the next start, "+
			"and what the old one signed is no longer trusted", path),
	}
}
