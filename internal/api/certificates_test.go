package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
)

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCertificate(t *testing.T, key *ecdsa.PrivateKey, change func(*x509.Certificate)) string {
	t.Helper()
	now := time.Now().Truncate(time.Second)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotBefore: now, NotAfter: now.Add(2 * time.Hour)}
	change(c)
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func authority(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }

func signingRequest(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestTrustBundle(t *testing.T) {
	k := kindOf(t, certificatesv1.GroupName, "ClusterTrustBundle")
	ca, plain := newCertificate(t, newKey(t), authority), newCertificate(t, newKey(t), func(*x509.Certificate) {})
	for _, tc := range []struct {
		name, object, signer, pem string
		want                      []string
	}{
		{"without a signer", "b", "", ca, nil},
		{"with a signer", "example.com:s:b", "example.com/s", ca, nil},
		{"comments between", "b", "", "# one\n" + ca + "# two\n", nil},
		{"name of a signer", "x:b", "", ca, []string{`metadata.name: Invalid value: "x:b": ClusterTrustBundle without signer name must not have ":" in its name`}},
		{"name of no signer", "b", "example.com/s", ca,
			[]string{`metadata.name: Invalid value: "b": ClusterTrustBundle for signerName example.com/s must be named with prefix example.com:s:`}},
		{"empty", "b", "", "", []string{`spec.trustBundle: Invalid value: "<value omitted>": at least one trust anchor must be provided`}},
		{"no authority", "b", "", plain, []string{`spec.trustBundle: Invalid value: "<value omitted>": entry 0 does not have the CA bit set`}},
		{"twice", "b", "", ca + ca, []string{`spec.trustBundle: Invalid value: "<value omitted>": duplicate trust anchor (indices [0 1])`}},
		{"something else", "b", "", ca + "-----BEGIN X-----\nAAAA\n-----END X-----\n",
			[]string{`spec.trustBundle: Invalid value: "<value omitted>": entry 1 has bad block type: X`}},
	} {
		b := &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: tc.object},
			Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: tc.signer, TrustBundle: tc.pem}}
		if tc.want == nil {
			tc.want = []string{}
		}
		if diff := cmp.Diff(tc.want, messages(k.Validate(t.Context(), b))); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", tc.name, diff)
		}
	}
}

func podRequest(t *testing.T, key any) *certificatesv1.PodCertificateRequest {
	t.Helper()
	r := &certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "r"}, Spec: certificatesv1.PodCertificateRequestSpec{
		SignerName: "example.com/s", PodName: "p", PodUID: "1", ServiceAccountName: "a", ServiceAccountUID: "2", NodeName: "n1", NodeUID: "3",
		StubPKCS10Request: signingRequest(t, key),
	}}
	kindOf(t, certificatesv1.GroupName, "PodCertificateRequest").Default(r)
	return r
}

