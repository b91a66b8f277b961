// Package namespace empties namespaces that are being deleted and then lets them go.
//
// It imports client-go and internal/controller/loop. conditions.go is pure. Invariants: nothing but Pods is deleted while Pods of
// the namespace still run, so that a Pod's ConfigMaps and ServiceAccount last as long as the Pod; the finalizer goes only when every
// kind that the server tells of has been found empty.
package namespace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/controller/loop"
)

// Name is the controller's name: of its service account and in the log.
const Name = "namespace-controller"

// look is how soon a namespace that still has content is looked at again: what is left in it (Pods that end, objects with
// finalizers) is not watched. Pods are: their last deletion wakes the namespace at once.
const (
	lookFirst = 50 * time.Millisecond
	lookMost  = 5 * time.Second
)

// Config is what the controller needs. All fields but Clock are required.
type Config struct {
	Client    kubernetes.Interface
	Metadata  metadata.Interface
	Discovery discovery.DiscoveryInterface
	Informers informers.SharedInformerFactory
	Log       *slog.Logger
	Clock     clock.WithTicker
}

// Controller is the namespace controller. Make one with New, before the informers are started.
type Controller struct {
	client     kubernetes.Interface
	metadata   metadata.Interface
	discovery  discovery.DiscoveryInterface
	log        *slog.Logger
	clock      clock.WithTicker
	loop       *loop.Loop[string]
	namespaces corelisters.NamespaceLister
	pods       corelisters.PodLister
	synced     []cache.DoneChecker
}

// New returns a Controller that listens to the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Metadata == nil || cfg.Discovery == nil || cfg.Informers == nil || cfg.Log == nil {
		return nil, errors.New("namespace controller: client, metadata, discovery, informers and log are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	namespaces := cfg.Informers.Core().V1().Namespaces()
	pods := cfg.Informers.Core().V1().Pods()
	c := &Controller{
		client: cfg.Client, metadata: cfg.Metadata, discovery: cfg.Discovery, log: cfg.Log, clock: cfg.Clock,
		namespaces: namespaces.Lister(), pods: pods.Lister(),
	}
	c.loop = loop.New(Name, cfg.Clock, cfg.Log, c.sync)
	changed := func(ns *corev1.Namespace) {
		if ns.DeletionTimestamp != nil {
			c.loop.Add(ns.Name)
		}
	}
	onNamespaces, err := namespaces.Informer().AddEventHandler(loop.Handlers(changed, func(_, ns *corev1.Namespace) { changed(ns) }, nil))
	if err != nil {
		return nil, fmt.Errorf("namespace controller: watch namespaces: %w", err)
	}
	onPods, err := pods.Informer().AddEventHandler(loop.Handlers(nil, nil, func(p *corev1.Pod) {
		if ns, err := c.namespaces.Get(p.Namespace); err == nil && ns.DeletionTimestamp != nil {
			c.loop.Add(p.Namespace)
		}
	}))
	if err != nil {
		return nil, fmt.Errorf("namespace controller: watch pods: %w", err)
	}
	c.synced = []cache.DoneChecker{onNamespaces.HasSyncedChecker(), onPods.HasSyncedChecker()}
	return c, nil
}

// Name returns the controller's name.
func (c *Controller) Name() string { return Name }

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx, 4, c.synced...) }
