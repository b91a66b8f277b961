package garbagecollector

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
)

// dropOwners takes the references to the given owners from an object. One that is gone, or has none of them, is done already.
func (c *Controller) dropOwners(ctx context.Context, client metadata.ResourceInterface, id identity, owners []types.UID) error {
	return change(ctx, client, id, func(o *metav1.PartialObjectMetadata) map[string]any {
		kept := slices.DeleteFunc(slices.Clone(o.OwnerReferences), func(r metav1.OwnerReference) bool { return slices.Contains(owners, r.UID) })
		if len(kept) == len(o.OwnerReferences) {
			return nil
		}
		return map[string]any{"ownerReferences": kept}
	})
}

// unblockOwners makes an object hold up none of its owners' deletions.
func (c *Controller) unblockOwners(ctx context.Context, client metadata.ResourceInterface, id identity) error {
	return change(ctx, client, id, func(o *metav1.PartialObjectMetadata) map[string]any {
		refs := slices.Clone(o.OwnerReferences)
		changed := false
		for i := range refs {
			if blocks(refs[i]) {
				no := false
				refs[i].BlockOwnerDeletion, changed = &no, true
			}
		}
		if !changed {
			return nil
		}
		return map[string]any{"ownerReferences": refs}
	})
}

// dropFinalizer takes one finalizer from an object.
func (c *Controller) dropFinalizer(ctx context.Context, client metadata.ResourceInterface, id identity, finalizer string) error {
	return change(ctx, client, id, func(o *metav1.PartialObjectMetadata) map[string]any {
		kept := slices.DeleteFunc(slices.Clone(o.Finalizers), func(f string) bool { return f == finalizer })
		if len(kept) == len(o.Finalizers) {
			return nil
		}
		return map[string]any{"finalizers": kept}
	})
}

// change reads an object and patches its metadata with what edit returns, again if it changed meanwhile. nil is nothing to do. A
// merge patch works on every kind; the resourceVersion in it makes sure that lists are replaced only as they were read.
func change(
	ctx context.Context, client metadata.ResourceInterface, id identity, edit func(*metav1.PartialObjectMetadata) map[string]any,
) error {
	const tries = 5
	var err error
	for range tries {
		var o *metav1.PartialObjectMetadata
		o, err = client.Get(ctx, id.name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && o.UID != id.uid {
			return nil
		}
		if err != nil {
			break
		}
		fields := edit(o)
		if fields == nil {
			return nil
		}
		fields["resourceVersion"] = o.ResourceVersion
		fields["uid"] = o.UID
		var patch []byte
		if patch, err = json.Marshal(map[string]any{"metadata": fields}); err != nil {
			break
		}
		_, err = client.Patch(ctx, id.name, types.MergePatchType, patch, metav1.PatchOptions{})
		if err == nil || apierrors.IsNotFound(err) {
			return nil
		}
		if !apierrors.IsConflict(err) {
			break
		}
	}
	return fmt.Errorf("change %s %s/%s: %w", id.kind, id.namespace, id.name, err)
}
