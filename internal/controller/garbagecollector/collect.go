package garbagecollector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
)

const (
	// seeAgain is when an object that exists and that no informer has shown yet is looked at again.
	seeAgain = time.Second
	// unknownAgain is when an object of a kind that the server does not know is looked at again; a change of the API comes first.
	unknownAgain = time.Minute
)

var (
	errUnknownKind = errors.New("the server does not know the kind")
	// errScope: an object without a namespace names an owner in one, which cannot be. No retry helps.
	errScope = errors.New("cluster-scoped objects cannot refer to namespaced owners")
)

// sync does what one object needs: orphan its dependents, let it go after them, or delete it because its owners are gone. It may be
// repeated at any time.
func (c *Controller) sync(ctx context.Context, uid types.UID) error {
	n, ok := c.graph.look(uid)
	if !ok || n.deleting && !n.foreground && !n.orphan {
		return nil
	}
	err := c.collect(ctx, n)
	switch {
	case errors.Is(err, errUnknownKind):
		c.log.Debug("object or owner of an unknown kind", "kind", n.kind, "namespace", n.namespace, "name", n.name, "err", err)
		c.loop.AddAfter(uid, unknownAgain)
		return nil
	case errors.Is(err, errScope):
		c.log.Debug("bad owner reference", "kind", n.kind, "name", n.name, "err", err)
		return nil
	}
	return err
}

func (c *Controller) collect(ctx context.Context, n snapshot) error {
	client, err := c.client(n.apiVersion, n.kind, n.namespace)
	if errors.Is(err, errScope) {
		// Heard of in a namespace, and its kind has none.
		client, err = c.client(n.apiVersion, n.kind, "")
	}
	if err != nil {
		return err
	}
	live, err := client.Get(ctx, n.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), err == nil && live.UID != n.uid:
		c.wake(c.graph.missing(n.identity)...)
		return nil
	case err != nil:
		return fmt.Errorf("get %s %s/%s: %w", n.kind, n.namespace, n.name, err)
	case !n.observed:
		c.loop.AddAfter(n.uid, seeAgain)
		return nil
	case n.orphan:
		return c.orphan(ctx, client, n)
	case n.foreground:
		return c.foreground(ctx, client, n)
	case len(live.OwnerReferences) == 0:
		return nil
	}
	return c.judge(ctx, client, n, live)
}

// orphan takes the references to n from its dependents, then lets n go.
func (c *Controller) orphan(ctx context.Context, client metadata.ResourceInterface, n snapshot) error {
	var errs []error
	for _, d := range n.dependents {
		dc, err := c.client(d.apiVersion, d.kind, d.namespace)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, c.dropOwners(ctx, dc, d, []types.UID{n.uid}))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("orphan the dependents of %s %s/%s: %w", n.kind, n.namespace, n.name, err)
	}
	return c.dropFinalizer(ctx, client, n.identity, metav1.FinalizerOrphanDependents)
}

// foreground lets n go if no dependent holds it up, and else sees to those that do.
func (c *Controller) foreground(ctx context.Context, client metadata.ResourceInterface, n snapshot) error {
	if len(n.blocking) == 0 {
		return c.dropFinalizer(ctx, client, n.identity, metav1.FinalizerDeleteDependents)
	}
	for _, uid := range n.blocking {
		if d, ok := c.graph.look(uid); ok && !d.foreground {
			c.loop.Add(uid)
		}
	}
	return nil
}

// judge deletes the object if none of its owners keeps it.
func (c *Controller) judge(ctx context.Context, client metadata.ResourceInterface, n snapshot, live *metav1.PartialObjectMetadata) error {
	solid, dangling, waiting, err := c.classify(ctx, n, live.OwnerReferences)
	if err != nil {
		return err
	}
	switch {
	case len(solid) > 0 && len(dangling)+len(waiting) == 0:
		return nil
	case len(solid) > 0:
		return c.dropOwners(ctx, client, n.identity, append(dangling, waiting...))
	case len(waiting) > 0 && len(n.dependents) > 0:
		if n.waiting {
			// A dependent waits in turn: perhaps for us. No circle may hold itself up.
			if err := c.unblockOwners(ctx, client, n.identity); err != nil {
				return err
			}
			if live, err = client.Get(ctx, n.name, metav1.GetOptions{}); err != nil {
				return ignoreNotFound(err)
			}
		}
		return c.delete(ctx, client, n, live, metav1.DeletePropagationForeground)
	}
	policy := metav1.DeletePropagationBackground
	switch {
	case slices.Contains(live.Finalizers, metav1.FinalizerOrphanDependents):
		policy = metav1.DeletePropagationOrphan
	case slices.Contains(live.Finalizers, metav1.FinalizerDeleteDependents):
		policy = metav1.DeletePropagationForeground
	}
	c.log.Debug("deleting an object without owners", "kind", n.kind, "namespace", n.namespace, "name", n.name, "policy", string(policy))
	return c.delete(ctx, client, n, live, policy)
}

