// Package volumeprotection keeps claims, volumes and classes of volume attributes while they are in use: it takes the finalizer that
// admission gave them away once nothing uses them. It also notes on each bound claim whether any Pod names it.
//
// It imports client-go, component-helpers and internal/controller/loop. What counts as use is decided by pure functions. Invariant: before a
// claim's finalizer goes, the server itself has been asked for the Pods.
package volumeprotection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/component-helpers/storage/ephemeral"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/controller/loop"
)

// Name is the controller's name: of its service account and in the log.
const Name = "pvc-protection-controller"

// The finalizers, each of one kind.
const (
	claimFinalizer  = "kubernetes.io/pvc-protection"
	volumeFinalizer = "kubernetes.io/pv-protection"
	classFinalizer  = "kubernetes.io/vac-protection"
)

// Config is what the controller needs. All fields but Clock are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Log       *slog.Logger
	Clock     clock.WithTicker
}

type kind int

const (
	ofClaim kind = iota
	ofVolume
	ofClass
)

type key struct {
	kind kind
	types.NamespacedName
}

// Controller takes finalizers away. Make one with New, before the informers are started.
type Controller struct {
	client  kubernetes.Interface
	clock   clock.WithTicker
	loop    *loop.Loop[key]
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.VolumeAttributesClassLister
	pods    corelisters.PodLister
	synced  []cache.DoneChecker
}

// New returns a Controller that listens to the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Log == nil {
		return nil, errors.New("volume protection: client, informers and log are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	core, storage := cfg.Informers.Core().V1(), cfg.Informers.Storage().V1()
	c := &Controller{
		client: cfg.Client, clock: cfg.Clock, claims: core.PersistentVolumeClaims().Lister(), volumes: core.PersistentVolumes().Lister(),
		classes: storage.VolumeAttributesClasses().Lister(), pods: core.Pods().Lister(),
	}
	c.loop = loop.New(Name, cfg.Clock, cfg.Log, c.sync)
	seen := func(k kind) func(o metav1.Object) {
		return func(o metav1.Object) {
			c.loop.Add(key{k, types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}})
		}
	}
	claim, vol, class := seen(ofClaim), seen(ofVolume), seen(ofClass)
	freed := func(name *string) {
		if name != nil && *name != "" {
			c.loop.Add(key{ofClass, types.NamespacedName{Name: *name}})
		}
	}
	for _, w := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{core.PersistentVolumeClaims().Informer(), loop.Handlers(func(o *corev1.PersistentVolumeClaim) { claim(o) },
			func(was, now *corev1.PersistentVolumeClaim) { claim(now); freed(was.Spec.VolumeAttributesClassName) },
			func(o *corev1.PersistentVolumeClaim) { freed(o.Spec.VolumeAttributesClassName) })},
		{core.PersistentVolumes().Informer(), loop.Handlers(func(o *corev1.PersistentVolume) { vol(o) },
			func(was, now *corev1.PersistentVolume) { vol(now); freed(was.Spec.VolumeAttributesClassName) },
			func(o *corev1.PersistentVolume) { freed(o.Spec.VolumeAttributesClassName) })},
		{storage.VolumeAttributesClasses().Informer(), loop.Handlers(func(o *storagev1.VolumeAttributesClass) { class(o) },
			func(_, now *storagev1.VolumeAttributesClass) { class(now) }, nil)},
		{core.Pods().Informer(), loop.Handlers(c.podSeen, func(was, now *corev1.Pod) {
			if was.UID != now.UID || was.Spec.NodeName != now.Spec.NodeName || ended(was) != ended(now) || shutDown(was) != shutDown(now) {
				c.podSeen(was)
				c.podSeen(now)
			}
		}, c.podSeen)},
	} {
		reg, err := w.informer.AddEventHandler(w.handler)
		if err != nil {
			return nil, fmt.Errorf("volume protection: %w", err)
		}
		c.synced = append(c.synced, reg.HasSyncedChecker())
	}
	return c, nil
}

// Name returns the controller's name.
func (c *Controller) Name() string { return Name }

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx, 1, c.synced...) }

// podSeen looks at the claims that a Pod names.
func (c *Controller) podSeen(p *corev1.Pod) {
	for i := range p.Spec.Volumes {
		switch v := &p.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			c.loop.Add(key{ofClaim, types.NamespacedName{Namespace: p.Namespace, Name: v.PersistentVolumeClaim.ClaimName}})
		case v.Ephemeral != nil:
			c.loop.Add(key{ofClaim, types.NamespacedName{Namespace: p.Namespace, Name: ephemeral.VolumeClaimName(p, v)}})
		}
	}
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// shutDown says that a Pod's node is done with it, or that it was deleted by force.
func shutDown(p *corev1.Pod) bool {
	return p.DeletionTimestamp != nil && p.DeletionGracePeriodSeconds != nil && *p.DeletionGracePeriodSeconds == 0
}

