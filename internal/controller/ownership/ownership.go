// Package ownership decides which objects belong to a controller object, by its label selector and by the objects' controller
// reference, and makes it so: it adopts orphans that match and releases owned objects that no longer do.
//
// It imports client-go and apimachinery only. Invariants: an object owned by somebody else is never touched, even where selectors
// overlap; before the first adoption the owner is read again from the server, so that an owner that is going away adopts nothing.
package ownership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Verdict is what is to be done with one object.
type Verdict string

// The verdicts.
const (
	// Ignore: not ours and not to become ours.
	Ignore Verdict = "ignore"
	// Keep: ours.
	Keep Verdict = "keep"
	// Adopt: nobody's, and it matches.
	Adopt Verdict = "adopt"
	// Release: ours, but it no longer matches.
	Release Verdict = "release"
)

// Judge says what owner, whose selector is given, should do with obj. Objects in deletion are neither adopted nor released.
func Judge(owner metav1.Object, selector labels.Selector, obj metav1.Object) Verdict {
	matches := selector.Matches(labels.Set(obj.GetLabels()))
	ref := metav1.GetControllerOfNoCopy(obj)
	switch {
	case ref != nil && ref.UID != owner.GetUID():
		return Ignore
	case ref != nil && matches:
		return Keep
	case ref != nil && owner.GetDeletionTimestamp() == nil:
		return Release
	case ref != nil:
		return Ignore
	case owner.GetDeletionTimestamp() != nil || !matches || obj.GetDeletionTimestamp() != nil:
		return Ignore
	case owner.GetNamespace() != "" && owner.GetNamespace() != obj.GetNamespace():
		return Ignore
	}
	return Adopt
}

// Claimer carries verdicts out for one owner and one kind of object.
type Claimer[T metav1.Object] struct {
	Owner    metav1.Object
	Kind     schema.GroupVersionKind
	Selector labels.Selector
	// Fresh reads the owner from the server, not from a cache.
	Fresh func(ctx context.Context) (metav1.Object, error)
	// Patch applies a strategic merge patch to one object.
	Patch func(ctx context.Context, obj T, patch []byte) error
}

// Claim returns the objects that belong to the owner, after adopting and releasing as needed. An error about one object does not
// stop the others; the objects that could be claimed are returned with it.
func (c *Claimer[T]) Claim(ctx context.Context, objs []T) ([]T, error) {
	var claimed []T
	var errs []error
	var mayAdopt error
	checked := false
	for _, obj := range objs {
		switch Judge(c.Owner, c.Selector, obj) {
		case Keep:
			claimed = append(claimed, obj)
		case Release:
			if err := c.release(ctx, obj); err != nil {
				errs = append(errs, err)
			}
		case Adopt:
			if !checked {
				checked, mayAdopt = true, c.mayAdopt(ctx)
			}
			ok, err := c.adopt(ctx, obj, mayAdopt)
			if err != nil {
				errs = append(errs, err)
			}
			if ok {
				claimed = append(claimed, obj)
			}
		}
	}
	return claimed, errors.Join(errs...)
}

// mayAdopt reads the owner from the server and returns why it may not adopt, or nil.
func (c *Claimer[T]) mayAdopt(ctx context.Context) error {
	fresh, err := c.Fresh(ctx)
	if err != nil {
		return err
	}
	if fresh.GetUID() != c.Owner.GetUID() {
		return fmt.Errorf("original %s %s/%s is gone: got uid %s, wanted %s",
			c.Kind.Kind, c.Owner.GetNamespace(), c.Owner.GetName(), fresh.GetUID(), c.Owner.GetUID())
	}
	if at := fresh.GetDeletionTimestamp(); at != nil {
		return fmt.Errorf("%s/%s has just been deleted at %s", c.Owner.GetNamespace(), c.Owner.GetName(), at)
	}
	return nil
}

func (c *Claimer[T]) adopt(ctx context.Context, obj T, refused error) (bool, error) {
	if refused != nil {
		return false, fmt.Errorf("cannot adopt %s/%s: %w", obj.GetNamespace(), obj.GetName(), refused)
	}
	patch, err := adoptPatch(metav1.NewControllerRef(c.Owner, c.Kind), obj.GetUID())
	if err != nil {
		return false, err
	}
	err = c.Patch(ctx, obj, patch)
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		// Gone, or another object of the same name by now: the cache will say which.
		return false, nil
	case err != nil:
		return false, fmt.Errorf("adopt %s/%s: %w", obj.GetNamespace(), obj.GetName(), err)
	}
	return true, nil
}

func (c *Claimer[T]) release(ctx context.Context, obj T) error {
	patch, err := releasePatch(c.Owner.GetUID(), obj.GetUID())
	if err != nil {
		return err
	}
	err = c.Patch(ctx, obj, patch)
	switch {
	case err == nil, apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return nil
	case apierrors.IsInvalid(err):
		// Either the reference is gone already, or another object has the name and the uid precondition failed.
		return nil
	}
	return fmt.Errorf("release %s/%s: %w", obj.GetNamespace(), obj.GetName(), err)
}

// adoptPatch adds one owner reference, if the object still has the uid.
func adoptPatch(ref *metav1.OwnerReference, uid types.UID) ([]byte, error) {
	return json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":             uid,
		"ownerReferences": []*metav1.OwnerReference{ref},
	}})
}

// releasePatch takes the references to owners away, if the object still has the uid.
func releasePatch(owner, uid types.UID) ([]byte, error) {
	return json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":             uid,
		"ownerReferences": []any{map[string]any{"$patch": "delete", "uid": owner}},
	}})
}
