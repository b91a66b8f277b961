package deployment

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"carob.dev/carob/internal/controller/ownership"
	"carob.dev/carob/internal/controller/pods"
)

// sync takes the next step for one Deployment. It may be repeated at any time.
func (c *Controller) sync(ctx context.Context, key cache.ObjectName) error {
	d, err := c.deployments.Deployments(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if equality.Semantic.DeepEqual(d.Spec.Selector, &metav1.LabelSelector{}) {
		return c.refuseAll(ctx, d)
	}
	if t := d.Spec.Strategy.Type; t != appsv1.RollingUpdateDeploymentStrategyType && t != appsv1.RecreateDeploymentStrategyType {
		return fmt.Errorf("deployment %s: unexpected deployment strategy type: %q", key, t)
	}
	sets, err := c.claim(ctx, d)
	if err != nil {
		return err
	}
	var podsErr error
	p := decide(facts{
		deployment: d, sets: sets, now: c.clock.Now(),
		oldPodsRun: func(current *appsv1.ReplicaSet) bool {
			run, err := c.oldPodsRun(sets, current)
			podsErr = err
			return run || err != nil
		},
	})
	if podsErr != nil {
		return podsErr
	}
	return c.carryOut(ctx, key, p)
}

// refuseAll tells a Deployment that selects everything that it may not.
func (c *Controller) refuseAll(ctx context.Context, d *appsv1.Deployment) error {
	c.recorder.Event(d, corev1.EventTypeWarning, "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.")
	if d.Status.ObservedGeneration >= d.Generation {
		return nil
	}
	d = d.DeepCopy()
	d.Status.ObservedGeneration = d.Generation
	return c.writeStatus(ctx, d)
}

func (c *Controller) claim(ctx context.Context, d *appsv1.Deployment) ([]*appsv1.ReplicaSet, error) {
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("deployment %s/%s has an invalid label selector: %w", d.Namespace, d.Name, err)
	}
	sets, err := ownership.ControlledBy[*appsv1.ReplicaSet](c.setIndex, d.UID)
	if err != nil {
		return nil, err
	}
	orphans, err := ownership.Orphans[*appsv1.ReplicaSet](c.setIndex, d.Namespace)
	if err != nil {
		return nil, err
	}
	claimer := ownership.Claimer[*appsv1.ReplicaSet]{
		Owner: d, Kind: kind, Selector: selector,
		Fresh: func(ctx context.Context) (metav1.Object, error) {
			return c.client.AppsV1().Deployments(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
		},
		Patch: func(ctx context.Context, rs *appsv1.ReplicaSet, patch []byte) error {
			_, err := c.client.AppsV1().ReplicaSets(rs.Namespace).Patch(ctx, rs.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			return err
		},
	}
	return claimer.Claim(ctx, append(sets, orphans...))
}

// oldPodsRun says whether a Pod of another ReplicaSet than current has not ended.
func (c *Controller) oldPodsRun(sets []*appsv1.ReplicaSet, current *appsv1.ReplicaSet) (bool, error) {
	for _, rs := range sets {
		if current != nil && rs.UID == current.UID {
			continue
		}
		owned, err := ownership.ControlledBy[*corev1.Pod](c.podIndex, rs.UID)
		if err != nil {
			return false, err
		}
		for _, p := range owned {
			if !pods.Ended(p) {
				return true, nil
			}
		}
	}
	return false, nil
}

// carryOut writes what the plan says: ReplicaSets first, the Deployment's status last.
func (c *Controller) carryOut(ctx context.Context, key cache.ObjectName, p plan) error {
	if p.create != nil {
		if err := c.createSet(ctx, p); err != nil {
			return err
		}
	}
	for _, ch := range p.update {
		if err := c.updateSet(ctx, p.deployment, ch); err != nil {
			return err
		}
	}
	for _, rs := range p.remove {
		err := c.client.AppsV1().ReplicaSets(rs.Namespace).Delete(ctx, rs.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(rs.UID))})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("remove the old replicaset %s/%s: %w", rs.Namespace, rs.Name, err)
		}
	}
	if p.write {
		return c.writeStatus(ctx, p.deployment)
	}
	if p.checkAfter > 0 {
		c.loop.AddAfter(key, p.checkAfter)
	}
	return nil
}

