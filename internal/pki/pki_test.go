package pki_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"carob.dev/carob/internal/health"
	"carob.dev/carob/internal/pki"
	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
	testclock "k8s.io/utils/clock/testing"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string, clk *testclock.FakePassiveClock, ips ...string) *pki.PKI {
	t.Helper()
	cfg := pki.Config{NodeName: "node.example.org", Clock: clk}
	for _, ip := range ips {
		cfg.IPs = append(cfg.IPs, netip.MustParseAddr(ip))
	}
	p, err := pki.Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func leafOf(t *testing.T, l *pki.Leaf) *x509.Certificate {
	t.Helper()
	c, err := l.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf
}

func TestServingCertificates(t *testing.T) {
	clk := testclock.NewFakePassiveClock(start)
	p := open(t, t.TempDir(), clk, "10.0.0.1", "10.43.0.1", "10.0.0.1", "fd00::1")
	for _, tt := range []struct {
		name  string
		leaf  *pki.Leaf
		hosts []string
	}{
		{"API server", p.ServingCert(), []string{
			"127.0.0.1", "::1", "10.0.0.1", "10.43.0.1", "fd00::1", "localhost", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local", "node.example.org",
		}},
		{"agent", p.AgentServingCert(), []string{"127.0.0.1", "10.0.0.1", "localhost", "node.example.org"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, host := range tt.hosts {
				_, err := leafOf(t, tt.leaf).Verify(x509.VerifyOptions{DNSName: host, Roots: p.CACertPool(), CurrentTime: clk.Now()})
				if err != nil {
					t.Errorf("%s: %v", host, err)
				}
			}
		})
	}
}

func TestReopenKeepsEverything(t *testing.T) {
	dir, clk := t.TempDir(), testclock.NewFakePassiveClock(start)
	a := open(t, dir, clk, "10.0.0.1")
	b := open(t, dir, clk, "10.0.0.1")
	if !bytes.Equal(a.CA(), b.CA()) {
		t.Error("the authority changed")
	}
	if !leafOf(t, a.ServingCert()).Equal(leafOf(t, b.ServingCert())) {
		t.Error("the serving certificate changed")
	}
	if !a.ServiceAccountKey().Equal(b.ServiceAccountKey()) {
		t.Error("the service account key changed")
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]os.FileMode{}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		got[f.Name()] = info.Mode()
	}
	want := map[string]os.FileMode{
		"ca.pem": 0o600, "serving.pem": 0o600, "agent-serving.pem": 0o600, "admin.pem": 0o600, "service-account.pem": 0o600,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestOtherAddressesMakeANewLeaf(t *testing.T) {
	dir, clk := t.TempDir(), testclock.NewFakePassiveClock(start)
	a := open(t, dir, clk, "10.0.0.1")
	b := open(t, dir, clk, "10.0.0.2")
	if leafOf(t, a.ServingCert()).Equal(leafOf(t, b.ServingCert())) {
		t.Error("the certificate still carries the old address")
	}
	if !bytes.Equal(a.CA(), b.CA()) {
		t.Error("the authority changed")
	}
}

// TestAddressesThatChange: a certificate for other addresses is made once, and kept as any.
func TestAddressesThatChange(t *testing.T) {
	clk := testclock.NewFakePassiveClock(start)
	dir := t.TempDir()
	p := open(t, dir, clk, "10.0.0.1")
	before := leafOf(t, p.ServingCert())
	p.SetIPs([]netip.Addr{netip.MustParseAddr("10.0.0.1")})
	if leafOf(t, p.ServingCert()) != before {
		t.Error("the same addresses made a new certificate")
	}
	p.SetIPs([]netip.Addr{netip.MustParseAddr("10.0.0.2")})
	for _, l := range []*pki.Leaf{p.ServingCert(), p.AgentServingCert()} {
		c := leafOf(t, l)
		if c.VerifyHostname("10.0.0.2") != nil || c.VerifyHostname("10.0.0.1") == nil || c.VerifyHostname("127.0.0.1") != nil {
			t.Errorf("%v", c.IPAddresses)
		}
		if leafOf(t, l) != c {
			t.Error("it is made anew each time")
		}
	}
	after := leafOf(t, p.ServingCert())
	if again := leafOf(t, open(t, dir, clk, "10.0.0.2").ServingCert()); !again.Equal(after) {
		t.Error("it was not kept")
	}
}

func TestRenewalInProcess(t *testing.T) {
	clk := testclock.NewFakePassiveClock(start)
	p := open(t, t.TempDir(), clk)
	first := leafOf(t, p.ServingCert())
	clk.SetTime(start.Add(pki.LeafLifetime / 2))
	if !leafOf(t, p.ServingCert()).Equal(first) {
		t.Error("renewed with half of its life left")
	}
	clk.SetTime(start.Add(pki.LeafLifetime * 3 / 4))
	second := leafOf(t, p.ServingCert())
	if second.Equal(first) {
		t.Error("not renewed with a quarter of its life left")
	}
	if _, err := second.Verify(x509.VerifyOptions{Roots: p.CACertPool(), CurrentTime: clk.Now()}); err != nil {
		t.Error(err)
	}
	old := p.CACertPool()
	clk.SetTime(start.Add(pki.CALifetime * 3 / 4))
	third := leafOf(t, p.ServingCert())
	for name, pool := range map[string]*x509.CertPool{"old": old, "new": p.CACertPool()} {
		if _, err := third.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: clk.Now()}); err != nil {
			t.Errorf("under the %s authority: %v", name, err)
		}
	}
}

