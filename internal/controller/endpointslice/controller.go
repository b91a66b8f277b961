// Package endpointslice keeps the EndpointSlices of every Service with a selector: which Pod addresses are behind it.
//
// It imports client-go, Kubernetes' endpointslice library, which decides what the slices hold, and internal/controller/loop.
// Invariant: slices of other controllers and Services without a selector are never touched.
package endpointslice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/endpointslice"
	"k8s.io/endpointslice/topologycache"
	endpointsliceutil "k8s.io/endpointslice/util"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/controller/loop"
)

// Name is the controller's name: of its service account and in the log.
const Name = "endpointslice-controller"

// managedBy is the value of the label endpointslice.kubernetes.io/managed-by on our slices: Kubernetes' own.
const managedBy = "endpointslice-controller.k8s.io"

// maxEndpoints is how many endpoints one slice holds at most.
const maxEndpoints = 100

// Config is what the controller needs. All fields but Clock are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Recorder  record.EventRecorder
	Log       *slog.Logger
	Clock     clock.WithTicker
}

// Controller is the EndpointSlice controller. Make one with New, before the informers are started.
type Controller struct {
	recorder   record.EventRecorder
	log        *slog.Logger
	klog       klog.Logger
	topology   *topologycache.TopologyCache
	nodes      corelisters.NodeLister
	loop       *loop.Loop[cache.ObjectName]
	reconciler *endpointslice.Reconciler
	tracker    *endpointsliceutil.EndpointSliceTracker
	triggers   *endpointsliceutil.TriggerTimeTracker
	services   corelisters.ServiceLister
	pods       corelisters.PodLister
	slices     discoverylisters.EndpointSliceLister
	synced     []cache.DoneChecker
}

// New returns a Controller that listens to the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Recorder == nil || cfg.Log == nil {
		return nil, errors.New("endpoint slice controller: client, informers, recorder and log are required")
	}
	services, pods := cfg.Informers.Core().V1().Services(), cfg.Informers.Core().V1().Pods()
	nodes, slices := cfg.Informers.Core().V1().Nodes(), cfg.Informers.Discovery().V1().EndpointSlices()
	logger := klog.New(slogSink(cfg.Log))
	c := &Controller{
		recorder: cfg.Recorder, log: cfg.Log, klog: logger,
		topology: topologycache.NewTopologyCache(), nodes: nodes.Lister(),
		tracker:  endpointsliceutil.NewEndpointSliceTracker(),
		triggers: endpointsliceutil.NewTriggerTimeTracker(),
		services: services.Lister(), pods: pods.Lister(), slices: slices.Lister(),
	}
	c.loop = loop.New(Name, cfg.Clock, cfg.Log, c.sync)
	c.reconciler = endpointslice.NewReconciler(cfg.Client, nodes.Lister(), maxEndpoints, c.tracker,
		c.topology, cfg.Recorder, managedBy, endpointslice.WithPreferSameTrafficDistributionEnabled(true))
	enqueue := func(s *corev1.Service) { c.loop.Add(cache.MetaObjectToName(s)) }
	for _, on := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{services.Informer(), loop.Handlers(enqueue, func(_, s *corev1.Service) { enqueue(s) }, enqueue)},
		{pods.Informer(), loop.Handlers(c.podAdded, c.podUpdated, c.podDeleted)},
		{nodes.Informer(), loop.Handlers(c.nodesChanged, func(_, n *corev1.Node) { c.nodesChanged(n) }, c.nodesChanged)},
		{slices.Informer(), loop.Handlers(c.sliceAdded, func(_, s *discoveryv1.EndpointSlice) { c.sliceAdded(s) }, c.sliceDeleted)},
	} {
		reg, err := on.informer.AddEventHandler(on.handler)
		if err != nil {
			return nil, fmt.Errorf("endpoint slice controller: %w", err)
		}
		c.synced = append(c.synced, reg.HasSyncedChecker())
	}
	return c, nil
}

// Name returns the controller's name.
func (c *Controller) Name() string { return Name }

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx, 2, c.synced...) }

