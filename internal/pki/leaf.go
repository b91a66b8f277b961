package pki

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// The identity of the admin kubeconfig.
const (
	AdminUser  = "kubernetes-admin"
	AdminGroup = "system:masters"
)

// request says what a certificate is for.
type request struct {
	subject pkix.Name
	ips     []netip.Addr
	names   []string
	server  bool
}

// Leaf is one certificate with its key, kept on disk and renewed when it is used with a third of its life left.
type Leaf struct {
	pki  *PKI
	name string
	path string

	mu      sync.Mutex // guards what follows and serialises renewal
	req     request
	current pair
	// changed says that current was issued for other addresses than req's.
	changed bool
}

func (p *PKI) leaf(name string, req request) *Leaf {
	return &Leaf{pki: p, name: name, path: filepath.Join(p.dir, name), req: req}
}

// readdress has the certificate made anew, for other addresses, when it is used next.
func (l *Leaf) readdress(ips []netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.req.ips = ips
	l.changed = l.current.cert != nil && !l.current.serves(l.req)
}

// open reads the file; one that is missing, unreadable, signed by another authority, or for other names is made anew: a leaf can
// always be had again from the authority.
func (l *Leaf) open() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	ca, err := l.pki.authority()
	if err != nil {
		return err
	}
	if have, err := readPair(l.path); err == nil && have.serves(l.req) && have.cert.CheckSignatureFrom(ca.cert) == nil {
		l.current = have
	}
	_, err = l.freshLocked()
	return err
}

func (l *Leaf) freshLocked() (pair, error) {
	if l.current.cert != nil && !l.changed && !due(l.current.cert, l.pki.clock.Now()) {
		return l.current, nil
	}
	ca, err := l.pki.authority()
	if err != nil {
		return pair{}, err
	}
	fresh, err := issue(ca, l.req, l.pki.clock.Now())
	if err != nil {
		return pair{}, err
	}
	if err := fresh.write(l.path); err != nil {
		return pair{}, err
	}
	l.current, l.changed = fresh, false
	return fresh, nil
}

func (l *Leaf) fresh() (pair, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.freshLocked()
}

// GetCertificate is for tls.Config.GetCertificate: it always gives the newest. A renewal that fails (a full disk) leaves the old one in
// use while it is valid.
func (l *Leaf) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p, err := l.fresh()
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.current.cert == nil || l.pki.clock.Now().After(l.current.cert.NotAfter) {
			return nil, err
		}
		p = l.current
	}
	return &tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key, Leaf: p.cert}, nil
}

// ClientCert issues a client certificate that is kept nowhere, with its key, both in PEM.
func (p *PKI) ClientCert(user string, groups ...string) (certPEM, keyPEM []byte, err error) {
	if user == "" {
		return nil, nil, fmt.Errorf("pki: a client certificate needs a user")
	}
	ca, err := p.authority()
	if err != nil {
		return nil, nil, err
	}
	c, err := issue(ca, request{subject: pkix.Name{CommonName: user, Organization: slices.Clone(groups)}}, p.clock.Now())
	if err != nil {
		return nil, nil, err
	}
	return c.certPEM(), c.keyPEM(), nil
}

// AdminKubeconfig is a kubeconfig for server (a URL) with an admin's client certificate in it. The certificate stays the same from
// call to call until it is renewed.
func (p *PKI) AdminKubeconfig(server string) ([]byte, error) {
	cert, err := p.admin.fresh()
	if err != nil {
		return nil, err
	}
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["carob"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: p.CA()}
	cfg.AuthInfos["carob-admin"] = &clientcmdapi.AuthInfo{ClientCertificateData: cert.certPEM(), ClientKeyData: cert.keyPEM()}
	cfg.Contexts["carob"] = &clientcmdapi.Context{Cluster: "carob", AuthInfo: "carob-admin"}
	cfg.CurrentContext = "carob"
	data, err := clientcmd.Write(*cfg)
	if err != nil {
		return nil, fmt.Errorf("pki: admin kubeconfig: %w", err)
	}
	return data, nil
}