func TestBrokenFiles(t *testing.T) {
	for _, tt := range []struct {
		file string
		code string // empty: mended
	}{
		{"ca.pem", pki.CodeCorrupt},
		{"service-account.pem", pki.CodeCorrupt},
		{"serving.pem", ""},
		{"admin.pem", ""},
	} {
		t.Run(tt.file, func(t *testing.T) {
			dir, clk := t.TempDir(), testclock.NewFakePassiveClock(start)
			open(t, dir, clk)
			path := filepath.Join(dir, tt.file)
			if err := os.WriteFile(path, []byte("not PEM"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := pki.Open(dir, pki.Config{NodeName: "n", Clock: clk})
			got := ""
			if p, ok := health.As(err); ok {
				got = p.Code
			} else if err != nil {
				t.Fatal(err)
			}
			if got != tt.code {
				t.Errorf("code %q, want %q", got, tt.code)
			}
			if data, _ := os.ReadFile(path); tt.code != "" && string(data) != "not PEM" {
				t.Error("the broken file was touched")
			}
		})
	}
}

func TestAdminKubeconfig(t *testing.T) {
	p := open(t, t.TempDir(), testclock.NewFakePassiveClock(start))
	data, err := p.AdminKubeconfig("https://127.0.0.1:6443")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(cfg.CertData)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{pki.AdminGroup}, cert.Subject.Organization); d != "" {
		t.Error(d)
	}
	if cfg.Host != "https://127.0.0.1:6443" || !bytes.Equal(cfg.CAData, p.CA()) {
		t.Errorf("host %s, or another authority", cfg.Host)
	}
}

func TestHandshake(t *testing.T) {
	clk := testclock.NewFakePassiveClock(time.Now())
	p := open(t, t.TempDir(), clk)
	certPEM, keyPEM, err := p.ClientCert("system:node:a", "system:nodes")
	if err != nil {
		t.Fatal(err)
	}
	client, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	c, s := net.Pipe()
	defer c.Close()
	defer s.Close()
	server := tls.Server(s, &tls.Config{
		GetCertificate: p.ServingCert().GetCertificate, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: p.CACertPool(),
	})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := tls.Client(c, &tls.Config{
		ServerName: "localhost", RootCAs: p.CACertPool(), Certificates: []tls.Certificate{client},
	}).Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := server.ConnectionState().PeerCertificates[0].Subject; got.CommonName != "system:node:a" || got.Organization[0] != "system:nodes" {
		t.Errorf("client is %v", got)
	}
}
