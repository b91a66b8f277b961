package certificate

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
)

func block(content string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(content)}))
}

func bundle(name, signer, label string, content ...string) *certificatesv1.ClusterTrustBundle {
	b := &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"l": label}}, Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer}}
	for _, c := range content {
		b.Spec.TrustBundle += "chatter\n" + block(c)
	}
	return b
}

func TestAnchors(t *testing.T) {
	client := fake.NewClientset(bundle("plain", "", "", "c", "a", "c"), bundle("s:one", "s/s", "x", "b"), bundle("s:two", "s/s", "y", "a", "b"), bundle("t:one", "t/t", "x", "z"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b := NewBundles(ctx, client, func() {})
	for _, tc := range []struct {
		name string
		src  corev1.ClusterTrustBundleProjection
		want string
	}{
		{"by name", corev1.ClusterTrustBundleProjection{Name: ptr.To("plain")}, "a c"},
		{"all of a signer", corev1.ClusterTrustBundleProjection{SignerName: ptr.To("s/s"), LabelSelector: &metav1.LabelSelector{}}, "a b"},
		{"some of a signer", corev1.ClusterTrustBundleProjection{SignerName: ptr.To("s/s"), LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"l": "x"}}}, "b"},
		{"no selector is nothing", corev1.ClusterTrustBundleProjection{SignerName: ptr.To("s/s")}, "error: combination of signerName and labelSelector matched zero ClusterTrustBundles"},
		{"missing", corev1.ClusterTrustBundleProjection{Name: ptr.To("gone")}, `error: while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io "gone" not found`},
		{"missing but optional", corev1.ClusterTrustBundleProjection{Name: ptr.To("gone"), Optional: ptr.To(true)}, ""},
		{"nothing of a signer but optional", corev1.ClusterTrustBundleProjection{SignerName: ptr.To("u/u"), LabelSelector: &metav1.LabelSelector{}, Optional: ptr.To(true)}, ""},
	} {
		raw, err := b.Anchors(t.Context(), &tc.src)
		var names []string
		eachBlock(raw, func(der []byte) { names = append(names, string(der)) })
		got := strings.Join(names, " ")
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

type bench struct {
	t      *testing.T
	client *fake.Clientset
	clock  *clocktesting.FakePassiveClock
	issuer *Issuer
	heard  chan types.UID
	events []string
	pod    *corev1.Pod
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, clock: clocktesting.NewFakePassiveClock(time.Unix(1000000, 0)), heard: make(chan types.UID, 100),
		client: fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "node"}}, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "sa", Namespace: "ns", UID: "account"}}),
		pod:    &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}, Spec: corev1.PodSpec{ServiceAccountName: "sa"}}}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b.issuer = NewIssuer(ctx, Config{Client: b.client, NodeName: "n1", Clock: b.clock, Changed: func(uid types.UID) { b.heard <- uid },
		Event: func(_ *corev1.Pod, reason, _ string) { b.events = append(b.events, reason) }})
	return b
}

func (b *bench) get() (key, chain []byte, err error) {
	return b.issuer.Get(b.t.Context(), b.pod, Source{"v", 0}, &corev1.PodCertificateProjection{SignerName: "example.com/mine", KeyType: "ED25519", UserAnnotations: map[string]string{"a.b/c": "d"}})
}

