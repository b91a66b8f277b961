package scheduler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	storagehelpers "k8s.io/component-helpers/storage/volume"
)

// bindVolumesWithin is how long a Pod waits for its volumes before it is tried anew, as in Kubernetes.
const bindVolumesWithin = 10 * time.Minute

// volumes reads and writes what Storage is made of.
type volumes struct {
	claims     corelisters.PersistentVolumeClaimLister
	volumes    corelisters.PersistentVolumeLister
	classes    storagelisters.StorageClassLister
	nodes      storagelisters.CSINodeLister
	drivers    storagelisters.CSIDriverLister
	capacities storagelisters.CSIStorageCapacityLister
	attached   storagelisters.VolumeAttachmentLister

	mu       sync.Mutex // guards what follows
	taken    map[string]types.UID
	selected map[types.UID]string
	changed  chan struct{} // closed, and made anew, when a claim or a volume has changed
}

// newVolumes also returns the informers to listen to, with what is to happen.
func newVolumes(f informers.SharedInformerFactory, wake func()) (*volumes, map[cache.SharedIndexInformer]cache.ResourceEventHandler) {
	core, storage := f.Core().V1(), f.Storage().V1()
	v := &volumes{
		claims: core.PersistentVolumeClaims().Lister(), volumes: core.PersistentVolumes().Lister(), classes: storage.StorageClasses().Lister(),
		nodes: storage.CSINodes().Lister(), drivers: storage.CSIDrivers().Lister(), capacities: storage.CSIStorageCapacities().Lister(),
		attached: storage.VolumeAttachments().Lister(),
		taken:    map[string]types.UID{}, selected: map[types.UID]string{}, changed: make(chan struct{}),
	}
	bound := cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { v.signal(); wake() }, UpdateFunc: func(_, _ any) { v.signal(); wake() }, DeleteFunc: func(any) { v.signal() },
	}
	room := cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { wake() },
		UpdateFunc: func(old, obj any) {
			o, ok1 := old.(*storagev1.CSINode)
			n, ok2 := obj.(*storagev1.CSINode)
			if !ok1 || !ok2 || !apiequality.Semantic.DeepEqual(o.Spec, n.Spec) {
				wake()
			}
		},
	}
	return v, map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		core.PersistentVolumeClaims().Informer(): bound, core.PersistentVolumes().Informer(): bound, storage.StorageClasses().Informer(): room,
		storage.CSINodes().Informer(): room, storage.CSIDrivers().Informer(): room, storage.CSIStorageCapacities().Informer(): room,
		storage.VolumeAttachments().Informer(): cache.ResourceEventHandlerFuncs{DeleteFunc: func(any) { wake() }},
	}
}

func (v *volumes) signal() {
	v.mu.Lock()
	defer v.mu.Unlock()
	close(v.changed)
	v.changed = make(chan struct{})
}

func (v *volumes) next() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

// storage is what there is at this moment.
func (v *volumes) storage() (*Storage, error) {
	everything := labels.Everything()
	claims, err1 := v.claims.List(everything)
	list, err2 := v.volumes.List(everything)
	classes, err3 := v.classes.List(everything)
	nodes, err4 := v.nodes.List(everything)
	drivers, err5 := v.drivers.List(everything)
	capacities, err6 := v.capacities.List(everything)
	attached, err7 := v.attached.List(everything)
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7); err != nil {
		return nil, err
	}
	s := &Storage{
		Claims:  make(map[types.NamespacedName]*corev1.PersistentVolumeClaim, len(claims)),
		Volumes: byName(list), Classes: byName(classes), Nodes: byName(nodes), Drivers: byName(drivers), Capacities: capacities, Attached: attached,
		Taken: map[string]types.UID{}, Selected: map[types.UID]string{},
	}
	for _, c := range claims {
		s.Claims[types.NamespacedName{Namespace: c.Namespace, Name: c.Name}] = c
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for name, uid := range v.taken {
		s.Taken[name] = uid
	}
	for uid, node := range v.selected {
		s.Selected[uid] = node
	}
	return s, nil
}

