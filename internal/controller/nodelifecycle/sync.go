package nodelifecycle

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"carob.dev/carob/internal/controller/pods"
)

// syncNode looks at one node: has it been silent for too long, and has it the taints that its conditions ask for? It may be repeated
// at any time.
func (c *Controller) syncNode(ctx context.Context, name string) error {
	n, err := c.nodes.Get(name)
	if apierrors.IsNotFound(err) {
		c.forget(name)
		return nil
	}
	if err != nil {
		return err
	}
	now := c.clock.Now()
	if left := c.note(n, c.lease(name)).Sub(now); left > 0 {
		c.nodeLoop.AddAfter(name, left)
	} else if conditions, changed := staleConditions(n, now); changed {
		c.log.Warn("node is not heard of any more", "node", name)
		n = n.DeepCopy()
		n.Status.Conditions = conditions
		// The update comes back as an event, and the taints follow then.
		if _, err := c.client.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("mark node %s unknown: %w", name, err)
		}
		return nil
	}
	if want, changed := taints(n, now); changed {
		n = n.DeepCopy()
		n.Spec.Taints = want
		if _, err := c.client.CoreV1().Nodes().Update(ctx, n, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("taint node %s: %w", name, err)
		}
	}
	if ready := readiness(n); ready != "" && ready != corev1.ConditionTrue {
		return c.markNotReady(ctx, name)
	}
	return nil
}

// markNotReady makes the Pods of a node that is not ready not ready, so that no traffic goes to them.
func (c *Controller) markNotReady(ctx context.Context, node string) error {
	for _, p := range c.podsOf(node) {
		if !pods.Ready(p) {
			continue
		}
		err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
			fresh, err := c.client.CoreV1().Pods(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
			if err != nil || fresh.UID != p.UID || !pods.Ready(fresh) {
				return err
			}
			cond := *pods.Condition(fresh, corev1.PodReady)
			cond.Status = corev1.ConditionFalse
			cond.LastTransitionTime = metav1.NewTime(c.clock.Now())
			pods.SetCondition(&fresh.Status, cond)
			if _, err = c.client.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, fresh, metav1.UpdateOptions{}); err == nil {
				c.recorder.Event(fresh, corev1.EventTypeWarning, "NodeNotReady", "Node is not ready")
			}
			return err
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("mark pod %s/%s not ready: %w", p.Namespace, p.Name, err)
		}
	}
	return nil
}
