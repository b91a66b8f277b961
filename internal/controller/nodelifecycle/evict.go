package nodelifecycle

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/retry"

	"carob.dev/carob/internal/controller/pods"
)

// seeTaints remembers since when a node has each NoExecute taint that does not say it itself.
func (c *Controller) seeTaints(n *corev1.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.tainted[n.Name]
	delete(c.tainted, n.Name)
	for _, t := range evicting(n.Spec.Taints) {
		since, ok := was[identity(t)]
		if !ok {
			since = metav1.NewTime(c.clock.Now())
		}
		if c.tainted[n.Name] == nil {
			c.tainted[n.Name] = map[corev1.Taint]metav1.Time{}
		}
		c.tainted[n.Name][identity(t)] = since
	}
}

// identity is what makes a taint the same as before.
func identity(t corev1.Taint) corev1.Taint {
	return corev1.Taint{Key: t.Key, Value: t.Value, Effect: t.Effect}
}

func evicting(list []corev1.Taint) (out []corev1.Taint) {
	for _, t := range list {
		if t.Effect == corev1.TaintEffectNoExecute {
			out = append(out, t)
		}
	}
	return out
}

// taintsOf are the NoExecute taints of a node, each with the time since when it has it.
func (c *Controller) taintsOf(n *corev1.Node) []corev1.Taint {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := evicting(n.Spec.Taints)
	for i := range out {
		if out[i].TimeAdded != nil {
			continue
		}
		if since, ok := c.tainted[n.Name][identity(out[i])]; ok {
			out[i].TimeAdded = &since
		}
	}
	return out
}

// syncPod evicts one Pod if it does not tolerate its node's taints any more. It may be repeated at any time.
func (c *Controller) syncPod(ctx context.Context, key cache.ObjectName) error {
	p, err := c.pods.Pods(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		c.await(key, false)
		return nil
	}
	if err != nil {
		return err
	}
	if p.DeletionTimestamp != nil || p.Spec.NodeName == "" {
		c.await(key, false)
		return nil
	}
	n, err := c.nodes.Get(p.Spec.NodeName)
	if err != nil {
		// A node that is gone takes its Pods with it: package podgc.
		c.await(key, false)
		return nil
	}
	now := c.clock.Now()
	at, must := eviction(p, c.taintsOf(n), now)
	left := at.Sub(now)
	if waited := c.await(key, must && left > 0); !must && waited {
		c.recorder.Eventf(p, corev1.EventTypeNormal, "TaintManagerEviction", "Cancelling deletion of Pod %s", key)
	}
	switch {
	case !must:
		return nil
	case left > 0:
		c.podLoop.AddAfter(key, left)
		return nil
	}
	return c.evict(ctx, p)
}

// await notes whether a Pod is to be evicted later on, and says whether it was until now.
func (c *Controller) await(key cache.ObjectName, later bool) (was bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, was = c.awaited[key]
	if later {
		c.awaited[key] = struct{}{}
	} else {
		delete(c.awaited, key)
	}
	return was
}

func (c *Controller) evict(ctx context.Context, p *corev1.Pod) error {
	c.recorder.Eventf(p, corev1.EventTypeNormal, "TaintManagerEviction", "Marking for deletion Pod %s/%s", p.Namespace, p.Name)
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		fresh, err := c.client.CoreV1().Pods(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
		if err != nil || fresh.UID != p.UID {
			return err
		}
		changed := pods.SetCondition(&fresh.Status, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByTaintManager",
			Message: "Taint manager: deleting due to NoExecute taint", LastTransitionTime: metav1.NewTime(c.clock.Now()),
		})
		if !changed {
			return nil
		}
		_, err = c.client.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, fresh, metav1.UpdateOptions{})
		return err
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("mark pod %s/%s for eviction: %w", p.Namespace, p.Name, err)
	}
	err = c.client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("evict pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}
