package node

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	leaseDuration = 40 * time.Second
	renewEvery    = leaseDuration / 4
)

// renew keeps the node's lease until ctx ends: one write every ten seconds, and no read while nobody else writes it.
func (n *Node) renew(ctx context.Context) {
	var lease *coordinationv1.Lease
	wait := 200 * time.Millisecond
	for {
		fresh, err := n.writeLease(ctx, lease)
		switch {
		case err == nil:
			lease, wait = fresh, 200*time.Millisecond
			if !n.sleep(ctx, renewEvery) {
				return
			}
			continue
		case ctx.Err() != nil:
			return
		case apierrors.IsConflict(err) || apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err):
			lease = nil
		default:
			n.cfg.Log.Warn("renew the node's lease", "error", err)
		}
		if !n.sleep(ctx, wait) {
			return
		}
		wait = min(2*wait, 7*time.Second)
	}
}

func (n *Node) writeLease(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	api := n.cfg.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	now := metav1.NewMicroTime(n.cfg.Clock.Now())
	if lease == nil {
		seconds := int32(leaseDuration / time.Second)
		made, err := api.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: n.cfg.Name, Namespace: corev1.NamespaceNodeLease, OwnerReferences: n.owner(ctx)},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &n.cfg.Name, LeaseDurationSeconds: &seconds, RenewTime: &now}}, metav1.CreateOptions{})
		if !apierrors.IsAlreadyExists(err) {
			return made, err
		}
		if lease, err = api.Get(ctx, n.cfg.Name, metav1.GetOptions{}); err != nil {
			return nil, err
		}
	}
	fresh := lease.DeepCopy()
	if len(fresh.OwnerReferences) == 0 {
		fresh.OwnerReferences = n.owner(ctx)
	}
	fresh.Spec.RenewTime, fresh.Spec.HolderIdentity = &now, &n.cfg.Name
	return api.Update(ctx, fresh, metav1.UpdateOptions{})
}

// owner is the Node, with which the lease is to go. Before there is one, the lease has no owner: the next renewal tries again.
func (n *Node) owner(ctx context.Context) []metav1.OwnerReference {
	node, err := n.cfg.Client.CoreV1().Nodes().Get(ctx, n.cfg.Name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}
}
