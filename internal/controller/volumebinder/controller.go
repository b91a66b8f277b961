// Package volumebinder binds claims to volumes, one to one, keeps the phases of both, asks provisioners for volumes that are not there, and
// lets go of volumes whose claim is gone.
//
// It imports client-go, component-helpers, api/volume and internal/controller/loop. decideClaim and decideVolume are pure: from what is
// there they tell the one next write, if any. Invariants: the volume is written before the claim, so that no two claims ever think that a
// volume is theirs; a claim counts as gone only if the server says so; each write is the last one of its step, and its event brings the next.
package volumebinder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/api/volume"
	"carob.dev/carob/internal/controller/loop"
)

// Name is the controller's name: of its service account and in the log. Recorder is the component of its events.
const (
	Name     = "persistent-volume-binder"
	Recorder = "persistentvolume-controller"
)

// Config is what the controller needs. All fields but Clock are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Recorder  record.EventRecorder
	Log       *slog.Logger
	Clock     clock.WithTicker
}

// Controller binds. Make one with New, before the informers are started.
type Controller struct {
	client  kubernetes.Interface
	events  record.EventRecorder
	log     *slog.Logger
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
	pods    corelisters.PodLister
	synced  []cache.DoneChecker

	claimLoop  *loop.Loop[types.NamespacedName]
	volumeLoop *loop.Loop[string]

	mu   sync.Mutex           // guards told
	told map[types.UID]string // what each object's last event said, so that it is not said again at every look
}

// New returns a Controller that listens to the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Recorder == nil || cfg.Log == nil {
		return nil, errors.New("volume binder: client, informers, recorder and log are required")
	}
	core, storage := cfg.Informers.Core().V1(), cfg.Informers.Storage().V1()
	c := &Controller{
		client: cfg.Client, events: cfg.Recorder, log: cfg.Log, told: map[types.UID]string{},
		claims: core.PersistentVolumeClaims().Lister(), volumes: core.PersistentVolumes().Lister(), classes: storage.StorageClasses().Lister(),
		pods: core.Pods().Lister(),
	}
	c.claimLoop = loop.New(Name, cfg.Clock, cfg.Log, c.syncClaim)
	c.volumeLoop = loop.New(Name, cfg.Clock, cfg.Log, c.syncVolume)
	for _, w := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{core.PersistentVolumeClaims().Informer(), loop.Handlers(c.claimSeen, func(_, now *corev1.PersistentVolumeClaim) { c.claimSeen(now) }, c.claimGone)},
		{core.PersistentVolumes().Informer(), loop.Handlers(c.volumeSeen, func(_, now *corev1.PersistentVolume) { c.volumeSeen(now) }, c.volumeGone)},
		{storage.StorageClasses().Informer(), loop.Handlers(func(*storagev1.StorageClass) { c.wake() },
			func(_, _ *storagev1.StorageClass) { c.wake() }, nil)},
		{core.Pods().Informer(), cache.ResourceEventHandlerFuncs{}},
	} {
		reg, err := w.informer.AddEventHandler(w.handler)
		if err != nil {
			return nil, fmt.Errorf("volume binder: %w", err)
		}
		c.synced = append(c.synced, reg.HasSyncedChecker())
	}
	return c, nil
}

// Name returns the controller's name.
func (c *Controller) Name() string { return Name }

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	var errs [2]error
	wg.Go(func() { errs[0] = c.claimLoop.Run(ctx, 1, c.synced...) })
	wg.Go(func() { errs[1] = c.volumeLoop.Run(ctx, 1, c.synced...) })
	wg.Wait()
	return errors.Join(errs[:]...)
}

func keyOf(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

func (c *Controller) claimSeen(claim *corev1.PersistentVolumeClaim) {
	c.claimLoop.Add(keyOf(claim))
	if claim.Spec.VolumeName != "" {
		c.volumeLoop.Add(claim.Spec.VolumeName)
	}
}

// claimGone looks at the volumes that were kept for a claim, whether it knew them or not.
func (c *Controller) claimGone(claim *corev1.PersistentVolumeClaim) {
	c.forget(claim.UID)
	volumes, _ := c.volumes.List(labels.Everything())
	for _, v := range volumes {
		if r := v.Spec.ClaimRef; v.Name == claim.Spec.VolumeName || r != nil && r.Namespace == claim.Namespace && r.Name == claim.Name {
			c.volumeLoop.Add(v.Name)
		}
	}
}

func (c *Controller) volumeSeen(v *corev1.PersistentVolume) {
	c.volumeLoop.Add(v.Name)
	if r := v.Spec.ClaimRef; r != nil {
		c.claimLoop.Add(types.NamespacedName{Namespace: r.Namespace, Name: r.Name})
		return
	}
	if v.Status.Phase == corev1.VolumeAvailable {
		c.wake()
	}
}

func (c *Controller) volumeGone(v *corev1.PersistentVolume) {
	c.forget(v.UID)
	if r := v.Spec.ClaimRef; r != nil {
		c.claimLoop.Add(types.NamespacedName{Namespace: r.Namespace, Name: r.Name})
	}
}

// wake looks again at the claims that wait for a volume.
func (c *Controller) wake() {
	claims, _ := c.claims.List(labels.Everything())
	for _, claim := range claims {
		if claim.Status.Phase == corev1.ClaimPending {
			c.claimLoop.Add(keyOf(claim))
		}
	}
}

func (c *Controller) forget(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.told, uid)
}

