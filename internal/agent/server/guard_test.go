package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestSubresources(t *testing.T) {
	for path, want := range map[string][]string{
		"/pods": {"pods", "proxy"}, "/runningpods/": {"pods", "proxy"}, "/stats/summary": {"stats"}, "/metrics": {"metrics"}, "/metrics/cadvisor": {"metrics"},
		"/logs/syslog": {"log"}, "/checkpoint/a/b/c": {"checkpoint"}, "/healthz": {"healthz", "proxy"}, "/healthz/ping": {"healthz", "proxy"},
		"/configz": {"configz", "proxy"}, "/containerLogs/a/b/c": {"proxy"}, "/exec/a/b/c": {"proxy"}, "/run/a/b/c": {"proxy"}, "/": {"proxy"},
		"/metricsx": {"proxy"}, "/podsx": {"proxy"}, "/statsx/y": {"proxy"}, "//stats": {"proxy"},
	} {
		if diff := cmp.Diff(want, subresources(path)); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
}

// authority signs client certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := authority{cert: &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), Subject: pkix.Name{CommonName: "ca"}}, key: key}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a authority) issue(t *testing.T, name string, groups ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name, Organization: groups},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestGuard has clients of all sorts come over TLS: those that are let through are told who they are to the API server, which decides.
func TestGuard(t *testing.T) {
	ca, foreign := newAuthority(t), newAuthority(t)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	client := fake.NewClientset()
	var reviews, tokens int
	client.PrependReactor("create", "tokenreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		tokens++
		r := a.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenReview)
		switch r.Spec.Token {
		case "good":
			r.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: "scraper", Groups: []string{"g"}}}
		case "down":
			return true, nil, fmt.Errorf("the API server is away")
		}
		return true, r, nil
	})
	client.PrependReactor("create", "subjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		reviews++
		r := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview)
		w := r.Spec.ResourceAttributes
		r.Status.Allowed = w.Name == "n1" && w.Resource == "nodes" && w.Verb == "get" &&
			(r.Spec.User == "scraper" && w.Subresource == "metrics" || r.Spec.User == "reader" && w.Subresource == "pods" || r.Spec.User == "proxier" && w.Subresource == "proxy")
		return true, r, nil
	})
	serving := ca.issue(t, "node")
	g := NewGuard("n1", client, func() *x509.CertPool { return pool }, slog.New(slog.DiscardHandler))
	l, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &serving, nil },
		g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "served") })), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go l.Run(t.Context())
	for name, c := range map[string]struct {
		cert         *tls.Certificate
		token        string
		method, path string
		want         int
		body         string
	}{
		"nobody":                              {nil, "", "GET", "/metrics", 401, "Unauthorized"},
		"nobody, not even for healthz":        {nil, "", "GET", "/healthz", 401, "Unauthorized"},
		"a bad token":                         {nil, "bad", "GET", "/metrics", 401, "Unauthorized"},
		"a token that cannot be reviewed":     {nil, "down", "GET", "/metrics", 401, "Unauthorized"},
		"a token that may":                    {nil, "good", "GET", "/metrics/resource", 200, "served"},
		"a token that may not do that":        {nil, "good", "GET", "/pods", 403, "Forbidden (user=scraper, verb=get, resource=nodes, subresource(s)=[pods proxy])"},
		"a token that may read, not write":    {nil, "good", "POST", "/metrics", 403, "Forbidden (user=scraper, verb=create"},
		"a certificate with the fine right":   {ptr(ca.issue(t, "reader")), "", "GET", "/pods", 200, "served"},
		"a certificate with the coarse right": {ptr(ca.issue(t, "proxier")), "", "GET", "/pods", 200, "served"},
		"the coarse right is none for stats":  {ptr(ca.issue(t, "proxier")), "", "GET", "/stats/summary", 403, "Forbidden"},
		"the fine right is none for exec":     {ptr(ca.issue(t, "reader")), "", "POST", "/exec/a/b/c", 403, "Forbidden"},
		"system:masters":                      {ptr(ca.issue(t, "admin", "system:masters")), "", "POST", "/exec/a/b/c", 200, "served"},
		"another authority's system:masters":  {ptr(foreign.issue(t, "admin", "system:masters")), "", "GET", "/pods", 401, "Unauthorized"},
	} {
		t.Run(name, func(t *testing.T) {
			conf := &tls.Config{RootCAs: pool, ServerName: "localhost"}
			if c.cert != nil {
				conf.Certificates = []tls.Certificate{*c.cert}
			}
			transport := &http.Transport{TLSClientConfig: conf}
			defer transport.CloseIdleConnections()
			req, err := http.NewRequestWithContext(t.Context(), c.method, "https://"+l.Addr().String()+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.token != "" {
				req.Header.Set("Authorization", "Bearer "+c.token)
			}
			resp, err := (&http.Client{Transport: transport}).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != c.want || !strings.Contains(string(body), c.body) {
				t.Errorf("%d %q %v, want %d %q", resp.StatusCode, body, err, c.want, c.body)
			}
		})
	}
	var before, beforeTokens int
	for i := range 4 {
		if ok, err := g.may(t.Context(), mustReview(t, g), "get", []string{"metrics"}); !ok || err != nil {
			t.Errorf("%v %v", ok, err)
		}
		if i == 0 {
			before, beforeTokens = reviews, tokens
		}
	}
	if reviews != before || tokens != beforeTokens {
		t.Errorf("the API server was asked again %d and %d times for what it had just answered", reviews-before, tokens-beforeTokens)
	}
}

func mustReview(t *testing.T, g *Guard) user.Info {
	t.Helper()
	r, ok, err := g.review(t.Context(), "good")
	if !ok || err != nil {
		t.Fatalf("%v %v", ok, err)
	}
	return r.User
}

func ptr[T any](v T) *T { return &v }

func TestPage(t *testing.T) {
	var p page
	p.add("b_total", counter, "B", 1.5, time.UnixMilli(1700), "x", "a\"b\\c\nd", "y", "")
	p.add("a", gauge, "A", 3, time.Time{})
	p.add("b_total", counter, "B", 12345678, time.Time{}, "x", "z")
	w := httptest.NewRecorder()
	p.write(w)
	want := "# HELP a A\n# TYPE a gauge\na 3\n# HELP b_total B\n# TYPE b_total counter\nb_total{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 1.5 1700\nb_total{x=\"z\"} 1.2345678e+07\n"
	if diff := cmp.Diff(want, w.Body.String()); diff != "" {
		t.Error(diff)
	}
}