// classify sorts an object's owners: those that exist, those that do not, and those that exist and wait for their dependents to go.
func (c *Controller) classify(ctx context.Context, n snapshot, refs []metav1.OwnerReference) (solid, dangling, waiting []types.UID, err error) {
	for _, ref := range refs {
		if c.graph.alive(ref, n.namespace) {
			solid = append(solid, ref.UID)
			continue
		}
		owner, err := c.owner(ctx, ref, n.namespace)
		switch {
		case err != nil:
			return nil, nil, nil, err
		case owner == nil:
			dangling = append(dangling, ref.UID)
		case owner.DeletionTimestamp != nil && slices.Contains(owner.Finalizers, metav1.FinalizerDeleteDependents):
			waiting = append(waiting, ref.UID)
		default:
			solid = append(solid, ref.UID)
		}
	}
	return solid, dangling, waiting, nil
}

// owner asks the server for the owner that ref names; nil if it does not exist.
func (c *Controller) owner(ctx context.Context, ref metav1.OwnerReference, namespace string) (*metav1.PartialObjectMetadata, error) {
	if c.graph.gone(ref, namespace) {
		return nil, nil
	}
	mapping, err := c.mapping(ref.APIVersion, ref.Kind)
	if err != nil {
		return nil, err
	}
	id := named(ref, namespace)
	var client metadata.ResourceInterface = c.metadata.Resource(mapping.Resource)
	switch namespaced := mapping.Scope.Name() == meta.RESTScopeNameNamespace; {
	case namespaced && namespace == "":
		return nil, errScope
	case namespaced:
		client = c.metadata.Resource(mapping.Resource).Namespace(namespace)
	default:
		id.namespace = ""
	}
	owner, err := client.Get(ctx, ref.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), err == nil && owner.UID != ref.UID:
		c.graph.absent.Add(id, nil)
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("get the owner %s %s/%s: %w", ref.Kind, id.namespace, ref.Name, err)
	}
	return owner, nil
}

// delete deletes the object if it is still what was judged.
func (c *Controller) delete(
	ctx context.Context, client metadata.ResourceInterface, n snapshot, live *metav1.PartialObjectMetadata, policy metav1.DeletionPropagation,
) error {
	for {
		err := client.Delete(ctx, n.name, metav1.DeleteOptions{
			PropagationPolicy: &policy,
			Preconditions:     &metav1.Preconditions{UID: &n.uid, ResourceVersion: &live.ResourceVersion},
		})
		switch {
		case apierrors.IsNotFound(err):
			c.wake(c.graph.missing(n.identity)...)
			return nil
		case err == nil:
			return nil
		case !apierrors.IsConflict(err):
			return fmt.Errorf("delete %s %s/%s: %w", n.kind, n.namespace, n.name, err)
		}
		// It changed meanwhile. If its owners did not, the verdict stands: a status that changes all the time must not save it.
		fresh, err := client.Get(ctx, n.name, metav1.GetOptions{})
		if err != nil {
			return ignoreNotFound(err)
		}
		if fresh.UID != n.uid || !slices.EqualFunc(fresh.OwnerReferences, live.OwnerReferences, func(a, b metav1.OwnerReference) bool { return a.UID == b.UID }) {
			c.loop.Add(n.uid)
			return nil
		}
		live = fresh
	}
}

// client reaches the objects of a kind in a namespace.
func (c *Controller) client(apiVersion, kind, namespace string) (metadata.ResourceInterface, error) {
	mapping, err := c.mapping(apiVersion, kind)
	if err != nil {
		return nil, err
	}
	namespaced := mapping.Scope.Name() == meta.RESTScopeNameNamespace
	switch {
	case namespaced != (namespace != ""):
		return nil, errScope
	case namespaced:
		return c.metadata.Resource(mapping.Resource).Namespace(namespace), nil
	}
	return c.metadata.Resource(mapping.Resource), nil
}

func (c *Controller) mapping(apiVersion, kind string) (*meta.RESTMapping, error) {
	gk := schema.FromAPIVersionAndKind(apiVersion, kind)
	mapping, err := (*c.mapper.Load()).RESTMapping(gk.GroupKind(), gk.Version)
	if err != nil {
		return nil, fmt.Errorf("%w: %s %s: %w", errUnknownKind, apiVersion, kind, err)
	}
	return mapping, nil
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
