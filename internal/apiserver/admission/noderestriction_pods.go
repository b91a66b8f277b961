package admission

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/apiserver/auth/node"
)

func (p *nodeRestriction) pod(ctx context.Context, name string, a admission.Attributes) error {
	switch op := a.GetOperation(); a.GetSubresource() {
	case "":
		switch op {
		case admission.Create:
			return p.mirror(ctx, name, a)
		case admission.Delete:
			if on, err := p.nodeOf(ctx, a, a.GetName()); err != nil || on != name {
				return errors.Join(err, fmt.Errorf("node %q can only delete pods with spec.nodeName set to itself", name))
			}
			return nil
		}
		return fmt.Errorf("unexpected operation %q, node %q can only create and delete mirror pods", op, name)
	case "status":
		return podStatus(name, a)
	case "eviction":
		if on, err := p.nodeOf(ctx, a, a.GetName()); err != nil || on != name {
			return errors.Join(err, fmt.Errorf("node %s can only evict pods with spec.nodeName set to itself", name))
		}
		return nil
	}
	return fmt.Errorf("unexpected pod subresource %q, only 'status' and 'eviction' are allowed", a.GetSubresource())
}

func (p *nodeRestriction) nodeOf(ctx context.Context, a admission.Attributes, pod string) (string, error) {
	obj, err := p.objects.Pod(ctx, a.GetNamespace(), pod)
	if err != nil {
		return "", err
	}
	return obj.Spec.NodeName, nil
}

// mirror lets a node show the API a Pod that it runs by itself. Such a Pod names nothing that the node would then have a right to.
func (p *nodeRestriction) mirror(ctx context.Context, name string, a admission.Attributes) error {
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.GetObject())
	}
	if _, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]; !ok {
		return fmt.Errorf("pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, name)
	}
	if pod.Spec.NodeName != name {
		return fmt.Errorf("node %q can only create pods with spec.nodeName set to itself", name)
	}
	if len(pod.OwnerReferences) != 1 {
		return fmt.Errorf("node %q can only create pods with a single owner reference set to itself", name)
	}
	n, err := p.objects.Node(ctx, name)
	if err != nil {
		return fmt.Errorf("error looking up node %s to verify uid: %w", name, err)
	}
	switch owner := pod.OwnerReferences[0]; {
	case owner.APIVersion != "v1" || owner.Kind != "Node" || owner.Name != name:
		return fmt.Errorf("node %q can only create pods with an owner reference set to itself", name)
	case !ptr.Deref(owner.Controller, false):
		return fmt.Errorf("node %q can only create pods with a controller owner reference set to itself", name)
	case ptr.Deref(owner.BlockOwnerDeletion, false):
		return fmt.Errorf("node %q must not set blockOwnerDeletion on an owner reference", name)
	case owner.UID != n.UID:
		return fmt.Errorf("node %s UID mismatch: expected %s got %s", name, owner.UID, n.UID)
	}
	if what := node.RefersTo(pod); what != "" {
		return fmt.Errorf("node %q can not create pods that reference %s", name, what)
	}
	return nil
}

func podStatus(name string, a admission.Attributes) error {
	now, ok1 := a.GetObject().(*corev1.Pod)
	old, ok2 := a.GetOldObject().(*corev1.Pod)
	switch {
	case a.GetOperation() != admission.Update || !ok1 || !ok2:
		return fmt.Errorf("unexpected operation %q", a.GetOperation())
	case old.Spec.NodeName != name:
		return fmt.Errorf("node %q can only update pod status for pods with spec.nodeName set to itself", name)
	case !maps.Equal(old.Labels, now.Labels):
		return fmt.Errorf("node %q cannot update labels through pod status", name)
	case !equality.Semantic.DeepEqual(old.Status.ResourceClaimStatuses, now.Status.ResourceClaimStatuses):
		return fmt.Errorf("node %q cannot update resource claim statues", name)
	case !equality.Semantic.DeepEqual(old.Status.ExtendedResourceClaimStatus, now.Status.ExtendedResourceClaimStatus):
		return fmt.Errorf("node %q cannot update extended resource claim status", name)
	}
	return nil
}

// token lets a node have tokens that die with Pods of its own, for those who the Pod means them for.
func (p *nodeRestriction) token(ctx context.Context, name string, a admission.Attributes) error {
	r, ok := a.GetObject().(*authenticationv1.TokenRequest)
	if !ok || a.GetOperation() != admission.Create || a.GetSubresource() != "token" {
		return nil
	}
	ref := r.Spec.BoundObjectRef
	if ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "" {
		return errors.New("node requested token not bound to a pod")
	}
	if ref.UID == "" {
		return errors.New("node requested token with a pod binding without a uid")
	}
	pod, err := p.objects.Pod(ctx, a.GetNamespace(), ref.Name)
	switch {
	case err != nil:
		return err
	case pod.UID != ref.UID:
		return fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. "+
			"The object might have been deleted and then recreated", ref.UID)
	case pod.Spec.NodeName != name:
		return errors.New("node requested token bound to a pod scheduled on a different node")
	case len(r.Spec.Audiences) > 1:
		return errors.New("node may only request 0 or 1 audiences")
	}
	audience := ""
	if len(r.Spec.Audiences) == 1 {
		audience = r.Spec.Audiences[0]
	}
	if p.mentions(ctx, pod, audience) || p.may(ctx, a, "request-serviceaccounts-token-audience", audience, a.GetName()) {
		return nil
	}
	return fmt.Errorf("%s is not authorized to request tokens for audience %q", a.GetUserInfo().GetName(), audience)
}

