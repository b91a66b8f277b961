package replicaset

import (
	"reflect"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"carob.dev/carob/internal/controller/pods"
)

func (c *Controller) setAdded(rs *appsv1.ReplicaSet) { c.loop.Add(keyOf(rs)) }

func (c *Controller) setUpdated(before, after *appsv1.ReplicaSet) {
	if before.UID != after.UID {
		c.setDeleted(before)
	}
	c.loop.Add(keyOf(after))
}

func (c *Controller) setDeleted(rs *appsv1.ReplicaSet) {
	c.expected.Forget(keyOf(rs).String())
	c.loop.Add(keyOf(rs))
}

func (c *Controller) podAdded(p *corev1.Pod) {
	if p.DeletionTimestamp != nil {
		// First seen while it goes, after a restart: not a creation that anybody waits for.
		c.podDeleted(p)
		return
	}
	if controllerOf(p) == nil {
		c.wakeMatching(p)
		return
	}
	if rs := c.ownerOf(p); rs != nil {
		c.expected.Created(keyOf(rs).String())
		c.loop.Add(keyOf(rs))
	}
}

func (c *Controller) podUpdated(before, after *corev1.Pod) {
	if before.ResourceVersion == after.ResourceVersion {
		return
	}
	labelsChanged := !reflect.DeepEqual(before.Labels, after.Labels)
	if after.DeletionTimestamp != nil {
		// A graceful deletion starts with the timestamp; its replacement is due now, not when the Pod is gone.
		c.podDeleted(after)
		if labelsChanged {
			c.podDeleted(before)
		}
		return
	}
	refBefore, refAfter := controllerOf(before), controllerOf(after)
	refChanged := !reflect.DeepEqual(refBefore, refAfter)
	if refChanged {
		if rs := c.resolve(before.Namespace, refBefore); rs != nil {
			c.loop.Add(keyOf(rs))
		}
	}
	switch {
	case refAfter != nil:
		rs := c.resolve(after.Namespace, refAfter)
		if rs == nil {
			return
		}
		c.loop.Add(keyOf(rs))
		if rs.Spec.MinReadySeconds > 0 && !pods.Ready(before) && pods.Ready(after) {
			if wait, ok := pods.UntilAvailable(after, rs.Spec.MinReadySeconds, c.clock.Now()); ok {
				c.loop.AddAfter(keyOf(rs), wait)
			}
		}
	case labelsChanged || refChanged:
		c.wakeMatching(after)
	}
}

func (c *Controller) podDeleted(p *corev1.Pod) {
	if rs := c.ownerOf(p); rs != nil {
		c.expected.Deleted(keyOf(rs).String(), p.UID)
		c.loop.Add(keyOf(rs))
	}
}

// wakeMatching wakes the ReplicaSets that may want to adopt an orphan.
func (c *Controller) wakeMatching(p *corev1.Pod) {
	if len(p.Labels) == 0 {
		return
	}
	objs, err := c.setIndex.ByIndex(cache.NamespaceIndex, p.Namespace)
	if err != nil {
		c.log.Warn("list owners", "kind", c.source.kind.Kind, "namespace", p.Namespace, "err", err)
		return
	}
	for _, obj := range objs {
		rs := c.source.view(obj)
		selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(p.Labels)) {
			c.loop.Add(keyOf(rs))
		}
	}
}

// resolve finds the ReplicaSet that a controller reference means, or nil: another kind, or another object of that name.
func (c *Controller) resolve(namespace string, ref *metav1.OwnerReference) *appsv1.ReplicaSet {
	if ref == nil || ref.Kind != c.source.kind.Kind {
		return nil
	}
	rs, err := c.get(cache.NewObjectName(namespace, ref.Name))
	if err != nil || rs == nil || rs.UID != ref.UID {
		return nil
	}
	return rs
}

func controllerOf(o metav1.Object) *metav1.OwnerReference { return metav1.GetControllerOfNoCopy(o) }