func TestPodCertificateRequest(t *testing.T) {
	k := kindOf(t, certificatesv1.GroupName, "PodCertificateRequest")
	key := newKey(t)
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	seconds := func(n int32) *int32 { return &n }
	for _, tc := range []struct {
		name   string
		change func(*certificatesv1.PodCertificateRequest)
		want   []string
	}{
		{"as it is", func(*certificatesv1.PodCertificateRequest) {}, nil},
		{"three months", func(r *certificatesv1.PodCertificateRequest) { r.Spec.MaxExpirationSeconds = seconds(91 * 86400) }, nil},
		{"three months of Kubernetes", func(r *certificatesv1.PodCertificateRequest) {
			r.Spec.SignerName, r.Spec.MaxExpirationSeconds = "kubernetes.io/x", seconds(91*86400)
		}, []string{`spec.maxExpirationSeconds: Invalid value: 7862400: must be in the range [3600, 86400]`}},
		{"a minute", func(r *certificatesv1.PodCertificateRequest) { r.Spec.MaxExpirationSeconds = seconds(60) },
			[]string{`spec.maxExpirationSeconds: Invalid value: 60: must be in the range [3600, 7862400]`}},
		{"nobody's", func(r *certificatesv1.PodCertificateRequest) { r.Spec.PodUID, r.Spec.SignerName = "", "x" }, []string{
			`spec.podUID: Invalid value: "": must not be empty`,
			`spec.signerName: Invalid value: "x": must be a fully qualified domain and path of the form 'example.com/signer-name'`,
		}},
		{"no key", func(r *certificatesv1.PodCertificateRequest) { r.Spec.StubPKCS10Request = nil },
			[]string{"spec.stubPKCS10Request: Required value"}},
		{"nonsense", func(r *certificatesv1.PodCertificateRequest) { r.Spec.StubPKCS10Request = []byte("x") },
			[]string{"spec.stubPKCS10Request: Invalid value: must be a valid PKCS#10 CSR"}},
		{"forged", func(r *certificatesv1.PodCertificateRequest) {
			r.Spec.StubPKCS10Request[len(r.Spec.StubPKCS10Request)-1] ^= 1
		}, []string{"spec.stubPKCS10Request: Invalid value: invalid signature"}},
		{"weak", func(r *certificatesv1.PodCertificateRequest) { r.Spec.StubPKCS10Request = signingRequest(t, small) },
			[]string{`spec.stubPKCS10Request: Invalid value: "2048-bit modulus": RSA keys must have modulus size 3072 or 4096`}},
		{"annotations without a domain", func(r *certificatesv1.PodCertificateRequest) {
			r.Spec.UnverifiedUserAnnotations = map[string]string{"a": "b"}
		}, []string{`spec.unverifiedUserAnnotations: Invalid value: "a": must be a domain-prefixed key (such as "acme.io/foo")`}},
	} {
		r := podRequest(t, key)
		tc.change(r)
		if tc.want == nil {
			tc.want = []string{}
		}
		if diff := cmp.Diff(tc.want, messages(k.Validate(t.Context(), r))); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestPodCertificateEndsOnce(t *testing.T) {
	k := kindOf(t, certificatesv1.GroupName, "PodCertificateRequest")
	key := newKey(t)
	old := podRequest(t, key)
	condition := func(typ string) metav1.Condition {
		return metav1.Condition{Type: typ, Status: metav1.ConditionTrue, Reason: "R", LastTransitionTime: metav1.Now()}
	}
	issue := func(key *ecdsa.PrivateKey, change func(*x509.Certificate)) certificatesv1.PodCertificateRequestStatus {
		chain := newCertificate(t, key, change)
		certs, _ := parseChain(chain)
		from, to := metav1.NewTime(certs[0].NotBefore), metav1.NewTime(certs[0].NotAfter)
		refresh := metav1.NewTime(certs[0].NotAfter.Add(-time.Hour))
		return certificatesv1.PodCertificateRequestStatus{
			Conditions:       []metav1.Condition{condition("Issued")},
			CertificateChain: chain, NotBefore: &from, NotAfter: &to, BeginRefreshAt: &refresh,
		}
	}
	good := issue(key, func(*x509.Certificate) {})
	late := good
	late.BeginRefreshAt = good.NotAfter
	denied := certificatesv1.PodCertificateRequestStatus{Conditions: []metav1.Condition{condition("Denied")}}
	for _, tc := range []struct {
		name    string
		was, is certificatesv1.PodCertificateRequestStatus
		want    []string
	}{
		{"issued", certificatesv1.PodCertificateRequestStatus{}, good, nil},
		{"denied", certificatesv1.PodCertificateRequestStatus{}, denied, nil},
		{"nothing", certificatesv1.PodCertificateRequestStatus{}, certificatesv1.PodCertificateRequestStatus{CertificateChain: "x"},
			[]string{`status: Invalid value: status is immutable unless transitioning to "Issued", "Denied", or "Failed"`}},
		{"twice", denied, good, []string{"status: Invalid value: immutable after PodCertificateRequest is issued, denied, or failed"}},
		{"denied with a certificate", certificatesv1.PodCertificateRequestStatus{},
			certificatesv1.PodCertificateRequestStatus{Conditions: denied.Conditions, CertificateChain: "x"},
			[]string{"status: Invalid value: non-condition status fields must be empty when denying or failing the PodCertificateRequest"}},
		{"refreshed too late", certificatesv1.PodCertificateRequestStatus{}, late, []string{
			"status.beginRefreshAt: Invalid value: \"" + good.NotAfter.Time.Format(time.RFC3339) + "\": must be at least 10 minutes before status.notAfter"}},
	} {
		r, before := old.DeepCopy(), old.DeepCopy()
		r.ResourceVersion, before.ResourceVersion = "1", "1"
		before.Status, r.Status = tc.was, tc.is
		if tc.want == nil {
			tc.want = []string{}
		}
		if diff := cmp.Diff(tc.want, messages(k.Status.ValidateUpdate(t.Context(), r, before))); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", tc.name, diff)
		}
	}
	for name, status := range map[string]certificatesv1.PodCertificateRequestStatus{
		"another key":  issue(newKey(t), func(*x509.Certificate) {}),
		"a short life": issue(key, func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(59 * time.Minute) }),
		"a long life":  issue(key, func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(25 * time.Hour) }),
		"from the past": issue(key, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = c.NotBefore.Add(-time.Hour), c.NotAfter.Add(-time.Hour)
		}),
	} {
		r, before := old.DeepCopy(), old.DeepCopy()
		r.ResourceVersion, before.ResourceVersion, r.Status = "1", "1", status
		if errs := k.Status.ValidateUpdate(t.Context(), r, before); len(errs) == 0 {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestSigningRequest(t *testing.T) {
	k := kindOf(t, certificatesv1.GroupName, "CertificateSigningRequest")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: signingRequest(t, newKey(t))})
	make := func() *certificatesv1.CertificateSigningRequest {
		return &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "any name: /%", ResourceVersion: "1"},
			Spec: certificatesv1.CertificateSigningRequestSpec{
				Request: block, SignerName: "example.com/s", Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth}, Username: "forged"}}
	}
	r := make()
	k.PrepareForCreate(request.WithUser(t.Context(), &user.DefaultInfo{Name: "jane", UID: "7", Groups: []string{"g"}}), r)
	if r.Spec.Username != "jane" || r.Spec.UID != "7" || !cmp.Equal(r.Spec.Groups, []string{"g"}) {
		t.Errorf("the requester: %+v", r.Spec)
	}
	if errs := k.Validate(t.Context(), r); len(errs) > 0 {
		t.Error(errs)
	}
	bad := make()
	bad.Spec.Usages = []certificatesv1.KeyUsage{"x", certificatesv1.UsageAny, certificatesv1.UsageAny}
	bad.Spec.Request = []byte("x")
	bad.Spec.SignerName = "kubernetes.io/legacy-unknown"
	if got := len(k.Validate(t.Context(), bad)); got != 4 {
		t.Errorf("%d errors: %v", got, k.Validate(t.Context(), bad))
	}

	condition := func(typ certificatesv1.RequestConditionType) certificatesv1.CertificateSigningRequestCondition {
		return certificatesv1.CertificateSigningRequestCondition{Type: typ, Status: corev1.ConditionTrue}
	}
	approved := make()
	approved.Status.Conditions = append(approved.Status.Conditions, condition(certificatesv1.CertificateApproved))
	issued := approved.DeepCopy()
	issued.Status.Certificate = []byte(newCertificate(t, newKey(t), func(*x509.Certificate) {}))
	both := approved.DeepCopy()
	both.Status.Conditions = append(both.Status.Conditions, condition(certificatesv1.CertificateDenied))
	for _, tc := range []struct {
		name     string
		is, was  *certificatesv1.CertificateSigningRequest
		endpoint *Subresource
		ok       bool
	}{
		{"approve", approved, make(), k.Approval, true},
		{"approve by /status", approved, make(), k.Status, false},
		{"take approval back", make(), approved, k.Approval, false},
		{"approve and deny", both, approved, k.Approval, false},
		{"issue", issued, approved, k.Status, true},
		{"issue another", issued, func() *certificatesv1.CertificateSigningRequest {
			o := issued.DeepCopy()
			o.Status.Certificate = []byte(newCertificate(t, newKey(t), func(*x509.Certificate) {}))
			return o
		}(), k.Status, false},
	} {
		errs := tc.endpoint.ValidateUpdate(t.Context(), tc.is.DeepCopy(), tc.was.DeepCopy())
		if (len(errs) == 0) != tc.ok {
			t.Errorf("%s: %v", tc.name, errs)
		}
	}
	is := issued.DeepCopy()
	k.Approval.PrepareForUpdate(t.Context(), is, approved)
	if len(is.Status.Certificate) > 0 {
		t.Error("/approval writes the certificate")
	}
	if err := k.ValidateUpdate(t.Context(), issued, approved); len(err) == 0 {
		t.Error("the object itself takes a certificate")
	}
}
