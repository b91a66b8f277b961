// Package ephemeralvolume makes the claims that Pods describe themselves (volumes of kind ephemeral). Each belongs to its Pod, and goes with it.
//
// It imports client-go, component-helpers and internal/controller/loop. Invariant: a claim that was not made for the Pod is never taken for
// its own, whatever its name.
package ephemeralvolume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-helpers/storage/ephemeral"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/controller/loop"
)

// Name is the controller's name: of its service account and in the log. Recorder is the component of its events.
const (
	Name     = "ephemeral-volume-controller"
	Recorder = "ephemeral_volume"
)

// Config is what the controller needs. All fields but Clock are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Recorder  record.EventRecorder
	Log       *slog.Logger
	Clock     clock.WithTicker
}

// Controller makes claims. Make one with New, before the informers are started.
type Controller struct {
	client kubernetes.Interface
	events record.EventRecorder
	loop   *loop.Loop[types.NamespacedName]
	pods   corelisters.PodLister
	claims corelisters.PersistentVolumeClaimLister
	synced []cache.DoneChecker
}

// New returns a Controller that listens to the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Recorder == nil || cfg.Log == nil {
		return nil, errors.New("ephemeral volumes: client, informers, recorder and log are required")
	}
	core := cfg.Informers.Core().V1()
	c := &Controller{client: cfg.Client, events: cfg.Recorder, pods: core.Pods().Lister(), claims: core.PersistentVolumeClaims().Lister()}
	c.loop = loop.New(Name, cfg.Clock, cfg.Log, c.sync)
	onPods, err := core.Pods().Informer().AddEventHandler(loop.Handlers(c.podSeen, func(_, now *corev1.Pod) { c.podSeen(now) }, nil))
	if err != nil {
		return nil, fmt.Errorf("ephemeral volumes: watch pods: %w", err)
	}
	onClaims, err := core.PersistentVolumeClaims().Informer().AddEventHandler(loop.Handlers(nil, nil, func(claim *corev1.PersistentVolumeClaim) {
		if owner := metav1.GetControllerOf(claim); owner != nil && owner.Kind == "Pod" {
			c.loop.Add(types.NamespacedName{Namespace: claim.Namespace, Name: owner.Name})
		}
	}))
	if err != nil {
		return nil, fmt.Errorf("ephemeral volumes: watch claims: %w", err)
	}
	c.synced = []cache.DoneChecker{onPods.HasSyncedChecker(), onClaims.HasSyncedChecker()}
	return c, nil
}

// Name returns the controller's name.
func (c *Controller) Name() string { return Name }

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx, 1, c.synced...) }

func (c *Controller) podSeen(p *corev1.Pod) {
	if p.DeletionTimestamp != nil {
		return
	}
	for i := range p.Spec.Volumes {
		if p.Spec.Volumes[i].Ephemeral != nil {
			c.loop.Add(types.NamespacedName{Namespace: p.Namespace, Name: p.Name})
			return
		}
	}
}

func (c *Controller) sync(ctx context.Context, key types.NamespacedName) error {
	p, err := c.pods.Pods(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) || err == nil && p.DeletionTimestamp != nil {
		return nil
	}
	if err != nil {
		return err
	}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.Ephemeral == nil || v.Ephemeral.VolumeClaimTemplate == nil {
			continue
		}
		err := c.ensure(ctx, p, v)
		if err != nil && !errors.Is(err, loop.ErrStale) {
			c.events.Eventf(p, corev1.EventTypeWarning, "FailedBinding", "ephemeral volume %s: %v", v.Name, err)
		}
		if err != nil {
			return fmt.Errorf("pod %s, ephemeral volume %s: %w", key, v.Name, err)
		}
	}
	return nil
}

func (c *Controller) ensure(ctx context.Context, p *corev1.Pod, v *corev1.Volume) error {
	have, err := c.claims.PersistentVolumeClaims(p.Namespace).Get(ephemeral.VolumeClaimName(p, v))
	if err == nil {
		return ephemeral.VolumeIsForPod(p, have)
	}
	if !apierrors.IsNotFound(err) {
		return err
	}
	claim := claimFor(p, v)
	_, err = c.client.CoreV1().PersistentVolumeClaims(p.Namespace).Create(ctx, claim, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("PVC %s: %w", claim.Name, loop.ErrStale) // whose it is will be seen
	}
	if err != nil {
		return fmt.Errorf("create PVC %s: %w", claim.Name, err)
	}
	return nil
}

// claimFor is the claim that a Pod's ephemeral volume describes.
func claimFor(p *corev1.Pod, v *corev1.Volume) *corev1.PersistentVolumeClaim {
	t := v.Ephemeral.VolumeClaimTemplate.DeepCopy()
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Name: ephemeral.VolumeClaimName(p, v), Namespace: p.Namespace, Labels: t.Labels, Annotations: t.Annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(p, corev1.SchemeGroupVersion.WithKind("Pod"))},
		},
		Spec: t.Spec,
	}
}
