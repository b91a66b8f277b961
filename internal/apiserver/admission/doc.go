// Package admission completes and checks requests after authorization: namespaces that exist and live, service accounts, priorities and
// default tolerations of Pods. Each plugin does what the one of the same name does in Kubernetes.
//
// It imports k8s.io/apiserver, and auth/node for what a node is. Invariant: plugins read objects through the Lookup they are given, and never change what they read.
package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Lookup gives objects that plugins decide by. What it returns is not to be changed.
type Lookup interface {
	// Namespace may be a moment old, unless fresh is asked for.
	Namespace(ctx context.Context, name string, fresh bool) (*corev1.Namespace, error)
	ServiceAccount(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error)
	RuntimeClass(ctx context.Context, name string) (*nodev1.RuntimeClass, error)
	Node(ctx context.Context, name string) (*corev1.Node, error)
	Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error)
	PersistentVolumeClaim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error)
	PersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error)
	CSIDriver(ctx context.Context, name string) (*storagev1.CSIDriver, error)
	// StorageClasses are all classes of storage; the list may be a moment old.
	StorageClasses(ctx context.Context) ([]*storagev1.StorageClass, error)
}

// Chain is all plugins in their order.
func Chain(objects Lookup, z authorizer.Authorizer) admission.Interface {
	return admission.NewChainHandler(
		newNamespaceLifecycle(objects),
		newNodeRestriction(objects, z),
		newServiceAccount(objects),
		newPriority(),
		newDefaultTolerationSeconds(),
		newRuntimeClass(objects),
		newCertificates(z),
		newPodResize(objects),
		newStorage(objects),
		newAdminAccess(objects),
	)
}

// newPod gives the Pod of a request that creates one; false for any other request.
func newPod(a admission.Attributes) (*corev1.Pod, bool) {
	if a.GetOperation() != admission.Create || a.GetSubresource() != "" || a.GetResource().GroupResource() != corev1.Resource("pods") {
		return nil, false
	}
	pod, ok := a.GetObject().(*corev1.Pod)
	return pod, ok
}