func (c *Controller) updateSet(ctx context.Context, d *appsv1.Deployment, ch change) error {
	rs, err := c.client.AppsV1().ReplicaSets(ch.set.Namespace).Update(ctx, ch.set, metav1.UpdateOptions{})
	if err != nil {
		return fmt.Errorf("update replicaset %s/%s: %w", ch.set.Namespace, ch.set.Name, err)
	}
	if to := size(rs); to != ch.from {
		way := "up"
		if to < ch.from {
			way = "down"
		}
		c.recorder.Eventf(d, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d", way, rs.Name, ch.from, to)
	}
	return nil
}

// createSet makes the new ReplicaSet. If the name is taken, either we made it before and the cache is behind, or two templates have
// the same hash: then the collision count goes up and the next try has another name.
func (c *Controller) createSet(ctx context.Context, p plan) error {
	d := p.deployment
	rs, err := c.client.AppsV1().ReplicaSets(d.Namespace).Create(ctx, p.create, metav1.CreateOptions{})
	switch {
	case err == nil:
		if n := size(rs); n > 0 {
			c.recorder.Eventf(d, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled up replica set %s from 0 to %d", rs.Name, n)
		}
		return nil
	case apierrors.IsAlreadyExists(err):
		return c.nameTaken(ctx, p, err)
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return err
	}
	message := fmt.Sprintf("Failed to create new replica set %q: %v", p.create.Name, err)
	if hasDeadline(d) {
		setCondition(&d.Status, newCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonReplicaSetCreateError, message, c.clock.Now()))
		if writeErr := c.writeStatus(ctx, d); writeErr != nil {
			c.log.Debug("the failure to create a replicaset is not in the status yet", "deployment", d.Namespace+"/"+d.Name, "err", writeErr)
		}
	}
	c.recorder.Event(d, corev1.EventTypeWarning, reasonReplicaSetCreateError, message)
	return fmt.Errorf("create replicaset %s/%s: %w", d.Namespace, p.create.Name, err)
}

func (c *Controller) nameTaken(ctx context.Context, p plan, cause error) error {
	d := p.deployment
	rs, err := c.client.AppsV1().ReplicaSets(d.Namespace).Get(ctx, p.create.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("look at replicaset %s/%s, whose name is taken: %w", d.Namespace, p.create.Name, err)
	}
	if metav1.IsControlledBy(rs, d) && sameTemplate(&rs.Spec.Template, &d.Spec.Template) {
		return nil
	}
	count := int32(1)
	if d.Status.CollisionCount != nil {
		count = *d.Status.CollisionCount + 1
	}
	fresh, err := c.deployments.Deployments(d.Namespace).Get(d.Name)
	if err != nil {
		return err
	}
	fresh = fresh.DeepCopy()
	fresh.Status.CollisionCount = &count
	if err := c.writeStatus(ctx, fresh); err != nil {
		return err
	}
	c.log.Info("two pod templates have the same hash, taking another", "deployment", d.Namespace+"/"+d.Name, "collisions", count)
	return fmt.Errorf("create replicaset %s/%s: %w", d.Namespace, p.create.Name, cause)
}

// writeStatus writes the status and the revision annotation, which the status endpoint lets through.
func (c *Controller) writeStatus(ctx context.Context, d *appsv1.Deployment) error {
	_, err := c.client.AppsV1().Deployments(d.Namespace).UpdateStatus(ctx, d, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write the status of deployment %s/%s: %w", d.Namespace, d.Name, err)
	}
	return nil
}