// tell makes an event, unless it is what was told of the object last.
func (c *Controller) tell(obj interface {
	metav1.Object
	runtime.Object
}, e *event) {
	if e == nil {
		return
	}
	c.mu.Lock()
	again := c.told[obj.GetUID()] == e.reason+e.message
	c.told[obj.GetUID()] = e.reason + e.message
	c.mu.Unlock()
	if !again {
		c.events.Event(obj, e.kind, e.reason, e.message)
	}
}

func (c *Controller) syncClaim(ctx context.Context, key types.NamespacedName) error {
	claim, err := c.claims.PersistentVolumeClaims(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	w, err := c.world(claim)
	if err != nil {
		return err
	}
	p := decideClaim(claim, w)
	if p.status != nil && p.status.Status.Phase == corev1.ClaimLost && claim.Spec.VolumeName != "" {
		// Losing one's data is not said by a cache that may be behind.
		v, err := c.client.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		if err == nil && (v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID == claim.UID) {
			return fmt.Errorf("volume %s of claim %s: %w", v.Name, key, loop.ErrStale)
		}
	}
	if err := c.write(ctx, p); err != nil {
		return fmt.Errorf("claim %s: %w", key, err)
	}
	c.tell(claim, p.event)
	return nil
}

// world gathers what decideClaim looks at.
func (c *Controller) world(claim *corev1.PersistentVolumeClaim) (world, error) {
	volumes, err := c.volumes.List(labels.Everything())
	if err != nil {
		return world{}, err
	}
	classes, err := c.classes.List(labels.Everything())
	if err != nil {
		return world{}, err
	}
	w := world{volumes: volumes, usual: volume.DefaultClass(classes)}
	name, _ := volume.ClassOf(claim)
	for _, class := range classes {
		if class.Name == name {
			w.class = class
		}
	}
	if claim.Spec.VolumeName != "" {
		return w, nil
	}
	pods, err := c.pods.Pods(claim.Namespace).List(labels.Everything())
	for _, p := range pods {
		if p.Spec.NodeName == "" && uses(p, claim) {
			w.waiting = append(w.waiting, p.Name)
		}
	}
	return w, err
}

func (c *Controller) syncVolume(ctx context.Context, name string) error {
	v, err := c.volumes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	claim, err := c.claimOf(ctx, v)
	if err != nil {
		return err
	}
	p := decideVolume(v, claim)
	if err := c.write(ctx, p); err != nil {
		return fmt.Errorf("volume %s: %w", name, err)
	}
	c.tell(v, p.event)
	if claim != nil && claim.Spec.VolumeName == "" {
		c.claimLoop.Add(keyOf(claim))
	}
	return nil
}

// claimOf finds the claim that a volume is bound to; nil if it is gone, of which the server is asked unless that was settled before.
func (c *Controller) claimOf(ctx context.Context, v *corev1.PersistentVolume) (*corev1.PersistentVolumeClaim, error) {
	r := v.Spec.ClaimRef
	if r == nil || r.UID == "" {
		return nil, nil
	}
	claim, err := c.claims.PersistentVolumeClaims(r.Namespace).Get(r.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	if err == nil && claim.UID == r.UID {
		return claim, nil
	}
	if v.Status.Phase == corev1.VolumeReleased || v.Status.Phase == corev1.VolumeFailed {
		return nil, nil
	}
	claim, err = c.client.CoreV1().PersistentVolumeClaims(r.Namespace).Get(ctx, r.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && claim.UID != r.UID {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return claim, nil
}

// write makes the one write of a plan.
func (c *Controller) write(ctx context.Context, p plan) (err error) {
	volumes := c.client.CoreV1().PersistentVolumes()
	switch {
	case p.volume != nil:
		_, err = volumes.Update(ctx, p.volume, metav1.UpdateOptions{})
	case p.volumeStatus != nil:
		_, err = volumes.UpdateStatus(ctx, p.volumeStatus, metav1.UpdateOptions{})
	case p.claim != nil:
		_, err = c.client.CoreV1().PersistentVolumeClaims(p.claim.Namespace).Update(ctx, p.claim, metav1.UpdateOptions{})
	case p.status != nil:
		_, err = c.client.CoreV1().PersistentVolumeClaims(p.status.Namespace).UpdateStatus(ctx, p.status, metav1.UpdateOptions{})
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
