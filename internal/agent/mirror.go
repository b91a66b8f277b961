package agent

import (
	"context"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"carob.dev/carob/internal/agent/static"
)

// mirror is what a worker of a static Pod knows of the object that shows the Pod in the API.
type mirror struct {
	pod  *corev1.Pod // nil while there is none
	busy bool
	// retryAt is when a mirror is tried again that could not be made or removed.
	retryAt time.Time
}

// object is the object in the API that the Pod's status goes to; nil if there is none.
func (w *worker) object() *corev1.Pod {
	if !w.static {
		return w.pod
	}
	if m := w.mirror.pod; m != nil && m.DeletionTimestamp == nil && m.Annotations[static.AnnotationMirror] == w.pod.Annotations[static.AnnotationHash] {
		return m
	}
	return nil
}

// uidOf is the UID of an object; empty for none.
func uidOf(pod *corev1.Pod) types.UID {
	if pod == nil {
		return ""
	}
	return pod.UID
}

// mirrored takes over what the API has of the mirror.
func (w *worker) mirrored(m *corev1.Pod) {
	same := uidOf(m) == uidOf(w.mirror.pod)
	w.mirror.pod = m
	switch {
	case m == nil:
	case same:
		w.status.seen(m)
	default:
		w.status.start(m)
	}
}

// syncMirror has the API show the static Pod: it makes the mirror if there is none, and removes one that is another Pod's or is being deleted. It
// returns when to look again; zero for never.
func (w *worker) syncMirror(ctx context.Context) time.Time {
	a, m := w.a, w.mirror.pod
	if !w.static || a.cfg.Standalone || w.mirror.busy || w.pod.DeletionTimestamp != nil || w.facts.Gone || w.object() != nil {
		return time.Time{}
	}
	if a.cfg.Clock.Now().Before(w.mirror.retryAt) {
		return w.mirror.retryAt
	}
	node, err := a.nodes.Get(a.cfg.NodeName)
	if err != nil || !a.pods.HasSynced() { // the node is not registered yet
		w.mirror.retryAt = a.cfg.Clock.Now().Add(time.Second)
		return w.mirror.retryAt
	}
	w.mirror.busy = true
	fresh := mirrorOf(w.pod, node)
	w.wg.Go(func() {
		var made *corev1.Pod
		var err error
		if m != nil {
			err = a.removeMirror(ctx, m)
		} else {
			made, err = a.cfg.Client.CoreV1().Pods(fresh.Namespace).Create(ctx, fresh, metav1.CreateOptions{})
		}
		w.post(func() {
			w.mirror.busy = false
			switch {
			case err != nil && ctx.Err() == nil:
				w.mirror.retryAt = w.retry("mirror")
				w.log.Info("show a static Pod in the API", "error", err)
			case made != nil && w.mirror.pod == nil:
				delete(w.tries, "mirror")
				w.mirrored(made)
			case m != nil && uidOf(w.mirror.pod) == m.UID:
				w.mirrored(nil)
			}
		})
	})
	return time.Time{}
}

// removeMirror deletes a mirror at once; one that is not there any more is no error.
func (a *Agent) removeMirror(ctx context.Context, m *corev1.Pod) error {
	none := int64(0)
	err := a.cfg.Client.CoreV1().Pods(m.Namespace).Delete(ctx, m.Name, metav1.DeleteOptions{GracePeriodSeconds: &none, Preconditions: &metav1.Preconditions{UID: &m.UID}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// mirrorOf is what the API is to show of a static Pod.
func mirrorOf(pod *corev1.Pod, node *corev1.Node) *corev1.Pod {
	m := pod.DeepCopy()
	m.UID, m.Status = "", corev1.PodStatus{}
	m.Annotations = maps.Clone(m.Annotations)
	m.Annotations[static.AnnotationMirror] = m.Annotations[static.AnnotationHash]
	controller := true
	m.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID, Controller: &controller}}
	return m
}
