package node

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"sigs.k8s.io/yaml"
)

// one Pod is on n1, in the namespace ns. Its claim is bound to the volume pv.
type objects struct{ pod *corev1.Pod }

func (o objects) PodsOn(_ context.Context, node, namespace string) ([]corev1.Pod, error) {
	if node != "n1" || namespace != "" && namespace != "ns" {
		return nil, nil
	}
	return []corev1.Pod{*o.pod}, nil
}

func (o objects) Pod(_ context.Context, namespace, name string) (*corev1.Pod, error) {
	if namespace == "ns" && name == "p" {
		return o.pod, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
}

func (objects) PersistentVolumeClaim(_ context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{VolumeName: map[string]string{"claim": "pv"}[name]}}, nil
}

func (objects) PersistentVolume(_ context.Context, name string) (*corev1.PersistentVolume, error) {
	if name == "free" {
		return &corev1.PersistentVolume{}, nil
	}
	v := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{Namespace: "ns", Name: "claim"}}}
	v.Spec.CSI = &corev1.CSIPersistentVolumeSource{
		NodeStageSecretRef:         &corev1.SecretReference{Namespace: "storage", Name: "stage"},
		ControllerPublishSecretRef: &corev1.SecretReference{Namespace: "storage", Name: "controller"},
	}
	if name == "other" {
		v.Spec.ClaimRef.Name = "another-claim"
	}
	return v, nil
}

func (objects) NodeOf(_ context.Context, _, _, _, name string) (string, error) {
	if name == "none" {
		return "", apierrors.NewNotFound(corev1.Resource("x"), name)
	}
	return name, nil
}

const examplePod = `
metadata: {namespace: ns, name: p}
spec:
  nodeName: n1
  serviceAccountName: account
  imagePullSecrets: [{name: pull}]
  initContainers: [{name: i, envFrom: [{secretRef: {name: env-from}}, {configMapRef: {name: map-from}}]}]
  containers: [{name: c, env: [{name: E, valueFrom: {secretKeyRef: {name: env, key: k}}}, {name: F, valueFrom: {configMapKeyRef: {name: map, key: k}}}]}]
  ephemeralContainers: [{name: e, env: [{name: E, valueFrom: {secretKeyRef: {name: env-of-ephemeral, key: k}}}]}]
  resourceClaims: [{name: r, resourceClaimName: gpu}]
  volumes:
  - {name: s, secret: {secretName: volume}}
  - {name: m, configMap: {name: map-volume}}
  - {name: p, projected: {sources: [{secret: {name: projected}}, {configMap: {name: map-projected}}]}}
  - {name: csi, csi: {driver: d, nodePublishSecretRef: {name: publish}}}
  - {name: v, persistentVolumeClaim: {claimName: claim}}
  - {name: e, ephemeral: {}}
status: {resourceClaimStatuses: [{name: t, resourceClaimName: made}]}
`