func byName[T metav1.Object](list []T) map[string]T {
	out := make(map[string]T, len(list))
	for _, o := range list {
		out[o.GetName()] = o
	}
	return out
}

// assume takes volumes and claims for a node until release.
func (v *volumes) assume(b bindings, node string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range b.static {
		v.taken[s.volume.Name] = s.claim.UID
	}
	for _, c := range b.dynamic {
		v.selected[c.UID] = node
	}
}

func (v *volumes) release(b bindings) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range b.static {
		delete(v.taken, s.volume.Name)
	}
	for _, c := range b.dynamic {
		delete(v.selected, c.UID)
	}
}

// bindVolumes gives the volumes to their claims, asks for those that are to be made, and waits until all claims are bound. stop says why it
// is not worth waiting any longer.
func (s *Scheduler) bindVolumes(ctx context.Context, b bindings, node string, stop func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := s.cfg.Clock.NewTimer(bindVolumesWithin)
	defer late.Stop()
	core := s.cfg.Client.CoreV1()
	for _, one := range b.static {
		v, changed, err := storagehelpers.GetBindVolumeToClaim(one.volume, one.claim)
		if err == nil && changed {
			_, err = core.PersistentVolumes().Update(ctx, v, metav1.UpdateOptions{})
		}
		if err != nil {
			return fmt.Errorf("give volume %s to claim %s: %w", one.volume.Name, one.claim.Name, err)
		}
	}
	written := map[types.UID]string{}
	for _, claim := range b.dynamic {
		if claim.Annotations[storagehelpers.AnnSelectedNode] == node {
			continue
		}
		claim = claim.DeepCopy()
		metav1.SetMetaDataAnnotation(&claim.ObjectMeta, storagehelpers.AnnSelectedNode, node)
		now, err := core.PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("choose the node of claim %s: %w", claim.Name, err)
		}
		written[now.UID] = now.ResourceVersion
	}
	for {
		changed := s.volumes.next()
		done, err := s.volumes.settled(b, node, written)
		if err == nil && !done {
			err = stop()
		}
		if done || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-late.C():
			return errors.New("timed out waiting for the condition")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// settled says whether all claims are bound. written are claims as they were written last, which the cache may not show yet.
func (v *volumes) settled(b bindings, node string, written map[types.UID]string) (bool, error) {
	all := true
	look := func(claim *corev1.PersistentVolumeClaim) (*corev1.PersistentVolumeClaim, error) {
		now, err := v.claims.PersistentVolumeClaims(claim.Namespace).Get(claim.Name)
		if err == nil && now.UID != claim.UID {
			err = fmt.Errorf("claim %s was made anew", claim.Name)
		}
		if err != nil {
			return nil, err
		}
		all = all && now.Spec.VolumeName != "" && now.Status.Phase == corev1.ClaimBound &&
			metav1.HasAnnotation(now.ObjectMeta, storagehelpers.AnnBindCompleted)
		return now, nil
	}
	for _, one := range b.static {
		now, err := look(one.claim)
		if err != nil {
			return false, err
		}
		if pv, err := v.volumes.Get(one.volume.Name); err == nil && now.Spec.VolumeName == "" && pv.ResourceVersion != one.volume.ResourceVersion && pv.Spec.ClaimRef == nil {
			return false, fmt.Errorf("ClaimRef got reset for pv %q", pv.Name)
		}
	}
	for _, claim := range b.dynamic {
		now, err := look(claim)
		if err != nil {
			return false, err
		}
		if now.ResourceVersion == claim.ResourceVersion && written[claim.UID] != "" {
			continue // not seen yet
		}
		if now.Annotations[storagehelpers.AnnSelectedNode] != node {
			return false, fmt.Errorf("provisioning failed for PVC %q", now.Name)
		}
	}
	return all, nil
}
