package admission

import (
	"context"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/ptr"
)

// onNodes has the Pods mine on n1 and theirs on n2, and both nodes.
type onNodes struct{ Lookup }

func (onNodes) Pod(_ context.Context, _, name string) (*corev1.Pod, error) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name)}, Spec: corev1.PodSpec{NodeName: "n1"}}
	switch name {
	case "mine":
		p.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}}, {ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "vault"}}}}}}}
		return p, nil
	case "theirs":
		p.Spec.NodeName = "n2"
		return p, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
}

func (onNodes) Node(_ context.Context, name string) (*corev1.Node, error) {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name)}}, nil
}

func TestNodesWriteTheirOwn(t *testing.T) {
	mirror := func(change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "m", Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "x"}, OwnerReferences: []metav1.OwnerReference{
				{APIVersion: "v1", Kind: "Node", Name: "n1", UID: "uid-n1", Controller: ptr.To(true)}}},
			Spec: corev1.PodSpec{NodeName: "n1"},
		}
		change(p)
		return p
	}
	on := func(n string, change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{NodeName: n}}
		change(p)
		return p
	}
	same := func(*corev1.Pod) {}
	n := func(name string, labels map[string]string, taints ...corev1.Taint) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: corev1.NodeSpec{Taints: taints}}
	}
	token := func(pod, uid string, audiences ...string) *authenticationv1.TokenRequest {
		r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
		if pod != "" {
			r.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod, UID: types.UID(uid)}
		}
		return r
	}
	claim := func(capacity corev1.ResourceList, labels map[string]string) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Status: corev1.PersistentVolumeClaimStatus{Capacity: capacity}}
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}
	for _, tt := range []struct {
		name, resource, sub, object string
		op                          admission.Operation
		obj, old                    runtime.Object
		want                        string // part of the refusal; nothing if it may
	}{
		{"a mirror Pod", "pods", "", "m", admission.Create, mirror(same), nil, ""},
		{"a Pod", "pods", "", "p", admission.Create, on("n1", same), nil, "can only create mirror pods"},
		{"a mirror Pod elsewhere", "pods", "", "m", admission.Create, mirror(func(p *corev1.Pod) { p.Spec.NodeName = "n2" }), nil, "spec.nodeName set to itself"},
		{"a mirror Pod of nobody", "pods", "", "m", admission.Create, mirror(func(p *corev1.Pod) { p.OwnerReferences = nil }), nil, "owner reference"},
		{"a mirror Pod of another", "pods", "", "m", admission.Create, mirror(func(p *corev1.Pod) { p.OwnerReferences[0].UID = "x" }), nil, "UID mismatch"},
		{"a mirror Pod with a secret", "pods", "", "m", admission.Create, mirror(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}}}
		}), nil, "can not create pods that reference secrets"},
		{"delete its Pod", "pods", "", "mine", admission.Delete, nil, nil, ""},
		{"delete another's Pod", "pods", "", "theirs", admission.Delete, nil, nil, "can only delete pods"},
		{"change a Pod", "pods", "", "mine", admission.Update, on("n1", same), on("n1", same), "can only create and delete mirror pods"},
		{"status of its Pod", "pods", "status", "p", admission.Update, on("n1", same), on("n1", same), ""},
		{"status of another's Pod", "pods", "status", "p", admission.Update, on("n2", same), on("n2", same), "can only update pod status"},
		{"labels by status", "pods", "status", "p", admission.Update, on("n1", func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }), on("n1", same), "cannot update labels"},
		{"evict its Pod", "pods", "eviction", "mine", admission.Create, &policyv1.Eviction{}, nil, ""},
		{"evict another's Pod", "pods", "eviction", "theirs", admission.Create, &policyv1.Eviction{}, nil, "can only evict pods"},
		{"exec", "pods", "exec", "mine", admission.Connect, nil, nil, ""}, // is not an operation of this plugin: the authorizer refuses it
		{"its node", "nodes", "", "n1", admission.Create, n("n1", map[string]string{"kubernetes.io/hostname": "n1", "my.org/x": "y"}), nil, ""},
		{"another node", "nodes", "", "n2", admission.Update, n("n2", nil), n("n2", nil), "is not allowed to modify node"},
		{"a role of the cluster", "nodes", "", "n1", admission.Create, n("n1", map[string]string{"node-role.kubernetes.io/master": ""}), nil,
			"is not allowed to set the following labels: node-role.kubernetes.io/master"},
		{"a restricted label, away", "nodes", "", "n1", admission.Update, n("n1", nil), n("n1", map[string]string{"node-restriction.kubernetes.io/a": "b"}),
			"is not allowed to modify labels: node-restriction.kubernetes.io/a"},
		{"a taint, away", "nodes", "", "n1", admission.Update, n("n1", nil), n("n1", nil, corev1.Taint{Key: "a"}), "is not allowed to modify taints"},
		{"its token", "serviceaccounts", "token", "default", admission.Create, token("mine", "uid-mine"), nil, ""},
		{"its token for a volume's audience", "serviceaccounts", "token", "default", admission.Create, token("mine", "uid-mine", "vault"), nil, ""},
		{"a token for another audience", "serviceaccounts", "token", "default", admission.Create, token("mine", "uid-mine", "bank"), nil,
			`is not authorized to request tokens for audience "bank"`},
		{"an unbound token", "serviceaccounts", "token", "default", admission.Create, token("", ""), nil, "not bound to a pod"},
		{"a token of another's Pod", "serviceaccounts", "token", "default", admission.Create, token("theirs", "uid-theirs"), nil, "on a different node"},
		{"a token of a Pod that was", "serviceaccounts", "token", "default", admission.Create, token("mine", "old"), nil, "does not match the UID in record"},
		{"capacity of a claim", "persistentvolumeclaims", "status", "c", admission.Update, claim(corev1.ResourceList{}, nil), claim(nil, nil), ""},
		{"labels of a claim", "persistentvolumeclaims", "status", "c", admission.Update, claim(nil, map[string]string{"a": "b"}), claim(nil, nil), "is not allowed to update fields"},
		{"a claim", "persistentvolumeclaims", "", "c", admission.Update, claim(nil, nil), claim(nil, nil), "may only update PVC status"},
		{"another's lease", "leases", "", "", admission.Create, lease, nil, "with the same name as the requesting node"},
	} {
		gvr := schema.GroupVersionResource{Version: "v1", Resource: tt.resource}
		namespace := "ns"
		if tt.resource == "leases" {
			gvr.Group, namespace = "coordination.k8s.io", corev1.NamespaceNodeLease
		}
		for name, u := range map[string]*user.DefaultInfo{
			"node": {Name: "system:node:n1", Groups: []string{user.NodesGroup}}, "somebody": {Name: "joe"},
		} {
			a := admission.NewAttributesRecord(tt.obj, tt.old, schema.GroupVersionKind{}, namespace, tt.object, gvr, tt.sub, tt.op, nil, false, u)
			p := newNodeRestriction(onNodes{}, signers{})
			if !p.Handles(tt.op) {
				continue
			}
			err := p.Admit(t.Context(), a, nil)
			switch {
			case tt.want == "" || name == "somebody":
				if err != nil {
					t.Errorf("%s, by %s: %v", tt.name, name, err)
				}
			case err == nil || !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), tt.want):
				t.Errorf("%s, by %s: %v", tt.name, name, err)
			}
		}
	}
	nameless := admission.NewAttributesRecord(nil, nil, schema.GroupVersionKind{}, "", "x", schema.GroupVersionResource{Resource: "pods"}, "",
		admission.Delete, nil, false, &user.DefaultInfo{Name: "system:node:", Groups: []string{user.NodesGroup}})
	if err := newNodeRestriction(onNodes{}, signers{}).Admit(t.Context(), nameless, nil); err == nil {
		t.Error("a node without a name may")
	}
}