// request is the n-th request.
func (b *bench) request(n int) *certificatesv1.PodCertificateRequest {
	b.t.Helper()
	list, err := b.client.CertificatesV1().PodCertificateRequests("ns").List(b.t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != n {
		b.t.Fatalf("requests: %d, want %d; %v", len(list.Items), n, err)
	}
	return &list.Items[n-1]
}

// answer ends a request and waits until the issuer has heard.
func (b *bench) answer(r *certificatesv1.PodCertificateRequest, kind string) {
	b.t.Helper()
	r.Status = certificatesv1.PodCertificateRequestStatus{Conditions: []metav1.Condition{{Type: kind, Status: metav1.ConditionTrue, Reason: "Because"}}}
	if kind == certificatesv1.PodCertificateRequestConditionTypeIssued {
		r.Status.CertificateChain = "chatter\n" + block("of "+r.Name)
		r.Status.BeginRefreshAt = ptr.To(metav1.NewTime(b.clock.Now().Add(time.Hour)))
	}
	if _, err := b.client.CertificatesV1().PodCertificateRequests("ns").Update(b.t.Context(), r, metav1.UpdateOptions{}); err != nil {
		b.t.Fatal(err)
	}
	for {
		if uid := <-b.heard; uid != "u" {
			b.t.Errorf("heard of %s", uid)
		}
		if seen, err := b.issuer.lister.PodCertificateRequests("ns").Get(r.Name); err == nil && len(seen.Status.Conditions) > 0 {
			return
		}
	}
}

func TestIssue(t *testing.T) {
	b := newBench(t)
	// The fake gives no names to those that want one made.
	names := 0
	b.client.PrependReactor("create", "podcertificaterequests", func(a clienttesting.Action) (bool, runtime.Object, error) {
		names++
		a.(clienttesting.CreateAction).GetObject().(*certificatesv1.PodCertificateRequest).Name = "req-" + string(rune('0'+names))
		return false, nil, nil
	})
	for range 2 {
		if _, _, err := b.get(); err == nil || !strings.Contains(err.Error(), "has not been answered by signer example.com/mine yet") {
			t.Fatalf("before an answer: %v", err)
		}
	}
	r := b.request(1)
	csr, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
	if err != nil || csr.CheckSignature() != nil {
		t.Errorf("proof: %v", err)
	}
	if s := r.Spec; s.PodUID != "u" || s.NodeUID != "node" || s.ServiceAccountUID != "account" || s.UnverifiedUserAnnotations["a.b/c"] != "d" || r.OwnerReferences[0].UID != "u" {
		t.Errorf("request %+v", r)
	}
	b.answer(r, certificatesv1.PodCertificateRequestConditionTypeIssued)
	key, chain, err := b.get()
	if err != nil || string(chain) != block("of req-1") || !strings.Contains(string(key), "PRIVATE KEY") {
		t.Fatalf("%s %s %v", key, chain, err)
	}
	at, ok := b.issuer.RefreshAt("u")
	if d := at.Sub(b.clock.Now()); !ok || d < time.Hour || d > time.Hour+jitter {
		t.Errorf("refresh in %v, %v", d, ok)
	}
	b.clock.SetTime(at)
	if _, again, err := b.get(); err != nil || string(again) != string(chain) {
		t.Errorf("while it is renewed: %s, %v", again, err)
	}
	b.answer(b.request(2), certificatesv1.PodCertificateRequestConditionTypeIssued)
	if fresh, again, err := b.get(); err != nil || string(again) != block("of req-2") || string(fresh) == string(key) {
		t.Errorf("renewed: %s, %v", again, err)
	}
	b.issuer.Forget("u")
	if _, ok := b.issuer.RefreshAt("u"); ok {
		t.Error("not forgotten")
	}
}

func TestDenied(t *testing.T) {
	for kind, want := range map[string]string{certificatesv1.PodCertificateRequestConditionTypeDenied: `was denied, reason="Because"`,
		certificatesv1.PodCertificateRequestConditionTypeFailed: `failed, reason="Because"`} {
		b := newBench(t)
		b.client.PrependReactor("create", "podcertificaterequests", func(a clienttesting.Action) (bool, runtime.Object, error) {
			a.(clienttesting.CreateAction).GetObject().(*certificatesv1.PodCertificateRequest).Name = "req"
			return false, nil, nil
		})
		b.get()
		b.answer(b.request(1), kind)
		for range 2 {
			if _, _, err := b.get(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", kind, err)
			}
		}
		b.request(1)
		if len(b.events) != 1 || b.events[0] != kind {
			t.Errorf("events %v", b.events)
		}
	}
}

func TestKeys(t *testing.T) {
	for _, kind := range []string{"RSA3072", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"} {
		key, proof, err := newKey(kind)
		if err != nil {
			t.Fatal(kind, err)
		}
		b, _ := pem.Decode(key)
		if _, err := x509.ParsePKCS8PrivateKey(b.Bytes); err != nil {
			t.Error(kind, err)
		}
		if csr, err := x509.ParseCertificateRequest(proof); err != nil || csr.CheckSignature() != nil {
			t.Error(kind, err)
		}
	}
	if _, _, err := newKey("DSA"); err == nil {
		t.Error("a key of a kind that there is not")
	}
}
