package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	kubelet "k8s.io/kubelet/pkg/apis"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api"
	"carob.dev/carob/internal/apiserver/auth/node"
)

// nodeRestriction keeps nodes to writing what is their own: their Node, the status of their Pods, mirror Pods, tokens for their Pods.
type nodeRestriction struct {
	*admission.Handler
	objects    Lookup
	authorizer authorizer.Authorizer
}

func newNodeRestriction(objects Lookup, z authorizer.Authorizer) *nodeRestriction {
	return &nodeRestriction{Handler: admission.NewHandler(admission.Create, admission.Update, admission.Delete), objects: objects, authorizer: z}
}

// Admit implements admission.MutationInterface. It changes nothing, but must see what the node sent.
func (p *nodeRestriction) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	name, ok := node.Name(a.GetUserInfo())
	if !ok {
		return nil
	}
	if name == "" {
		return admission.NewForbidden(a, fmt.Errorf("could not determine node from user %q", a.GetUserInfo().GetName()))
	}
	var err error
	switch r := a.GetResource().GroupResource(); r.Group + "/" + r.Resource {
	case "/pods":
		err = p.pod(ctx, name, a)
	case "/nodes":
		err = ownNode(name, a)
	case "/persistentvolumeclaims":
		err = claimStatus(name, a)
	case "/serviceaccounts":
		err = p.token(ctx, name, a)
	case "coordination.k8s.io/leases":
		if a.GetNamespace() != corev1.NamespaceNodeLease {
			err = fmt.Errorf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
		} else if nameOf(a) != name {
			err = errors.New("can only access node lease with the same name as the requesting node")
		}
	case "storage.k8s.io/csinodes":
		if nameOf(a) != name {
			err = errors.New("can only access CSINode with the same name as the requesting node")
		}
	case "resource.k8s.io/resourceslices":
		err = slice(name, a)
	case "certificates.k8s.io/certificatesigningrequests":
		err = signingRequest(name, a)
	case "certificates.k8s.io/podcertificaterequests":
		err = p.certificate(ctx, name, a)
	}
	if err != nil {
		return admission.NewForbidden(a, err)
	}
	return nil
}

// nameOf is the name of what is written; that of a new object stands in it alone.
func nameOf(a admission.Attributes) string {
	if a.GetOperation() == admission.Create {
		if m, err := meta.Accessor(a.GetObject()); err == nil {
			return m.GetName()
		}
	}
	return a.GetName()
}

func ownNode(name string, a admission.Attributes) error {
	if requested := a.GetName(); requested != name && nameOf(a) != name {
		return fmt.Errorf("node %q is not allowed to modify node %q", name, requested)
	}
	n, ok := a.GetObject().(*corev1.Node)
	if !ok {
		return nil // a delete: the authorizer allows none
	}
	old, _ := a.GetOldObject().(*corev1.Node)
	if a.GetOperation() == admission.Create || old == nil {
		if n.Spec.ConfigSource != nil {
			return fmt.Errorf("node %q is not allowed to create pods with a non-nil configSource", name)
		}
		if bad := notItsLabels(n.Labels, nil); len(bad) > 0 {
			return fmt.Errorf("node %q is not allowed to set the following labels: %s", name, strings.Join(bad, ", "))
		}
		return nil
	}
	switch {
	case n.Spec.ConfigSource != nil && !equality.Semantic.DeepEqual(n.Spec.ConfigSource, old.Spec.ConfigSource):
		return fmt.Errorf("node %q is not allowed to update configSource to a new non-nil configSource", name)
	case !equality.Semantic.DeepEqual(n.Spec.Taints, old.Spec.Taints):
		return fmt.Errorf("node %q is not allowed to modify taints", name)
	case !equality.Semantic.DeepEqual(n.OwnerReferences, old.OwnerReferences):
		return fmt.Errorf("node %q is not allowed to modify ownerReferences", name)
	}
	if bad := notItsLabels(n.Labels, old.Labels); len(bad) > 0 {
		return fmt.Errorf("is not allowed to modify labels: %s", strings.Join(bad, ", "))
	}
	return nil
}

// notItsLabels are the labels in which a and b differ and that a node may not write itself, or it could draw Pods to itself.
func notItsLabels(a, b map[string]string) []string {
	var bad []string
	for _, pair := range [][2]map[string]string{{a, b}, {b, a}} {
		for key, value := range pair[0] {
			if other, ok := pair[1][key]; ok && other == value || !forbiddenLabel(key) || slices.Contains(bad, key) {
				continue
			}
			bad = append(bad, key)
		}
	}
	slices.Sort(bad)
	return bad
}

func forbiddenLabel(key string) bool {
	domain, _, ok := strings.Cut(key, "/")
	if !ok {
		return false
	}
	below := func(of string) bool { return domain == of || strings.HasSuffix(domain, "."+of) }
	return below(corev1.LabelNamespaceNodeRestriction) || (below("kubernetes.io") || below("k8s.io")) && !kubelet.IsKubeletLabel(key)
}

// claimStatus lets a node say how far it is with making a volume larger, and nothing else.
func claimStatus(name string, a admission.Attributes) error {
	if a.GetSubresource() != "status" {
		return errors.New("may only update PVC status")
	}
	now, ok1 := a.GetObject().(*corev1.PersistentVolumeClaim)
	old, ok2 := a.GetOldObject().(*corev1.PersistentVolumeClaim)
	if a.GetOperation() != admission.Update || !ok1 || !ok2 {
		return fmt.Errorf("unexpected operation %q", a.GetOperation())
	}
	rest := func(c *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
		c = c.DeepCopy()
		c.ResourceVersion, c.ManagedFields = "", nil
		c.Status.Capacity, c.Status.Conditions, c.Status.AllocatedResourceStatuses, c.Status.AllocatedResources = nil, nil, nil, nil
		return c
	}
	if was, is := rest(old), rest(now); !equality.Semantic.DeepEqual(was, is) {
		return fmt.Errorf("node %q is not allowed to update fields other than status.quantity and status.conditions: %v", name, diff.Diff(was, is))
	}
	return nil
}

func slice(name string, a admission.Attributes) error {
	obj, say := a.GetObject(), "can only create ResourceSlice with the same NodeName as the requesting node"
	switch a.GetOperation() {
	case admission.Delete:
		obj, say = a.GetOldObject(), "can only delete ResourceSlice with the same NodeName as the requesting node"
	case admission.Update:
		return nil // the authorizer has looked
	}
	if s, ok := obj.(*resourcev1.ResourceSlice); !ok || ptr.Deref(s.Spec.NodeName, "") != name {
		return errors.New(say)
	}
	return nil
}

// signingRequest lets a node ask for certificates of a node for itself only.
func signingRequest(name string, a admission.Attributes) error {
	r, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
	if !ok || a.GetOperation() != admission.Create ||
		r.Spec.SignerName != certificatesv1.KubeletServingSignerName && r.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return nil
	}
	csr, err := api.ParseSigningRequest(r.Spec.Request)
	if err != nil {
		return fmt.Errorf("unable to parse csr: %w", err)
	}
	if csr.Subject.CommonName != "system:node:"+name {
		return fmt.Errorf("can only create a node CSR with CN=system:node:%s", name)
	}
	return nil
}
