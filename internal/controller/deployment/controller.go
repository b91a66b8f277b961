// Package deployment rolls Deployments out: it makes a ReplicaSet for each version of the Pod template and moves the replicas from
// the old ones to the new one.
//
// It imports client-go, k8s.io/api and the shared pieces under internal/controller. decide (plan.go) is pure and says all that is
// to be written; sync.go writes it. Invariants: never more Pods than desired plus maxSurge are asked for, and an old replica that
// is available goes only when enough others are; a ReplicaSet of another owner is never touched.
package deployment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	appslisters "k8s.io/client-go/listers/apps/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/controller/loop"
	"carob.dev/carob/internal/controller/ownership"
)

// Name is the controller's name: of its service account, in the log and in events.
const Name = "deployment-controller"

// workers is how many Deployments are worked on at once.
const workers = 4

var (
	kind    = appsv1.SchemeGroupVersion.WithKind("Deployment")
	setKind = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")
)

// Config is what the controller needs. All fields but Clock are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Recorder  record.EventRecorder
	Log       *slog.Logger
	Clock     clock.WithTicker
}

// Controller is the Deployment controller. Make one with New, before the informers are started.
type Controller struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	log      *slog.Logger
	clock    clock.WithTicker
	loop     *loop.Loop[cache.ObjectName]

	deployments appslisters.DeploymentLister
	sets        appslisters.ReplicaSetLister
	setIndex    cache.Indexer
	podIndex    cache.Indexer
	synced      []cache.DoneChecker
}

// New returns a Controller that listens to the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Recorder == nil || cfg.Log == nil {
		return nil, errors.New("deployment controller: client, informers, recorder and log are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	deployments := cfg.Informers.Apps().V1().Deployments()
	sets := cfg.Informers.Apps().V1().ReplicaSets()
	pods := cfg.Informers.Core().V1().Pods()
	c := &Controller{
		client: cfg.Client, recorder: cfg.Recorder, log: cfg.Log, clock: cfg.Clock,
		deployments: deployments.Lister(), sets: sets.Lister(),
		setIndex: sets.Informer().GetIndexer(), podIndex: pods.Informer().GetIndexer(),
	}
	c.loop = loop.New(Name, cfg.Clock, cfg.Log, c.sync)
	for _, i := range []cache.SharedIndexInformer{sets.Informer(), pods.Informer()} {
		if err := ownership.AddIndex(i); err != nil {
			return nil, fmt.Errorf("deployment controller: %w", err)
		}
	}
	enqueue := func(d *appsv1.Deployment) { c.loop.Add(cache.MetaObjectToName(d)) }
	for _, on := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{deployments.Informer(), loop.Handlers(enqueue, func(_, d *appsv1.Deployment) { enqueue(d) }, enqueue)},
		{sets.Informer(), loop.Handlers(c.setAdded, c.setUpdated, c.setDeleted)},
		{pods.Informer(), loop.Handlers(nil, nil, c.podDeleted)},
	} {
		reg, err := on.informer.AddEventHandler(on.handler)
		if err != nil {
			return nil, fmt.Errorf("deployment controller: %w", err)
		}
		c.synced = append(c.synced, reg.HasSyncedChecker())
	}
	return c, nil
}

// Name returns the controller's name.
func (c *Controller) Name() string { return Name }

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx, workers, c.synced...) }

func (c *Controller) setAdded(rs *appsv1.ReplicaSet) {
	if ref := metav1.GetControllerOfNoCopy(rs); ref != nil || rs.DeletionTimestamp != nil {
		c.wake(rs.Namespace, ref)
		return
	}
	c.wakeMatching(rs)
}

func (c *Controller) setUpdated(before, after *appsv1.ReplicaSet) {
	if before.ResourceVersion == after.ResourceVersion {
		return
	}
	was, is := metav1.GetControllerOfNoCopy(before), metav1.GetControllerOfNoCopy(after)
	changed := !reflect.DeepEqual(was, is)
	if changed {
		c.wake(before.Namespace, was)
	}
	switch {
	case is != nil:
		c.wake(after.Namespace, is)
	case changed || !reflect.DeepEqual(before.Labels, after.Labels):
		c.wakeMatching(after)
	}
}

func (c *Controller) setDeleted(rs *appsv1.ReplicaSet) {
	c.wake(rs.Namespace, metav1.GetControllerOfNoCopy(rs))
}

// podDeleted wakes a Deployment of strategy Recreate, which waits for the last old Pod.
func (c *Controller) podDeleted(p *corev1.Pod) {
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil || ref.Kind != setKind.Kind {
		return
	}
	rs, err := c.sets.ReplicaSets(p.Namespace).Get(ref.Name)
	if err != nil || rs.UID != ref.UID {
		return
	}
	if d := c.resolve(rs.Namespace, metav1.GetControllerOfNoCopy(rs)); d != nil && !isRolling(d) {
		c.loop.Add(cache.MetaObjectToName(d))
	}
}

func (c *Controller) wake(namespace string, ref *metav1.OwnerReference) {
	if d := c.resolve(namespace, ref); d != nil {
		c.loop.Add(cache.MetaObjectToName(d))
	}
}

// wakeMatching wakes the Deployments that may want to adopt an orphan.
func (c *Controller) wakeMatching(rs *appsv1.ReplicaSet) {
	if len(rs.Labels) == 0 {
		return
	}
	all, err := c.deployments.Deployments(rs.Namespace).List(labels.Everything())
	if err != nil {
		c.log.Warn("list deployments", "namespace", rs.Namespace, "err", err)
		return
	}
	for _, d := range all {
		selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(rs.Labels)) {
			c.loop.Add(cache.MetaObjectToName(d))
		}
	}
}

// resolve finds the Deployment that a controller reference means, or nil.
func (c *Controller) resolve(namespace string, ref *metav1.OwnerReference) *appsv1.Deployment {
	if ref == nil || ref.Kind != kind.Kind {
		return nil
	}
	d, err := c.deployments.Deployments(namespace).Get(ref.Name)
	if err != nil || d.UID != ref.UID {
		return nil
	}
	return d
}
