package replicaset

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"carob.dev/carob/internal/controller/ownership"
	"carob.dev/carob/internal/controller/pods"
)

// sync makes one ReplicaSet true: claims its Pods, creates or deletes some, writes its status. It may be repeated at any time.
func (c *Controller) sync(ctx context.Context, key cache.ObjectName) error {
	rs, err := c.get(key)
	if err != nil {
		return err
	}
	if rs == nil {
		c.expected.Forget(key.String())
		return nil
	}
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		c.log.Warn("bad selector", "kind", c.source.kind.Kind, "object", key.String(), "err", err)
		return nil
	}
	// Read before the Pods are listed: what is met now is in the list.
	met := c.expected.Met(key.String())
	active, terminating, err := c.claim(ctx, rs, selector)
	if err != nil {
		return err
	}
	var manageErr error
	if met && rs.DeletionTimestamp == nil {
		manageErr = c.manage(ctx, key.String(), rs, active)
	}
	now := c.clock.Now()
	if err := c.writeStatus(ctx, rs, c.source.keeps(status(rs, active, len(terminating), manageErr, now))); err != nil {
		return errors.Join(manageErr, err)
	}
	if manageErr != nil {
		return manageErr
	}
	if wait, ok := nextAvailable(active, rs.Spec.MinReadySeconds, now); ok {
		c.loop.AddAfter(key, wait)
	}
	return nil
}

// claim returns the ReplicaSet's Pods that count, and those that are on their way out.
func (c *Controller) claim(ctx context.Context, rs *appsv1.ReplicaSet, selector labels.Selector) (active, terminating []*corev1.Pod, err error) {
	owned, err := ownership.ControlledBy[*corev1.Pod](c.podIndex, rs.UID)
	if err != nil {
		return nil, nil, err
	}
	orphans, err := ownership.Orphans[*corev1.Pod](c.podIndex, rs.Namespace)
	if err != nil {
		return nil, nil, err
	}
	var candidates []*corev1.Pod
	for _, p := range owned {
		switch {
		case pods.Active(p):
			candidates = append(candidates, p)
		case pods.Terminating(p) && selector.Matches(labels.Set(p.Labels)):
			terminating = append(terminating, p)
		}
	}
	for _, p := range orphans {
		if pods.Active(p) {
			candidates = append(candidates, p)
		}
	}
	claimer := ownership.Claimer[*corev1.Pod]{
		Owner: rs, Kind: c.source.kind, Selector: selector,
		Fresh: func(ctx context.Context) (metav1.Object, error) {
			return c.source.fresh(ctx, rs.Namespace, rs.Name)
		},
		Patch: c.writer.Patch,
	}
	active, err = claimer.Claim(ctx, candidates)
	return active, terminating, err
}

// manage creates or deletes Pods until there are as many as wanted.
func (c *Controller) manage(ctx context.Context, key string, rs *appsv1.ReplicaSet, active []*corev1.Pod) error {
	diff := len(active) - int(replicas(rs))
	switch {
	case diff < 0:
		return c.create(ctx, key, rs, min(-diff, burst))
	case diff > 0:
		related, err := c.related(rs)
		if err != nil {
			return err
		}
		return c.delete(ctx, key, rs, pods.ToDelete(active, related, min(diff, burst), c.clock.Now()))
	}
	return nil
}

func (c *Controller) create(ctx context.Context, key string, rs *appsv1.ReplicaSet, n int) error {
	c.expected.Create(key, n)
	ref := metav1.NewControllerRef(rs, c.source.kind)
	done, err := pods.SlowStart(n, func() error { return c.writer.Create(ctx, &rs.Spec.Template, rs, ref) })
	// What was not created, or not even tried, will not be seen.
	for range n - done {
		c.expected.Created(key)
	}
	return err
}

func (c *Controller) delete(ctx context.Context, key string, rs *appsv1.ReplicaSet, victims []*corev1.Pod) error {
	uids := make([]types.UID, len(victims))
	for i, p := range victims {
		uids[i] = p.UID
	}
	c.expected.Delete(key, uids...)
	errs := make([]error, len(victims))
	var wg sync.WaitGroup
	for i, p := range victims {
		wg.Go(func() {
			err := c.writer.Delete(ctx, p, rs)
			if err == nil {
				return
			}
			c.expected.Deleted(key, p.UID)
			if !apierrors.IsNotFound(err) {
				errs[i] = err
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// related lists the Pods of all ReplicaSets with the same owner as rs (its Deployment), or of rs alone if it has none.
func (c *Controller) related(rs *appsv1.ReplicaSet) ([]*corev1.Pod, error) {
	family := []*appsv1.ReplicaSet{rs}
	if ref := controllerOf(rs); ref != nil {
		members, err := ownership.ControlledBy[any](c.setIndex, ref.UID)
		if err != nil {
			return nil, err
		}
		family = family[:0]
		for _, m := range members {
			family = append(family, c.source.view(m))
		}
	}
	var out []*corev1.Pod
	for _, member := range family {
		owned, err := ownership.ControlledBy[*corev1.Pod](c.podIndex, member.UID)
		if err != nil {
			return nil, err
		}
		out = append(out, owned...)
	}
	return out, nil
}

// writeStatus writes the status if it says something new.
func (c *Controller) writeStatus(ctx context.Context, rs *appsv1.ReplicaSet, s appsv1.ReplicaSetStatus) error {
	if sameStatus(rs.Status, s) {
		return nil
	}
	updated := rs.DeepCopy()
	updated.Status = s
	err := c.source.writeStatus(ctx, updated)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write the status of %s %s/%s: %w", c.source.kind.Kind, rs.Namespace, rs.Name, err)
	}
	return nil
}

// nextAvailable returns when the next Pod that is ready becomes available.
func nextAvailable(active []*corev1.Pod, minReadySeconds int32, now time.Time) (time.Duration, bool) {
	var next time.Duration
	found := false
	for _, p := range active {
		wait, ok := pods.UntilAvailable(p, minReadySeconds, now)
		if ok && wait > 0 && (!found || wait < next) {
			next, found = wait, true
		}
	}
	return next, found
}
