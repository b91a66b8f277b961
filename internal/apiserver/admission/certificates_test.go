package admission

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// signers allows each of "verb name".
type signers struct {
	authorizer.Authorizer
	allowed string
}

func (s signers) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetResource() == "signers" && a.GetVerb()+" "+a.GetName() == s.allowed {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func TestWhoSpeaksForASigner(t *testing.T) {
	request := func(cert string) *certificatesv1.CertificateSigningRequest {
		return &certificatesv1.CertificateSigningRequest{
			Spec:   certificatesv1.CertificateSigningRequestSpec{SignerName: "example.com/s"},
			Status: certificatesv1.CertificateSigningRequestStatus{Certificate: []byte(cert)},
		}
	}
	pod := func(chain string) *certificatesv1.PodCertificateRequest {
		return &certificatesv1.PodCertificateRequest{
			Spec:   certificatesv1.PodCertificateRequestSpec{SignerName: "example.com/s"},
			Status: certificatesv1.PodCertificateRequestStatus{CertificateChain: chain},
		}
	}
	bundle := func(signer, pem string) *certificatesv1.ClusterTrustBundle {
		return &certificatesv1.ClusterTrustBundle{Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: pem}}
	}
	for _, tt := range []struct {
		name     string
		obj, old runtime.Object
		sub      string
		needs    string // the right without which it is refused; nothing if anybody may
	}{
		{"approve", request(""), request(""), "approval", "approve example.com/s"},
		{"sign", request("c"), request(""), "status", "sign example.com/s"},
		{"write nothing", request("c"), request("c"), "status", ""},
		{"issue to a Pod", pod("c"), pod(""), "status", "sign example.com/s"},
		{"make a bundle", bundle("example.com/s", "a"), nil, "", "attest example.com/s"},
		{"change a bundle", bundle("example.com/s", "a"), bundle("example.com/s", "b"), "", "attest example.com/s"},
		{"bundle without a signer", bundle("", "a"), nil, "", ""},
	} {
		op := admission.Update
		if tt.old == nil {
			op = admission.Create
		}
		a := admission.NewAttributesRecord(tt.obj, tt.old, certificatesv1.SchemeGroupVersion.WithKind("x"), "", "x",
			certificatesv1.SchemeGroupVersion.WithResource("x"), tt.sub, op, nil, false, &user.DefaultInfo{Name: "joe"})
		verb, _, _ := strings.Cut(tt.needs, " ")
		for allowed, want := range map[string]bool{"": tt.needs == "", tt.needs: true, verb + " example.com/*": true, "approve other.com/s": tt.needs == ""} {
			if err := newCertificates(signers{allowed: allowed}).Validate(t.Context(), a, nil); (err == nil) != want {
				t.Errorf("%s, with the right to %q: %v", tt.name, allowed, err)
			}
		}
	}
}

func TestNobodyAsksToBeMaster(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for group, want := range map[string]bool{"team": true, "system:masters": false} {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "joe", Organization: []string{group}}}, key)
		if err != nil {
			t.Fatal(err)
		}
		r := &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: certificatesv1.KubeAPIServerClientSignerName,
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		}}
		a := admission.NewAttributesRecord(r, nil, certificatesv1.SchemeGroupVersion.WithKind("x"), "", "x",
			certificatesv1.SchemeGroupVersion.WithResource("certificatesigningrequests"), "", admission.Create, nil, false, &user.DefaultInfo{})
		if err := newCertificates(signers{}).Validate(t.Context(), a, nil); (err == nil) != want {
			t.Errorf("%s: %v", group, err)
		}
	}
}
