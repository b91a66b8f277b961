// Package replicaset keeps, for every ReplicaSet, as many Pods as it asks for, and the same for every ReplicationController.
//
// It imports client-go, k8s.io/api and the shared pieces under internal/controller. status.go is pure; sync.go carries out.
// Invariants: it creates or deletes Pods of a ReplicaSet only when it has seen all that it did before (package expectation); it
// never touches a Pod that another controller owns.
package replicaset

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/controller/expectation"
	"carob.dev/carob/internal/controller/loop"
	"carob.dev/carob/internal/controller/ownership"
	"carob.dev/carob/internal/controller/pods"
)

// Name is the controller's name: of its service account, in the log and in events.
const Name = "replicaset-controller"

// ReplicationName is that of the controller for ReplicationControllers.
const ReplicationName = "replication-controller"

// workers is how many ReplicaSets are worked on at once. Workers that wait cost a goroutine each.
const workers = 8

// burst is the most Pods that are created or deleted for one ReplicaSet before the result is looked at again.
const burst = 500

// Config is what the controller needs. All fields but Clock are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Recorder  record.EventRecorder
	Log       *slog.Logger
	Clock     clock.WithTicker
}

// Controller keeps Pods for the objects of one kind. Make one with New or NewReplication, before the informers are started.
type Controller struct {
	source   source
	writer   *pods.Writer
	log      *slog.Logger
	clock    clock.WithTicker
	expected *expectation.Set
	loop     *loop.Loop[cache.ObjectName]

	setIndex cache.Indexer
	podIndex cache.Indexer
	synced   []cache.DoneChecker
}

// New returns the Controller for ReplicaSets, which listens to the informers.
func New(cfg Config) (*Controller, error) { return newController(cfg, sets) }

// NewReplication returns the Controller for ReplicationControllers.
func NewReplication(cfg Config) (*Controller, error) {
	return newController(cfg, replicationControllers)
}

func newController(cfg Config, of func(Config) source) (*Controller, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Recorder == nil || cfg.Log == nil {
		return nil, errors.New("replicaset controller: client, informers, recorder and log are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	src := of(cfg)
	podInformer := cfg.Informers.Core().V1().Pods().Informer()
	for _, i := range []cache.SharedIndexInformer{src.informer, podInformer} {
		if err := ownership.AddIndex(i); err != nil {
			return nil, fmt.Errorf("replicaset controller: %w", err)
		}
	}
	c := &Controller{
		source:   src,
		writer:   &pods.Writer{Client: cfg.Client, Recorder: cfg.Recorder},
		log:      cfg.Log,
		clock:    cfg.Clock,
		expected: expectation.New(cfg.Clock),
		setIndex: src.informer.GetIndexer(),
		podIndex: podInformer.GetIndexer(),
	}
	c.loop = loop.New(src.name, cfg.Clock, cfg.Log, c.sync)
	onSets, err := src.informer.AddEventHandler(src.handlers(c))
	if err != nil {
		return nil, fmt.Errorf("replicaset controller: watch %ss: %w", src.kind.Kind, err)
	}
	onPods, err := podInformer.AddEventHandler(loop.Handlers(c.podAdded, c.podUpdated, c.podDeleted))
	if err != nil {
		return nil, fmt.Errorf("replicaset controller: watch pods: %w", err)
	}
	c.synced = []cache.DoneChecker{onSets.HasSyncedChecker(), onPods.HasSyncedChecker()}
	return c, nil
}

// Name returns the controller's name.
func (c *Controller) Name() string { return c.source.name }

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx, workers, c.synced...) }

func keyOf(rs *appsv1.ReplicaSet) cache.ObjectName { return cache.MetaObjectToName(rs) }

// get is the object of that name as a ReplicaSet, or nil.
func (c *Controller) get(key cache.ObjectName) (*appsv1.ReplicaSet, error) {
	obj, found, err := c.setIndex.GetByKey(key.String())
	if err != nil || !found {
		return nil, err
	}
	return c.source.view(obj), nil
}

// ownerOf finds the ReplicaSet that controls a Pod, or nil.
func (c *Controller) ownerOf(p *corev1.Pod) *appsv1.ReplicaSet {
	return c.resolve(p.Namespace, controllerOf(p))
}