func (c *Controller) podAdded(p *corev1.Pod)               { c.podChanged(nil, p) }
func (c *Controller) podDeleted(p *corev1.Pod)             { c.podChanged(p, nil) }
func (c *Controller) podUpdated(before, after *corev1.Pod) { c.podChanged(before, after) }

// podChanged wakes the Services that select the Pod, if the change can change an endpoint. before or after may be nil.
func (c *Controller) podChanged(before, after *corev1.Pod) {
	var old, now any
	if before != nil {
		old = before
	}
	if after != nil {
		now = after
	}
	change := endpointsliceutil.GetPodUpdateProjectionKey(old, now)
	if change == nil {
		return
	}
	keys, err := endpointsliceutil.GetServicesToUpdate(c.services, change)
	if err != nil {
		c.log.Warn("find the services of a pod", "err", err)
		return
	}
	for key := range keys {
		if name, err := cache.ParseObjectName(key); err == nil {
			c.loop.Add(name)
		}
	}
}

// nodesChanged tells the library which nodes, and so zones, there are.
func (c *Controller) nodesChanged(*corev1.Node) {
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		c.log.Warn("list nodes", "err", err)
		return
	}
	c.topology.SetNodes(c.klog, nodes)
}

// sliceAdded wakes the Service of a slice that is not as we left it.
func (c *Controller) sliceAdded(s *discoveryv1.EndpointSlice) {
	if c.reconciler.ManagedByController(s) && c.tracker.ShouldSync(s) {
		c.wakeOwner(s)
	}
}

// sliceDeleted wakes the Service of a slice that somebody else deleted.
func (c *Controller) sliceDeleted(s *discoveryv1.EndpointSlice) {
	if c.reconciler.ManagedByController(s) && c.tracker.Has(s) && !c.tracker.HandleDeletion(s) {
		c.wakeOwner(s)
	}
}

func (c *Controller) wakeOwner(s *discoveryv1.EndpointSlice) {
	if name := s.Labels[discoveryv1.LabelServiceName]; name != "" {
		c.loop.Add(cache.NewObjectName(s.Namespace, name))
	}
}

// sync makes the slices of one Service right. It may be repeated at any time.
func (c *Controller) sync(ctx context.Context, key cache.ObjectName) error {
	service, err := c.services.Services(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		// The garbage collector deletes the slices.
		c.triggers.DeleteService(key.Namespace, key.Name)
		c.reconciler.DeleteService(key.Namespace, key.Name)
		c.tracker.DeleteService(key.Namespace, key.Name)
		return nil
	}
	if err != nil {
		return err
	}
	if service.Spec.Type == corev1.ServiceTypeExternalName || service.Spec.Selector == nil {
		return nil
	}
	pods, err := c.pods.Pods(key.Namespace).List(labels.SelectorFromSet(service.Spec.Selector))
	if err != nil {
		return err
	}
	listed, err := c.slices.EndpointSlices(key.Namespace).List(labels.SelectorFromSet(labels.Set{
		discoveryv1.LabelServiceName: service.Name, discoveryv1.LabelManagedBy: managedBy,
	}))
	if err != nil {
		return err
	}
	var live []*discoveryv1.EndpointSlice
	for _, s := range listed {
		if s.DeletionTimestamp == nil {
			live = append(live, s)
		}
	}
	if c.tracker.StaleSlices(service, live) {
		return fmt.Errorf("endpoint slices of %s: %w", key, loop.ErrStale)
	}
	trigger := c.triggers.ComputeEndpointLastChangeTriggerTime(key.Namespace, service, pods)
	if err := c.reconciler.Reconcile(c.klog, service, pods, live, trigger); err != nil {
		c.recorder.Eventf(service, corev1.EventTypeWarning, "FailedToUpdateEndpointSlices",
			"Error updating Endpoint Slices for Service %s/%s: %v", key.Namespace, key.Name, err)
		return fmt.Errorf("update the endpoint slices of %s: %w", key, err)
	}
	return nil
}
