package node

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Objects finds what a node's Pods refer to. It may be a moment old, but never older than what a node can have seen. What it returns is not
// to be changed.
type Objects interface {
	// PodsOn are the Pods bound to a node, of one namespace, or of all if that is empty.
	PodsOn(ctx context.Context, node, namespace string) ([]corev1.Pod, error)
	Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error)
	PersistentVolumeClaim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error)
	PersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error)
	// NodeOf is the node that an object of another kind says it is for, empty if for none.
	NodeOf(ctx context.Context, group, resource, namespace, name string) (string, error)
}

// belongs says whether an object is one that the node needs for its Pods.
func (z *Authorizer) belongs(ctx context.Context, node, kind, namespace, name string) (bool, error) {
	switch kind {
	case "/pods":
		p, err := z.objects.Pod(ctx, namespace, name)
		return err == nil && p.Spec.NodeName == node, missing(err)
	case "/secrets":
		if ok, err := z.named(ctx, reason{node, kind, namespace, name}, secretOf(is(name))); ok || err != nil {
			return ok, err
		}
		return z.ofVolume(ctx, node, namespace, name)
	case "/configmaps":
		return z.named(ctx, reason{node, kind, namespace, name}, configMapOf(is(name)))
	case "/serviceaccounts":
		return z.named(ctx, reason{node, kind, namespace, name}, func(p *corev1.Pod) bool { return p.Spec.ServiceAccountName == name })
	case "/persistentvolumeclaims":
		return z.named(ctx, reason{node, kind, namespace, name}, func(p *corev1.Pod) bool { return contains(claims(p), name) })
	case "resource.k8s.io/resourceclaims":
		return z.named(ctx, reason{node, kind, namespace, name}, func(p *corev1.Pod) bool { return contains(resourceClaims(p), name) })
	case "/persistentvolumes":
		pv, err := z.objects.PersistentVolume(ctx, name)
		if err != nil || pv.Spec.ClaimRef == nil {
			return false, missing(err)
		}
		ref := pv.Spec.ClaimRef
		return z.named(ctx, reason{node, "/persistentvolumeclaims", ref.Namespace, ref.Name}, func(p *corev1.Pod) bool { return contains(claims(p), ref.Name) })
	case "storage.k8s.io/volumeattachments":
		of, err := z.objects.NodeOf(ctx, "storage.k8s.io", "volumeattachments", "", name)
		return of == node, missing(err)
	case "resource.k8s.io/resourceslices":
		of, err := z.objects.NodeOf(ctx, "resource.k8s.io", "resourceslices", "", name)
		return of == node, missing(err)
	case "certificates.k8s.io/podcertificaterequests":
		of, err := z.objects.NodeOf(ctx, "certificates.k8s.io", "podcertificaterequests", namespace, name)
		return of == node, missing(err)
	}
	return false, nil
}

// missing lets what does not exist belong to nobody.
func missing(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// reason is what a Pod was the reason to allow.
type reason struct{ node, kind, namespace, name string }

// named says whether a Pod of the node refers to something. Mirror Pods do not count: a node makes them itself.
func (z *Authorizer) named(ctx context.Context, r reason, refers func(*corev1.Pod) bool) (bool, error) {
	if name, ok := z.reasons.Get(r); ok {
		p, err := z.objects.Pod(ctx, r.namespace, name.(string))
		if err == nil && p.Spec.NodeName == r.node && !mirror(p) && refers(p) {
			return true, nil
		}
		z.reasons.Remove(r)
	}
	pods, err := z.objects.PodsOn(ctx, r.node, r.namespace)
	if err != nil {
		return false, err
	}
	for i := range pods {
		if !mirror(&pods[i]) && refers(&pods[i]) {
			z.reasons.Add(r, pods[i].Name)
			return true, nil
		}
	}
	return false, nil
}

func mirror(p *corev1.Pod) bool {
	_, ok := p.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// ofVolume says whether a Pod of the node uses a volume that names the secret.
func (z *Authorizer) ofVolume(ctx context.Context, node, namespace, secret string) (bool, error) {
	pods, err := z.objects.PodsOn(ctx, node, "")
	if err != nil {
		return false, err
	}
	for i := range pods {
		if mirror(&pods[i]) {
			continue
		}
		for _, name := range claims(&pods[i]) {
			claim, err := z.objects.PersistentVolumeClaim(ctx, pods[i].Namespace, name)
			if err != nil || claim.Spec.VolumeName == "" {
				continue
			}
			pv, err := z.objects.PersistentVolume(ctx, claim.Spec.VolumeName)
			if err != nil || pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.Namespace != claim.Namespace || pv.Spec.ClaimRef.Name != claim.Name {
				continue
			}
			for _, s := range volumeSecrets(pv) {
				if s.Namespace == namespace && s.Name == secret {
					return true, nil
				}
			}
		}
	}
	return false, nil
}
