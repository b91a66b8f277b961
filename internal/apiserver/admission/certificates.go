package admission

import (
	"context"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"carob.dev/carob/internal/api"
)

// certificates asks whether somebody may speak for a signer: approve what it shall sign, sign, or attest what it is trusted by. It does what
// CertificateApproval, CertificateSigning, ClusterTrustBundleAttest and CertificateSubjectRestriction do in Kubernetes.
type certificates struct {
	*admission.Handler
	authorizer authorizer.Authorizer
}

func newCertificates(z authorizer.Authorizer) *certificates {
	return &certificates{Handler: admission.NewHandler(admission.Create, admission.Update), authorizer: z}
}

// Validate implements admission.ValidationInterface.
func (p *certificates) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().Group != certificatesv1.GroupName {
		return nil
	}
	verb, signer := "", ""
	switch obj := a.GetObject().(type) {
	case *certificatesv1.CertificateSigningRequest:
		old, _ := a.GetOldObject().(*certificatesv1.CertificateSigningRequest)
		switch {
		case a.GetSubresource() == "" && a.GetOperation() == admission.Create:
			return notMaster(a, obj)
		case old == nil:
			return nil
		case a.GetSubresource() == "approval":
			verb, signer = "approve", old.Spec.SignerName
		case a.GetSubresource() == "status" && !equality.Semantic.DeepEqual(old.Status, obj.Status):
			verb, signer = "sign", old.Spec.SignerName
		}
	case *certificatesv1.PodCertificateRequest:
		old, _ := a.GetOldObject().(*certificatesv1.PodCertificateRequest)
		if a.GetSubresource() == "status" && old != nil && !equality.Semantic.DeepEqual(old.Status, obj.Status) {
			verb, signer = "sign", old.Spec.SignerName
		}
	case *certificatesv1.ClusterTrustBundle:
		old, _ := a.GetOldObject().(*certificatesv1.ClusterTrustBundle)
		if old == nil || !equality.Semantic.DeepEqual(old.Spec, obj.Spec) || !equality.Semantic.DeepEqual(old.Labels, obj.Labels) {
			verb, signer = "attest", obj.Spec.SignerName
		}
	}
	if signer == "" || p.may(ctx, a.GetUserInfo(), verb, signer) {
		return nil
	}
	return admission.NewForbidden(a, map[string]error{
		"approve": fmt.Errorf("user not permitted to approve requests with signerName %q", signer),
		"sign":    fmt.Errorf("user not permitted to sign requests with signerName %q", signer),
		"attest":  fmt.Errorf("user not permitted to attest for signerName %q", signer),
	}[verb])
}

// may asks for the signer, then for all of its domain.
func (p *certificates) may(ctx context.Context, u user.Info, verb, signer string) bool {
	domain, _, _ := strings.Cut(signer, "/")
	return slices.ContainsFunc([]string{signer, domain + "/*"}, func(name string) bool {
		decision, _, _ := p.authorizer.Authorize(ctx, authorizer.AttributesRecord{
			User: u, Verb: verb, APIGroup: certificatesv1.GroupName, APIVersion: "*", Resource: "signers", Name: name, ResourceRequest: true,
		})
		return decision == authorizer.DecisionAllow
	})
}

// notMaster refuses requests for certificates whose owner could do everything.
func notMaster(a admission.Attributes, r *certificatesv1.CertificateSigningRequest) error {
	if r.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return nil
	}
	csr, err := api.ParseSigningRequest(r.Spec.Request)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("failed to parse CSR: %w", err))
	}
	if slices.Contains(csr.Subject.Organization, user.SystemPrivilegedGroup) {
		return admission.NewForbidden(a, fmt.Errorf("use of %s signer with system:masters group is not allowed", r.Spec.SignerName))
	}
	return nil
}