func TestWhatBelongsToANode(t *testing.T) {
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(examplePod), pod); err != nil {
		t.Fatal(err)
	}
	mirror := pod.DeepCopy()
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	res := func(verb, group, resource, sub, namespace, name string) authorizer.AttributesRecord {
		return authorizer.AttributesRecord{Verb: verb, APIGroup: group, Resource: resource, Subresource: sub, Namespace: namespace, Name: name, ResourceRequest: true}
	}
	selecting := func(a authorizer.AttributesRecord, field, value string) authorizer.AttributesRecord {
		a.FieldSelectorRequirements = fields.OneTermEqualSelector(field, value).Requirements()
		return a
	}
	type try struct {
		attr authorizer.AttributesRecord
		want bool
	}
	tries := []try{
		{res("list", "", "secrets", "", "ns", ""), false},
		{res("update", "", "secrets", "", "ns", "env"), false},
		{res("get", "", "secrets", "", "other", "env"), false},
		{res("get", "", "secrets", "", "ns", "unknown"), false},
		{res("get", "", "secrets", "", "storage", "stage"), true},
		{res("get", "", "secrets", "", "storage", "controller"), false},
		{res("get", "", "serviceaccounts", "", "ns", "account"), true},
		{res("create", "", "serviceaccounts", "token", "ns", "account"), true},
		{res("create", "", "serviceaccounts", "token", "ns", "default"), false},
		{res("create", "", "serviceaccounts", "", "ns", ""), false},
		{res("get", "", "persistentvolumeclaims", "", "ns", "claim"), true},
		{res("get", "", "persistentvolumeclaims", "", "ns", "p-e"), true},
		{res("get", "", "persistentvolumeclaims", "", "ns", "other"), false},
		{res("list", "", "persistentvolumeclaims", "", "ns", ""), false},
		{res("patch", "", "persistentvolumeclaims", "status", "ns", "claim"), true},
		{res("patch", "", "persistentvolumeclaims", "", "ns", "claim"), false},
		{res("get", "", "persistentvolumes", "", "", "pv"), true},
		{res("get", "", "persistentvolumes", "", "", "other"), false},
		{res("get", "", "persistentvolumes", "", "", "free"), false},
		{res("get", "resource.k8s.io", "resourceclaims", "", "ns", "gpu"), true},
		{res("get", "resource.k8s.io", "resourceclaims", "", "ns", "made"), true},
		{res("get", "resource.k8s.io", "resourceclaims", "", "ns", "other"), false},
		{res("get", "storage.k8s.io", "volumeattachments", "", "", "n1"), true},
		{res("get", "storage.k8s.io", "volumeattachments", "", "", "n2"), false},
		{res("get", "storage.k8s.io", "volumeattachments", "", "", "none"), false},
		{res("create", "resource.k8s.io", "resourceslices", "", "", ""), true},
		{selecting(res("list", "resource.k8s.io", "resourceslices", "", "", ""), "spec.nodeName", "n1"), true},
		{res("list", "resource.k8s.io", "resourceslices", "", "", ""), false},
		{selecting(res("list", "certificates.k8s.io", "podcertificaterequests", "", "ns", ""), "spec.nodeName", "n1"), true},
		{selecting(res("list", "certificates.k8s.io", "podcertificaterequests", "", "ns", ""), "spec.nodeName", "n2"), false},
		{res("update", "certificates.k8s.io", "podcertificaterequests", "status", "ns", "n1"), false},
		{res("get", "", "pods", "", "ns", "p"), true},
		{res("get", "", "pods", "", "ns", "q"), false},
		{selecting(res("watch", "", "pods", "", "", ""), "spec.nodeName", "n1"), true},
		{selecting(res("watch", "", "pods", "", "", ""), "spec.nodeName", "n2"), false},
		{res("watch", "", "pods", "", "", ""), false},
		{res("patch", "", "pods", "status", "ns", "any"), true}, // admission looks whose it is
		{res("patch", "", "pods", "", "ns", "p"), false},
		{res("create", "", "pods", "exec", "ns", "p"), false},
		{res("get", "", "nodes", "", "", "n1"), true},
		{res("get", "", "nodes", "", "", "n2"), false},
		{res("list", "", "nodes", "", "", ""), false},
		{res("delete", "", "nodes", "", "", "n1"), false},
		{res("update", "coordination.k8s.io", "leases", "", "kube-node-lease", "n1"), true},
		{res("update", "coordination.k8s.io", "leases", "", "kube-node-lease", "n2"), false},
		{res("update", "coordination.k8s.io", "leases", "", "ns", "n1"), false},
		{res("get", "storage.k8s.io", "csinodes", "", "", "n1"), true},
		{res("get", "storage.k8s.io", "csinodes", "", "", "n2"), false},
		{res("list", "", "services", "", "", ""), true},
		{res("list", "certificates.k8s.io", "clustertrustbundles", "", "", ""), true},
		{res("list", "apps", "deployments", "", "", ""), false},
	}
	for _, name := range []string{"pull", "env-from", "env", "env-of-ephemeral", "volume", "projected", "publish"} {
		tries = append(tries, try{res("get", "", "secrets", "", "ns", name), true}, try{res("get", "", "configmaps", "", "ns", name), false})
	}
	for _, name := range []string{"map-from", "map", "map-volume", "map-projected"} {
		tries = append(tries, try{res("watch", "", "configmaps", "", "ns", name), true}, try{res("get", "", "secrets", "", "ns", name), false})
	}
	z, ofMirror := New(objects{pod}), New(objects{mirror})
	for _, tt := range tries {
		tt.attr.User = &user.DefaultInfo{Name: "system:node:n1", Groups: []string{user.NodesGroup}}
		got, reason, err := z.Authorize(t.Context(), "n1", tt.attr)
		if err != nil || (got == authorizer.DecisionAllow) != tt.want {
			t.Errorf("%s %s/%s %s %s: %v %q %v", tt.attr.Verb, tt.attr.Resource, tt.attr.Subresource, tt.attr.Namespace, tt.attr.Name, got, reason, err)
		}
		if got, _, _ := z.Authorize(t.Context(), "", tt.attr); got == authorizer.DecisionAllow {
			t.Errorf("a node without a name may %s %s", tt.attr.Verb, tt.attr.Resource)
		}
		if r := tt.attr.Resource; r == "secrets" || r == "configmaps" || r == "serviceaccounts" {
			if got, _, _ := ofMirror.Authorize(t.Context(), "n1", tt.attr); got == authorizer.DecisionAllow {
				t.Errorf("a mirror Pod gives %s %s", r, tt.attr.Name)
			}
		}
	}
	// What was allowed because of a Pod is so no longer than the Pod is there.
	secret := res("get", "", "secrets", "", "ns", "env")
	secret.User = &user.DefaultInfo{Name: "system:node:n1", Groups: []string{user.NodesGroup}}
	have := &objects{pod}
	z = New(have)
	for range 2 {
		if got, reason, err := z.Authorize(t.Context(), "n1", secret); got != authorizer.DecisionAllow {
			t.Errorf("%v %s %v", got, reason, err)
		}
	}
	have.pod = pod.DeepCopy()
	have.pod.Spec.Containers = nil
	if got, _, _ := z.Authorize(t.Context(), "n1", secret); got == authorizer.DecisionAllow {
		t.Error("what no Pod names any more is allowed")
	}
	if RefersTo(pod) == "" || RefersTo(&corev1.Pod{}) != "" {
		t.Errorf("what a Pod refers to: %q, %q", RefersTo(pod), RefersTo(&corev1.Pod{}))
	}
}