// mentions says whether a volume of the Pod has a token for the audience, itself or by its CSI driver.
func (p *nodeRestriction) mentions(ctx context.Context, pod *corev1.Pod, audience string) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		driver := ""
		switch {
		case v.Projected != nil:
			return slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
				return s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == audience
			})
		case v.CSI != nil:
			driver = v.CSI.Driver
		case v.PersistentVolumeClaim != nil:
			driver = p.driverOf(ctx, pod.Namespace, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			driver = p.driverOf(ctx, pod.Namespace, pod.Name+"-"+v.Name)
		}
		if driver == "" {
			return false
		}
		d, err := p.objects.CSIDriver(ctx, driver)
		if err != nil {
			return false
		}
		for _, t := range d.Spec.TokenRequests {
			if t.Audience == audience {
				return true
			}
		}
		return false
	})
}

func (p *nodeRestriction) driverOf(ctx context.Context, namespace, claim string) string {
	c, err := p.objects.PersistentVolumeClaim(ctx, namespace, claim)
	if err != nil || c.Spec.VolumeName == "" {
		return ""
	}
	v, err := p.objects.PersistentVolume(ctx, c.Spec.VolumeName)
	if err != nil || v.Spec.CSI == nil {
		return ""
	}
	return v.Spec.CSI.Driver
}

// may asks whether a role allows the node what its Pods do not give it a reason for.
func (p *nodeRestriction) may(ctx context.Context, a admission.Attributes, verb, resource, name string) bool {
	decision, _, _ := p.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: a.GetUserInfo(), Verb: verb, APIGroup: a.GetResource().Group, APIVersion: a.GetResource().Version, Resource: resource,
		Namespace: a.GetNamespace(), Name: name, ResourceRequest: true,
	})
	return decision == authorizer.DecisionAllow
}

// certificate lets a node ask for a certificate for a Pod of its own that has a volume for it.
func (p *nodeRestriction) certificate(ctx context.Context, name string, a admission.Attributes) error {
	r, ok := a.GetObject().(*certificatesv1.PodCertificateRequest)
	if !ok || a.GetOperation() != admission.Create || a.GetSubresource() != "" {
		return fmt.Errorf("unexpected operation %v", a.GetOperation())
	}
	full := a.GetNamespace() + "/" + r.Spec.PodName
	if string(r.Spec.NodeName) != name {
		return fmt.Errorf("PodCertificateRequest.Spec.NodeName=%q, which is not the requesting node %q", r.Spec.NodeName, name)
	}
	n, err := p.objects.Node(ctx, name)
	if err != nil {
		return fmt.Errorf("while retrieving node %q named in the PodCertificateRequest: %w", name, err)
	}
	pod, err := p.objects.Pod(ctx, a.GetNamespace(), r.Spec.PodName)
	if err != nil {
		return fmt.Errorf("while retrieving pod %q named in the PodCertificateRequest: %w", full, err)
	}
	account, err := p.objects.ServiceAccount(ctx, a.GetNamespace(), r.Spec.ServiceAccountName)
	if err != nil {
		return fmt.Errorf("while retrieving service account %q named in the PodCertificateRequest: %w", a.GetNamespace()+"/"+r.Spec.ServiceAccountName, err)
	}
	_, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]
	switch {
	case n.UID != r.Spec.NodeUID:
		return fmt.Errorf("PodCertificateRequest for pod %q names node UID %q, inconsistent with the running node (%q)", full, r.Spec.NodeUID, n.UID)
	case pod.UID != r.Spec.PodUID:
		return fmt.Errorf("PodCertificateRequest for pod %q contains pod UID (%q) which differs from running pod %q", full, r.Spec.PodUID, pod.UID)
	case pod.Spec.NodeName != name:
		return fmt.Errorf("pod %q is not running on node %q named in the PodCertificateRequest", full, name)
	case mirror:
		return fmt.Errorf("pod %q is a mirror pod", full)
	case pod.Spec.ServiceAccountName != r.Spec.ServiceAccountName:
		return fmt.Errorf("PodCertificateRequest for pod %q contains serviceAccountName (%q) that differs from running pod (%q)",
			full, r.Spec.ServiceAccountName, pod.Spec.ServiceAccountName)
	case account.UID != r.Spec.ServiceAccountUID:
		return fmt.Errorf("PodCertificateRequest for pod %q names service account UID %q, which differs from the running service account (%q)",
			full, r.Spec.ServiceAccountUID, account.UID)
	}
	mounted := slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.PodCertificate != nil && s.PodCertificate.SignerName == r.Spec.SignerName
		})
	})
	signer := strings.ReplaceAll(r.Spec.SignerName, "/", ":")
	if mounted || p.may(ctx, a, "request-serviceaccounts-podcertificate-signer", signer, r.Spec.ServiceAccountName) {
		return nil
	}
	return fmt.Errorf("pod %q does not mount a podCertificate projected volume for signer %q", full, r.Spec.SignerName)
}
