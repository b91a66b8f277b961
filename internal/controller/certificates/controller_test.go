package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clocktesting "k8s.io/utils/clock/testing"
)

const (
	client, kubeletClient, serving = certificatesv1.KubeAPIServerClientSignerName, certificatesv1.KubeAPIServerClientKubeletSignerName,
		certificatesv1.KubeletServingSignerName
)

func TestCheck(t *testing.T) {
	node := pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}
	of := func(names ...string) *x509.CertificateRequest {
		return &x509.CertificateRequest{Subject: node, DNSNames: names}
	}
	signature, auth, server := certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth, certificatesv1.UsageServerAuth
	for _, tt := range []struct {
		name, signer string
		csr          *x509.CertificateRequest
		usages       []certificatesv1.KeyUsage
		want         string
	}{
		{"a person", client, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "jane"}}, []certificatesv1.KeyUsage{auth}, ""},
		{"a master", client, &x509.CertificateRequest{Subject: pkix.Name{Organization: []string{"system:masters"}}}, []certificatesv1.KeyUsage{auth}, "system:masters"},
		{"a server that asks as a client", client, &x509.CertificateRequest{}, []certificatesv1.KeyUsage{auth, server}, "invalid usage"},
		{"no client", client, &x509.CertificateRequest{}, []certificatesv1.KeyUsage{signature}, "missing required usage"},
		{"a node as a client", kubeletClient, of(), []certificatesv1.KeyUsage{auth, signature}, ""},
		{"a node as a client with names", kubeletClient, of("n1"), []certificatesv1.KeyUsage{auth, signature}, "not allowed"},
		{"a node as a server", serving, of("n1"), []certificatesv1.KeyUsage{server, signature}, ""},
		{"a node as a server without names", serving, of(), []certificatesv1.KeyUsage{server, signature}, "is required"},
		{"no node", serving, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "x", Organization: node.Organization}, DNSNames: []string{"a"}},
			[]certificatesv1.KeyUsage{server, signature}, "does not begin with system:node:"},
		{"not of the nodes", serving, &x509.CertificateRequest{Subject: pkix.Name{CommonName: node.CommonName}, DNSNames: []string{"a"}},
			[]certificatesv1.KeyUsage{server, signature}, "organization is not system:nodes"},
	} {
		err := check(tt.signer, tt.csr, tt.usages)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestLife(t *testing.T) {
	second, year, day := int32(1), int32(1<<31-1), int32(86400)
	for in, want := range map[*int32]time.Duration{nil: longest, &second: shortest, &year: longest, &day: 24 * time.Hour} {
		if got := life(in); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

func TestSync(t *testing.T) {
	now := time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "jane"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	make := func(age time.Duration, change func(*certificatesv1.CertificateSigningRequest)) *certificatesv1.CertificateSigningRequest {
		r := &certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{Name: "r", UID: "1", CreationTimestamp: metav1.NewTime(now.Add(-age))},
			Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: client, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
				Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})},
		}
		change(r)
		return r
	}
	decided := func(t certificatesv1.RequestConditionType, age time.Duration) func(*certificatesv1.CertificateSigningRequest) {
		return func(r *certificatesv1.CertificateSigningRequest) {
			r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
				Type: t, Status: corev1.ConditionTrue, LastUpdateTime: metav1.NewTime(now.Add(-age))})
		}
	}
	for _, tt := range []struct {
		name    string
		request *certificatesv1.CertificateSigningRequest
		sign    error
		want    string // "signed", "failed", "gone", or nothing for as it was
	}{
		{"pending", make(time.Hour, func(*certificatesv1.CertificateSigningRequest) {}), nil, ""},
		{"pending for a day", make(25*time.Hour, func(*certificatesv1.CertificateSigningRequest) {}), nil, "gone"},
		{"approved", make(time.Minute, decided(certificatesv1.CertificateApproved, 0)), nil, "signed"},
		{"approved long ago", make(3*time.Hour, decided(certificatesv1.CertificateApproved, 2*time.Hour)), nil, "signed"},
		{"denied", make(time.Minute, decided(certificatesv1.CertificateDenied, 0)), nil, ""},
		{"denied an hour ago", make(3*time.Hour, decided(certificatesv1.CertificateDenied, 61*time.Minute)), nil, "gone"},
		{"cannot be signed", make(time.Minute, decided(certificatesv1.CertificateApproved, 0)), errors.New("no"), "failed"},
		{"another usage", make(time.Minute, func(r *certificatesv1.CertificateSigningRequest) {
			decided(certificatesv1.CertificateApproved, 0)(r)
			r.Spec.Usages = []certificatesv1.KeyUsage{certificatesv1.UsageCertSign}
		}), nil, "failed"},
		{"of another signer", make(time.Minute, func(r *certificatesv1.CertificateSigningRequest) {
			decided(certificatesv1.CertificateApproved, 0)(r)
			r.Spec.SignerName = "example.com/s"
		}), nil, ""},
		{"signed an hour ago", make(3*time.Hour, func(r *certificatesv1.CertificateSigningRequest) {
			decided(certificatesv1.CertificateApproved, 61*time.Minute)(r)
			r.Status.Certificate = []byte("c")
		}), nil, "gone"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kube := fake.NewClientset(tt.request)
			factory := informers.NewSharedInformerFactory(kube, 0)
			c, err := New(Config{Client: kube, Informers: factory, Log: slog.New(slog.DiscardHandler), Clock: clocktesting.NewFakeClock(now),
				Sign: func(r *x509.CertificateRequest, _ []certificatesv1.KeyUsage, _ time.Duration) ([]byte, error) {
					return []byte(r.Subject.CommonName), tt.sign
				}})
			if err != nil {
				t.Fatal(err)
			}
			if err := factory.Certificates().V1().CertificateSigningRequests().Informer().GetIndexer().Add(tt.request); err != nil {
				t.Fatal(err)
			}
			if err := c.sync(t.Context(), "r"); err != nil {
				t.Fatal(err)
			}
			got, err := kube.CertificatesV1().CertificateSigningRequests().Get(t.Context(), "r", metav1.GetOptions{})
			state := ""
			switch {
			case apierrors.IsNotFound(err):
				state = "gone"
			case string(got.Status.Certificate) == "jane":
				state = "signed"
			case has(got, certificatesv1.CertificateFailed):
				state = "failed"
			}
			if state != tt.want {
				t.Errorf("%q, want %q", state, tt.want)
			}
		})
	}
}
