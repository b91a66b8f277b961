//go:build e2e

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// TestPodCertificate gives a Pod a certificate of its own, signed by this test, and what it trusts.
func TestPodCertificate(t *testing.T) {
	s := newSpace(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(48 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	anchor := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	bundle := &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "example.com:" + s.ns + ":one", Labels: map[string]string{"use": "yes"}},
		Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: "example.com/" + s.ns, TrustBundle: anchor}}

	s.apply(podOf("web", "terminationGracePeriodSeconds: 1", `volumes:
- name: p
  projected:
    sources:
    - clusterTrustBundle: {signerName: example.com/`+s.ns+`, labelSelector: {matchLabels: {use: "yes"}}, path: trust.pem}
    - clusterTrustBundle: {name: nobody, optional: true, path: none.pem}
    - podCertificate: {signerName: example.com/`+s.ns+`, keyType: ECDSAP256, credentialBundlePath: both.pem, certificateChainPath: chain.pem}`,
		"containers:", container("main", forever, mounts("p:/p"))))
	s.event("web", "FailedMount", "combination of signerName and labelSelector matched zero ClusterTrustBundles")
	bundles := s.c.kube.CertificatesV1().ClusterTrustBundles()
	if _, err := bundles.Create(t.Context(), bundle, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.try("delete", "clustertrustbundle", bundle.Name) })

	requests := s.c.kube.CertificatesV1().PodCertificateRequests(s.ns)
	var request *certificatesv1.PodCertificateRequest
	s.eventually("the node's request", func() error {
		list, err := requests.List(t.Context(), metav1.ListOptions{})
		if err == nil && len(list.Items) != 1 {
			err = fmt.Errorf("%d requests", len(list.Items))
		}
		if err == nil {
			request = &list.Items[0]
		}
		return err
	})
	stub, err := x509.ParseCertificateRequest(request.Spec.StubPKCS10Request)
	if err != nil || request.Spec.PodName != "web" || string(request.Spec.NodeName) != nodeName {
		t.Fatalf("%+v, %v", request.Spec, err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Truncate(time.Second), NotAfter: time.Now().Truncate(time.Second).Add(2 * time.Hour), DNSNames: []string{"web.example.com"}}
	if der, err = x509.CreateCertificate(rand.Reader, leaf, ca, stub.PublicKey, key); err != nil {
		t.Fatal(err)
	}
	chain := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	request.Status = certificatesv1.PodCertificateRequestStatus{CertificateChain: chain, NotBefore: ptr.To(metav1.NewTime(leaf.NotBefore)), NotAfter: ptr.To(metav1.NewTime(leaf.NotAfter)),
		BeginRefreshAt: ptr.To(metav1.NewTime(leaf.NotBefore.Add(time.Hour))),
		Conditions: []metav1.Condition{{Type: certificatesv1.PodCertificateRequestConditionTypeIssued, Status: metav1.ConditionTrue, Reason: "Signed", Message: "by the test",
			LastTransitionTime: metav1.Now()}}}
	if _, err := requests.UpdateStatus(t.Context(), request, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.ready("web")
	if got := s.sh("web", "", "cat /p/trust.pem"); got != anchor {
		t.Errorf("trusts %q", got)
	}
	if got := s.sh("web", "", "cat /p/none.pem /p/chain.pem; grep -c 'PRIVATE KEY' /p/both.pem; ls /p"); got != chain+"2\nboth.pem\nchain.pem\nnone.pem\ntrust.pem\n" {
		t.Errorf("has %q", got)
	}
}
