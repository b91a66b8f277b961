// Package attachdetach has the volumes of storage drivers attached to the nodes whose Pods need them, and detached when no Pod does: it writes
// VolumeAttachments, and the drivers' own attachers act on them.
//
// It imports client-go, component-helpers and internal/controller/loop. Invariants: it watches nothing before the first driver has registered
// on some node; it touches only attachments that bear the name which Kubernetes gives them; nothing is detached while its node says that it
// uses it, unless the node is lost.
package attachdetach

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

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
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/controller/loop"
)

// Name is the controller's name: of its service account, of its events and in the log.
const Name = "attachdetach-controller"

// nodeIDAnnotation is on every node on which a driver has registered.
const nodeIDAnnotation = "csi.volume.kubernetes.io/nodeid"

// Config is what the controller needs. All fields but Clock are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Recorder  record.EventRecorder
	Log       *slog.Logger
	Clock     clock.WithTicker
}

// Controller attaches and detaches. Make one with New, before the informers are started.
type Controller struct {
	cfg   Config
	loop  *loop.Loop[struct{}]
	nodes corelisters.NodeLister
	pods  corelisters.PodLister
	// first gets a value when some node has a driver.
	first  chan struct{}
	synced []cache.DoneChecker

	// The rest is set when the first driver is there, and the loop's own.
	claims      corelisters.PersistentVolumeClaimLister
	volumes     corelisters.PersistentVolumeLister
	attachments storagelisters.VolumeAttachmentLister
	drivers     storagelisters.CSIDriverLister
	unwanted    map[string]time.Time
	// told is what Pods have been told last of each attachment.
	told map[string]string
}

// New returns a Controller that listens to the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Recorder == nil || cfg.Log == nil {
		return nil, errors.New("attach and detach: client, informers, recorder and log are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	nodes, pods := cfg.Informers.Core().V1().Nodes(), cfg.Informers.Core().V1().Pods()
	c := &Controller{cfg: cfg, nodes: nodes.Lister(), pods: pods.Lister(), first: make(chan struct{}, 1), unwanted: map[string]time.Time{}, told: map[string]string{}}
	c.loop = loop.New(Name, cfg.Clock, cfg.Log, func(ctx context.Context, _ struct{}) error { return c.sync(ctx) })
	onNodes, err := nodes.Informer().AddEventHandler(loop.Handlers(
		c.nodeChanged,
		func(old, n *corev1.Node) {
			if !slices.Equal(old.Status.VolumesInUse, n.Status.VolumesInUse) || ready(old) != ready(n) || outOfService(old) != outOfService(n) ||
				old.Annotations[nodeIDAnnotation] != n.Annotations[nodeIDAnnotation] || len(old.Status.VolumesAttached) != len(n.Status.VolumesAttached) {
				c.nodeChanged(n)
			}
		},
		func(*corev1.Node) { c.changed() },
	))
	if err != nil {
		return nil, fmt.Errorf("attach and detach: watch nodes: %w", err)
	}
	onPods, err := pods.Informer().AddEventHandler(loop.Handlers(
		func(p *corev1.Pod) { c.podChanged(p) },
		func(old, p *corev1.Pod) {
			if old.Spec.NodeName != p.Spec.NodeName || old.Status.Phase != p.Status.Phase {
				c.podChanged(p)
			}
		},
		func(p *corev1.Pod) { c.podChanged(p) },
	))
	if err != nil {
		return nil, fmt.Errorf("attach and detach: watch Pods: %w", err)
	}
	c.synced = []cache.DoneChecker{onNodes.HasSyncedChecker(), onPods.HasSyncedChecker()}
	return c, nil
}

func (c *Controller) nodeChanged(n *corev1.Node) {
	if n.Annotations[nodeIDAnnotation] != "" {
		select {
		case c.first <- struct{}{}:
		default:
		}
	}
	c.changed()
}

func (c *Controller) podChanged(p *corev1.Pod) {
	for _, v := range p.Spec.Volumes {
		if v.PersistentVolumeClaim != nil || v.Ephemeral != nil {
			c.changed()
			return
		}
	}
}

func (c *Controller) changed() { c.loop.Add(struct{}{}) }

// Name returns the controller's name.
func (c *Controller) Name() string { return Name }

// Run works until ctx ends; it begins with the first driver.
func (c *Controller) Run(ctx context.Context) error {
	select {
	case <-c.first:
	case <-ctx.Done():
		return nil
	}
	core, own := c.cfg.Informers.Core().V1(), informers.NewSharedInformerFactory(c.cfg.Client, 0)
	storage := own.Storage().V1()
	c.claims, c.volumes = core.PersistentVolumeClaims().Lister(), core.PersistentVolumes().Lister()
	c.attachments, c.drivers = storage.VolumeAttachments().Lister(), storage.CSIDrivers().Lister()
	synced := slices.Clone(c.synced)
	for _, informer := range []cache.SharedIndexInformer{core.PersistentVolumeClaims().Informer(), core.PersistentVolumes().Informer(),
		storage.VolumeAttachments().Informer(), storage.CSIDrivers().Informer()} {
		on, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) { c.changed() },
			UpdateFunc: func(any, any) { c.changed() }, DeleteFunc: func(any) { c.changed() }})
		if err != nil {
			return fmt.Errorf("attach and detach: %w", err)
		}
		synced = append(synced, on.HasSyncedChecker())
	}
	c.cfg.Informers.StartWithContext(ctx)
	own.StartWithContext(ctx)
	defer own.Shutdown()
	return c.loop.Run(ctx, 1, synced...)
}

