// Package localpath provisions volumes that are folders on a node, for the storage class local-path, which it gives every cluster once.
//
// It imports client-go, component-helpers, api/volume and internal/controller/loop. provision and decide are pure. The folders are made and
// removed by the node (internal/agent/localpath). Invariants: a claim has one volume, whose name follows from the claim's uid; the class is
// made once in the life of a cluster, so that it stays as its administrator leaves it, or away.
package localpath

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/api/volume"
	"carob.dev/carob/internal/controller/loop"
)

// Name is the controller's name: of its service account, in the log, and the component of its events.
const Name = "local-path-provisioner"

// classMade, an annotation of the namespace kube-system, says that the cluster was given its storage class.
const classMade = "carob.dev/local-path-class-made"

// Config is what the controller needs. All fields but Clock are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Recorder  record.EventRecorder
	Log       *slog.Logger
	Clock     clock.WithTicker
}

// Controller provisions. Make one with New, before the informers are started.
type Controller struct {
	client  kubernetes.Interface
	events  record.EventRecorder
	log     *slog.Logger
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
	nodes   corelisters.NodeLister
	synced  []cache.DoneChecker
	loop    *loop.Loop[key]
}

// key is a claim, or a volume if it has no namespace, or the class if it has neither.
type key = types.NamespacedName

// New returns a Controller that listens to the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Recorder == nil || cfg.Log == nil {
		return nil, errors.New("local path provisioner: client, informers, recorder and log are required")
	}
	core := cfg.Informers.Core().V1()
	c := &Controller{
		client: cfg.Client, events: cfg.Recorder, log: cfg.Log, claims: core.PersistentVolumeClaims().Lister(), volumes: core.PersistentVolumes().Lister(),
		nodes: core.Nodes().Lister(), classes: cfg.Informers.Storage().V1().StorageClasses().Lister(),
	}
	c.loop = loop.New(Name, cfg.Clock, cfg.Log, c.sync)
	claim := func(o *corev1.PersistentVolumeClaim) {
		if _, ok := wants(o); ok || volume.Grows(o) {
			c.loop.Add(key{Namespace: o.Namespace, Name: o.Name})
		}
	}
	vol := func(v *corev1.PersistentVolume) { c.loop.Add(key{Name: v.Name}) }
	for _, w := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{core.PersistentVolumeClaims().Informer(), loop.Handlers(claim, func(_, now *corev1.PersistentVolumeClaim) { claim(now) }, nil)},
		{core.PersistentVolumes().Informer(), loop.Handlers(vol, func(_, now *corev1.PersistentVolume) { vol(now) }, nil)},
		{core.Nodes().Informer(), loop.Handlers(nil, nil, c.nodeGone)},
		{cfg.Informers.Storage().V1().StorageClasses().Informer(), cache.ResourceEventHandlerFuncs{}},
	} {
		reg, err := w.informer.AddEventHandler(w.handler)
		if err != nil {
			return nil, fmt.Errorf("local path provisioner: %w", err)
		}
		c.synced = append(c.synced, reg.HasSyncedChecker())
	}
	return c, nil
}

// Name returns the controller's name.
func (c *Controller) Name() string { return Name }

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	c.loop.Add(key{})
	return c.loop.Run(ctx, 1, c.synced...)
}

func (c *Controller) nodeGone(n *corev1.Node) {
	volumes, _ := c.volumes.List(labels.Everything())
	for _, v := range volumes {
		if v.Annotations[volume.LocalPathNode] == n.Name {
			c.loop.Add(key{Name: v.Name})
		}
	}
}

func (c *Controller) sync(ctx context.Context, k key) error {
	switch {
	case k.Name == "":
		return c.ensureClass(ctx)
	case k.Namespace == "":
		return c.syncVolume(ctx, k.Name)
	}
	return c.syncClaim(ctx, k)
}

// ensureClass makes the class, once in the life of a cluster.
func (c *Controller) ensureClass(ctx context.Context) error {
	ns, err := c.client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("storage class: %w", err)
	}
	if ns.Annotations[classMade] != "" {
		return nil
	}
	if _, err := c.client.StorageV1().StorageClasses().Create(ctx, class(), metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make the storage class: %w", err)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{classMade: "true"}}})
	if err != nil {
		return err
	}
	if _, err := c.client.CoreV1().Namespaces().Patch(ctx, metav1.NamespaceSystem, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("note that the storage class was made: %w", err)
	}
	return nil
}

func (c *Controller) syncClaim(ctx context.Context, k key) error {
	claim, err := c.claims.PersistentVolumeClaims(k.Namespace).Get(k.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	nodeName, ok := wants(claim)
	if !ok {
		return c.growClaim(ctx, claim)
	}
	name, _ := volume.ClassOf(claim)
	class, err := c.classes.Get(name)
	if err != nil {
		return fmt.Errorf("storage class of claim %s: %w", k, err)
	}
	if nodeName == "" {
		c.refuse(claim, fmt.Errorf("storage class %s must have volumeBindingMode WaitForFirstConsumer: a folder is on the node of the Pod that uses it", name))
		return nil
	}
	node, err := c.nodes.Get(nodeName)
	if err != nil {
		return fmt.Errorf("node of claim %s: %w", k, err)
	}
	v, err := provision(claim, class, node)
	if err != nil {
		c.refuse(claim, err)
		return c.giveBack(ctx, claim)
	}
	_, err = c.client.CoreV1().PersistentVolumes().Create(ctx, v, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make the volume of claim %s: %w", k, err)
	}
	c.events.Eventf(claim, corev1.EventTypeNormal, "ProvisioningSucceeded", "Successfully provisioned volume %s", v.Name)
	return nil
}

func (c *Controller) refuse(claim *corev1.PersistentVolumeClaim, err error) {
	name, _ := volume.ClassOf(claim)
	c.events.Eventf(claim, corev1.EventTypeWarning, "ProvisioningFailed", "failed to provision volume with StorageClass %q: %v", name, err)
}

// giveBack tells the scheduler that there will be no volume on the node that it chose.
func (c *Controller) giveBack(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	claim = claim.DeepCopy()
	delete(claim.Annotations, storagehelpers.AnnSelectedNode)
	_, err := c.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{})
	return err
}

func (c *Controller) syncVolume(ctx context.Context, name string) error {
	v, err := c.volumes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = c.nodes.Get(v.Annotations[volume.LocalPathNode])
	switch decide(v, apierrors.IsNotFound(err)) {
	case remove:
		err := c.client.CoreV1().PersistentVolumes().Delete(ctx, name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(v.UID))})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	case abandon:
		if _, err := c.client.CoreV1().Nodes().Get(ctx, v.Annotations[volume.LocalPathNode], metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return err
		}
		c.log.Warn("a volume's node is gone, and its folder with it", "volume", name, "node", v.Annotations[volume.LocalPathNode])
		v = v.DeepCopy()
		v.Finalizers = slices.DeleteFunc(v.Finalizers, func(f string) bool { return f == volume.LocalPathFinalizer })
		_, err := c.client.CoreV1().PersistentVolumes().Update(ctx, v, metav1.UpdateOptions{})
		return err
	}
	return nil
}
