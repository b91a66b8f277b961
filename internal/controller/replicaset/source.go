package replicaset

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"carob.dev/carob/internal/controller/loop"
)

// source is a kind of objects that Pods are kept for. ReplicationControllers are seen as ReplicaSets, which they are but for their names.
type source struct {
	name     string
	kind     schema.GroupVersionKind
	informer cache.SharedIndexInformer
	// view is an object of the informer as a ReplicaSet. It is not to be changed.
	view     func(obj any) *appsv1.ReplicaSet
	handlers func(c *Controller) cache.ResourceEventHandler
	// keeps is what of a status the kind has a place for.
	keeps       func(s appsv1.ReplicaSetStatus) appsv1.ReplicaSetStatus
	fresh       func(ctx context.Context, namespace, name string) (*appsv1.ReplicaSet, error)
	writeStatus func(ctx context.Context, rs *appsv1.ReplicaSet) error
}

func sets(cfg Config) source {
	return source{name: Name, kind: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), informer: cfg.Informers.Apps().V1().ReplicaSets().Informer(),
		view:     func(obj any) *appsv1.ReplicaSet { return obj.(*appsv1.ReplicaSet) },
		handlers: handlers(func(rs *appsv1.ReplicaSet) *appsv1.ReplicaSet { return rs }),
		keeps:    func(s appsv1.ReplicaSetStatus) appsv1.ReplicaSetStatus { return s },
		fresh: func(ctx context.Context, namespace, name string) (*appsv1.ReplicaSet, error) {
			return cfg.Client.AppsV1().ReplicaSets(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		writeStatus: func(ctx context.Context, rs *appsv1.ReplicaSet) error {
			_, err := cfg.Client.AppsV1().ReplicaSets(rs.Namespace).UpdateStatus(ctx, rs, metav1.UpdateOptions{})
			return err
		}}
}

func replicationControllers(cfg Config) source {
	return source{name: ReplicationName, kind: corev1.SchemeGroupVersion.WithKind("ReplicationController"),
		informer: cfg.Informers.Core().V1().ReplicationControllers().Informer(),
		view:     func(obj any) *appsv1.ReplicaSet { return asSet(obj.(*corev1.ReplicationController)) },
		handlers: handlers(asSet),
		keeps: func(s appsv1.ReplicaSetStatus) appsv1.ReplicaSetStatus {
			s.TerminatingReplicas = nil
			return s
		},
		fresh: func(ctx context.Context, namespace, name string) (*appsv1.ReplicaSet, error) {
			rc, err := cfg.Client.CoreV1().ReplicationControllers(namespace).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return nil, err
			}
			return asSet(rc), nil
		},
		writeStatus: func(ctx context.Context, rs *appsv1.ReplicaSet) error {
			_, err := cfg.Client.CoreV1().ReplicationControllers(rs.Namespace).UpdateStatus(ctx, withStatus(rs), metav1.UpdateOptions{})
			return err
		}}
}

func handlers[T any](view func(T) *appsv1.ReplicaSet) func(c *Controller) cache.ResourceEventHandler {
	return func(c *Controller) cache.ResourceEventHandler {
		return loop.Handlers(func(t T) { c.setAdded(view(t)) }, func(before, after T) { c.setUpdated(view(before), view(after)) },
			func(t T) { c.setDeleted(view(t)) })
	}
}

// asSet keeps the object's own kind, so that events are about the ReplicationController.
func asSet(rc *corev1.ReplicationController) *appsv1.ReplicaSet {
	rs := &appsv1.ReplicaSet{ObjectMeta: rc.ObjectMeta, Spec: appsv1.ReplicaSetSpec{Replicas: rc.Spec.Replicas, MinReadySeconds: rc.Spec.MinReadySeconds,
		Selector: &metav1.LabelSelector{MatchLabels: rc.Spec.Selector}},
		Status: appsv1.ReplicaSetStatus{Replicas: rc.Status.Replicas, FullyLabeledReplicas: rc.Status.FullyLabeledReplicas,
			ReadyReplicas: rc.Status.ReadyReplicas, AvailableReplicas: rc.Status.AvailableReplicas, ObservedGeneration: rc.Status.ObservedGeneration}}
	rs.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ReplicationController"))
	if rc.Spec.Template != nil {
		rs.Spec.Template = *rc.Spec.Template
	}
	for _, c := range rc.Status.Conditions {
		rs.Status.Conditions = append(rs.Status.Conditions, appsv1.ReplicaSetCondition{Type: appsv1.ReplicaSetConditionType(c.Type), Status: c.Status,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message})
	}
	return rs
}

// withStatus is the ReplicationController that asSet made rs of, as far as a write of its status needs it.
func withStatus(rs *appsv1.ReplicaSet) *corev1.ReplicationController {
	s := &rs.Status
	rc := &corev1.ReplicationController{ObjectMeta: rs.ObjectMeta, Spec: corev1.ReplicationControllerSpec{Replicas: rs.Spec.Replicas,
		MinReadySeconds: rs.Spec.MinReadySeconds, Selector: rs.Spec.Selector.MatchLabels, Template: &rs.Spec.Template},
		Status: corev1.ReplicationControllerStatus{Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas, ReadyReplicas: s.ReadyReplicas,
			AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration}}
	for _, c := range s.Conditions {
		rc.Status.Conditions = append(rc.Status.Conditions, corev1.ReplicationControllerCondition{Type: corev1.ReplicationControllerConditionType(c.Type),
			Status: c.Status, LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message})
	}
	return rc
}