// sync decides anew and does it.
func (c *Controller) sync(ctx context.Context) error {
	v, err := c.view()
	if err != nil {
		return err
	}
	d := decide(v)
	c.unwanted = d.unwanted
	if !d.again.IsZero() {
		c.loop.AddAfter(struct{}{}, d.again.Sub(v.now))
	}
	var errs []error
	for _, a := range d.attach {
		errs = append(errs, c.attach(ctx, a))
	}
	for _, name := range d.detach {
		c.cfg.Log.Info("detach a volume that no Pod needs", "attachment", name)
		err := c.cfg.Client.StorageV1().VolumeAttachments().Delete(ctx, name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("detach %s: %w", name, err))
		}
	}
	c.tell(d)
	for name, node := range v.nodes {
		errs = append(errs, c.tellNode(ctx, node, d.attached[name]))
	}
	return errors.Join(errs...)
}

func (c *Controller) view() (view, error) {
	v := view{unwanted: c.unwanted, now: c.cfg.Clock.Now(), nodes: map[string]*corev1.Node{},
		claim: func(namespace, name string) *corev1.PersistentVolumeClaim {
			o, _ := c.claims.PersistentVolumeClaims(namespace).Get(name)
			return o
		},
		volume: func(name string) *corev1.PersistentVolume { o, _ := c.volumes.Get(name); return o },
		driver: func(name string) *storagev1.CSIDriver { o, _ := c.drivers.Get(name); return o },
	}
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return v, err
	}
	for _, n := range nodes {
		v.nodes[n.Name] = n
	}
	if v.pods, err = c.pods.List(labels.Everything()); err != nil {
		return v, err
	}
	v.attachments, err = c.attachments.List(labels.Everything())
	return v, err
}

func (c *Controller) attach(ctx context.Context, a attachment) error {
	o := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: a.name()}, Spec: storagev1.VolumeAttachmentSpec{
		Attacher: a.pv.Spec.CSI.Driver, NodeName: a.node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr.To(a.pv.Name)}}}
	_, err := c.cfg.Client.StorageV1().VolumeAttachments().Create(ctx, o, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		c.events(a, corev1.EventTypeWarning, "FailedAttachVolume", fmt.Sprintf("AttachVolume.Attach failed for volume %q : %v", a.pv.Name, err))
		return fmt.Errorf("attach %s to %s: %w", a.pv.Name, a.node, err)
	}
	return nil
}

func (c *Controller) events(a attachment, kind, reason, message string) {
	for _, p := range a.pods {
		c.cfg.Recorder.Event(p, kind, reason, message)
	}
}

// tell writes events about what has become of attachments, once for each news.
func (c *Controller) tell(d decision) {
	told := map[string]string{}
	say := func(a attachment, kind, reason, message string) {
		told[a.name()] = message
		if c.told[a.name()] != message {
			c.events(a, kind, reason, message)
		}
	}
	for _, a := range d.blocked {
		say(a, corev1.EventTypeWarning, "FailedAttachVolume", fmt.Sprintf("Multi-Attach error for volume %q Volume is already exclusively attached to one node and can't be attached to another", a.pv.Name))
	}
	for _, a := range d.present {
		o, err := c.attachments.Get(a.name())
		switch {
		case err != nil:
		case o.Status.Attached:
			say(a, corev1.EventTypeNormal, "SuccessfulAttachVolume", fmt.Sprintf("AttachVolume.Attach succeeded for volume %q ", a.pv.Name))
		case o.Status.AttachError != nil:
			say(a, corev1.EventTypeWarning, "FailedAttachVolume", fmt.Sprintf("AttachVolume.Attach failed for volume %q : %s", a.pv.Name, o.Status.AttachError.Message))
		}
	}
	c.told = told
}

// tellNode writes into a node's status which volumes are attached to it.
func (c *Controller) tellNode(ctx context.Context, n *corev1.Node, attached []corev1.AttachedVolume) error {
	have := slices.Clone(n.Status.VolumesAttached)
	slices.SortFunc(have, func(a, b corev1.AttachedVolume) int { return cmp.Compare(a.Name, b.Name) })
	if slices.Equal(have, attached) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"volumesAttached": attached}})
	if err != nil {
		return err
	}
	_, err = c.cfg.Client.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("tell node %s what is attached to it: %w", n.Name, err)
	}
	return nil
}
