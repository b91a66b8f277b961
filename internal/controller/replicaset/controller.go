// Package replicaset keeps, for every ReplicaSet, as many Pods as it asks for.
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
	appslisters "k8s.io/client-go/listers/apps/v1"
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

// workers is how many ReplicaSets are worked on at once. Workers that wait cost a goroutine each.
const workers = 8

// burst is the most Pods that are created or deleted for one ReplicaSet before the result is looked at again.
const burst = 500

var kind = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")

// Config is what the controller needs. All fields but Clock are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Recorder  record.EventRecorder
	Log       *slog.Logger
	Clock     clock.WithTicker
}

// Controller is the ReplicaSet controller. Make one with New, before the informers are started.
type Controller struct {
	client   kubernetes.Interface
	writer   *pods.Writer
	log      *slog.Logger
	clock    clock.WithTicker
	expected *expectation.Set
	loop     *loop.Loop[cache.ObjectName]

	sets     appslisters.ReplicaSetLister
	setIndex cache.Indexer
	podIndex cache.Indexer
	synced   []cache.DoneChecker
}

// New returns a Controller that listens to the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Recorder == nil || cfg.Log == nil {
		return nil, errors.New("replicaset controller: client, informers, recorder and log are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	setInformer := cfg.Informers.Apps().V1().ReplicaSets()
	podInformer := cfg.Informers.Core().V1().Pods()
	for _, i := range []cache.SharedIndexInformer{setInformer.Informer(), podInformer.Informer()} {
		if err := ownership.AddIndex(i); err != nil {
			return nil, fmt.Errorf("replicaset controller: %w", err)
		}
	}
	c := &Controller{
		client:   cfg.Client,
		writer:   &pods.Writer{Client: cfg.Client, Recorder: cfg.Recorder},
		log:      cfg.Log,
		clock:    cfg.Clock,
		expected: expectation.New(cfg.Clock),
		sets:     setInformer.Lister(),
		setIndex: setInformer.Informer().GetIndexer(),
		podIndex: podInformer.Informer().GetIndexer(),
	}
	c.loop = loop.New(Name, cfg.Clock, cfg.Log, c.sync)
	onSets, err := setInformer.Informer().AddEventHandler(loop.Handlers(c.setAdded, c.setUpdated, c.setDeleted))
	if err != nil {
		return nil, fmt.Errorf("replicaset controller: watch replicasets: %w", err)
	}
	onPods, err := podInformer.Informer().AddEventHandler(loop.Handlers(c.podAdded, c.podUpdated, c.podDeleted))
	if err != nil {
		return nil, fmt.Errorf("replicaset controller: watch pods: %w", err)
	}
	c.synced = []cache.DoneChecker{onSets.HasSyncedChecker(), onPods.HasSyncedChecker()}
	return c, nil
}

// Name returns the controller's name.
func (c *Controller) Name() string { return Name }

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx, workers, c.synced...) }

func keyOf(rs *appsv1.ReplicaSet) cache.ObjectName { return cache.MetaObjectToName(rs) }

// ownerOf finds the ReplicaSet that controls a Pod, or nil.
func (c *Controller) ownerOf(p *corev1.Pod) *appsv1.ReplicaSet {
	return c.resolve(p.Namespace, controllerOf(p))
}