// holds says whether a Pod keeps a claim from going. A Pod that has no node yet does not: it will not be started with a claim that goes.
// A Pod that only waits to be collected does not hold the claim that goes with it.
func holds(p *corev1.Pod, claim *corev1.PersistentVolumeClaim) bool {
	return p.Spec.NodeName != "" && names(p, claim, !shutDown(p))
}

// names says whether a Pod names a claim; own says that claims made for the Pod count too.
func names(p *corev1.Pod, claim *corev1.PersistentVolumeClaim, own bool) bool {
	return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim.Name ||
			own && v.Ephemeral != nil && ephemeral.VolumeClaimName(p, &v) == claim.Name && ephemeral.VolumeIsForPod(p, claim) == nil
	})
}

func (c *Controller) sync(ctx context.Context, k key) (err error) {
	switch k.kind {
	case ofClaim:
		err = c.syncClaim(ctx, k.Namespace, k.Name)
	case ofVolume:
		err = c.syncVolume(ctx, k.Name)
	case ofClass:
		err = c.syncClass(ctx, k.Name)
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (c *Controller) syncClaim(ctx context.Context, namespace, name string) error {
	claim, err := c.claims.PersistentVolumeClaims(namespace).Get(name)
	if err != nil {
		return err
	}
	pods, err := c.pods.Pods(namespace).List(labels.Everything())
	if err != nil {
		return err
	}
	if claim.DeletionTimestamp == nil {
		used := slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return !ended(p) && names(p, claim, true) })
		return c.note(ctx, claim, used)
	}
	if !slices.Contains(claim.Finalizers, claimFinalizer) || slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return holds(p, claim) }) {
		return nil
	}
	fresh, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list pods of %s: %w", namespace, err)
	}
	if slices.ContainsFunc(fresh.Items, func(p corev1.Pod) bool { return holds(&p, claim) }) {
		return nil // its event will come
	}
	claim = claim.DeepCopy()
	claim.Finalizers = without(claim.Finalizers, claimFinalizer)
	_, err = c.client.CoreV1().PersistentVolumeClaims(namespace).Update(ctx, claim, metav1.UpdateOptions{})
	return err
}

// note writes down since when no Pod has named a bound claim, or that one does.
func (c *Controller) note(ctx context.Context, claim *corev1.PersistentVolumeClaim, used bool) error {
	if claim.Status.Phase != corev1.ClaimBound {
		return nil
	}
	want := corev1.PersistentVolumeClaimCondition{
		Type: corev1.PersistentVolumeClaimUnused, Status: corev1.ConditionTrue, Reason: "NoPodsUsingPVC",
		Message: "No pods are currently referencing this PVC", LastTransitionTime: metav1.NewTime(c.clock.Now()),
	}
	if used {
		want.Status, want.Reason, want.Message = corev1.ConditionFalse, "PodUsingPVC", "A pod is currently referencing this PVC"
	}
	for _, have := range claim.Status.Conditions {
		if have.Type == want.Type && have.Status == want.Status {
			return nil
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": claim.UID},
		"status":   map[string]any{"conditions": []corev1.PersistentVolumeClaimCondition{want}},
	})
	if err != nil {
		return err
	}
	_, err = c.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Patch(ctx, claim.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

func (c *Controller) syncVolume(ctx context.Context, name string) error {
	v, err := c.volumes.Get(name)
	if err != nil {
		return err
	}
	if v.DeletionTimestamp == nil || !slices.Contains(v.Finalizers, volumeFinalizer) || v.Status.Phase == corev1.VolumeBound {
		return nil
	}
	v = v.DeepCopy()
	v.Finalizers = without(v.Finalizers, volumeFinalizer)
	_, err = c.client.CoreV1().PersistentVolumes().Update(ctx, v, metav1.UpdateOptions{})
	return err
}

func (c *Controller) syncClass(ctx context.Context, name string) error {
	class, err := c.classes.Get(name)
	if err != nil {
		return err
	}
	if class.DeletionTimestamp == nil || !slices.Contains(class.Finalizers, classFinalizer) {
		return nil
	}
	claims, err := c.claims.List(labels.Everything())
	if err != nil {
		return err
	}
	volumes, err := c.volumes.List(labels.Everything())
	if err != nil {
		return err
	}
	is := func(n *string) bool { return n != nil && *n == name }
	if slices.ContainsFunc(claims, func(c *corev1.PersistentVolumeClaim) bool {
		m := c.Status.ModifyVolumeStatus
		return is(c.Spec.VolumeAttributesClassName) || is(c.Status.CurrentVolumeAttributesClassName) || m != nil && m.TargetVolumeAttributesClassName == name
	}) || slices.ContainsFunc(volumes, func(v *corev1.PersistentVolume) bool { return is(v.Spec.VolumeAttributesClassName) }) {
		return nil
	}
	class = class.DeepCopy()
	class.Finalizers = without(class.Finalizers, classFinalizer)
	_, err = c.client.StorageV1().VolumeAttributesClasses().Update(ctx, class, metav1.UpdateOptions{})
	return err
}

func without(list []string, s string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(f string) bool { return f == s })
}
