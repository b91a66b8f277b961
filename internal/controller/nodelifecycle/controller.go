// Package nodelifecycle notices nodes that are no longer heard of, taints nodes by their conditions, and evicts the Pods that do not
// tolerate it.
//
// It imports client-go and internal/controller/{loop,pods}. decide.go is pure. Nothing polls: each node is looked at when it or its
// lease changes and when its grace would end, each Pod when it or its node changes and when its time is up. Invariant: how long a
// node has been silent is measured by this process's clock, from when this process last saw a change.
package nodelifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	coordinationlisters "k8s.io/client-go/listers/coordination/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/controller/loop"
)

const (
	// Name is the controller's name: of its service account and in the log.
	Name = "node-controller"
	// Recorder is the component that its events name.
	Recorder = "node-controller"
)

const (
	// gracePeriod is how long a node may be silent, startupGracePeriod one that never spoke: Kubernetes' values.
	gracePeriod        = 50 * time.Second
	startupGracePeriod = 60 * time.Second
)

// byNode is the index of Pods by their node's name.
const byNode = "carob.dev/node"

// Config is what the controller needs. All fields but Clock are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Recorder  record.EventRecorder
	Log       *slog.Logger
	Clock     clock.WithTicker
}

// Controller is the node lifecycle controller. Make one with New, before the informers are started.
type Controller struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	log      *slog.Logger
	clock    clock.WithTicker
	nodeLoop *loop.Loop[string]
	podLoop  *loop.Loop[cache.ObjectName]
	nodes    corelisters.NodeLister
	leases   coordinationlisters.LeaseLister
	pods     corelisters.PodLister
	podIndex cache.Indexer
	synced   []cache.DoneChecker

	mu     sync.Mutex // guards what follows
	health map[string]*health
	// tainted is since when nodes have been seen with their NoExecute taints; awaited are the Pods whose time to be evicted comes.
	tainted map[string]map[corev1.Taint]metav1.Time
	awaited map[cache.ObjectName]struct{}
}

// New returns a Controller that listens to the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Recorder == nil || cfg.Log == nil {
		return nil, errors.New("node lifecycle controller: client, informers, recorder and log are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	nodes, podInformer := cfg.Informers.Core().V1().Nodes(), cfg.Informers.Core().V1().Pods()
	leases := cfg.Informers.Coordination().V1().Leases()
	if _, ok := podInformer.Informer().GetIndexer().GetIndexers()[byNode]; !ok {
		if err := podInformer.Informer().AddIndexers(cache.Indexers{byNode: nodeOf}); err != nil {
			return nil, fmt.Errorf("node lifecycle controller: index pods by node: %w", err)
		}
	}
	c := &Controller{
		client: cfg.Client, recorder: cfg.Recorder, log: cfg.Log, clock: cfg.Clock,
		nodes: nodes.Lister(), leases: leases.Lister(), pods: podInformer.Lister(), podIndex: podInformer.Informer().GetIndexer(),
		health: map[string]*health{}, tainted: map[string]map[corev1.Taint]metav1.Time{}, awaited: map[cache.ObjectName]struct{}{},
	}
	c.nodeLoop = loop.New(Name, cfg.Clock, cfg.Log, c.syncNode)
	c.podLoop = loop.New(Name, cfg.Clock, cfg.Log, c.syncPod)
	for _, on := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{nodes.Informer(), loop.Handlers(c.nodeAdded, c.nodeUpdated, func(n *corev1.Node) { c.nodeLoop.Add(n.Name) })},
		{leases.Informer(), loop.Handlers(c.leaseSeen, func(_, l *coordinationv1.Lease) { c.leaseSeen(l) }, nil)},
		{podInformer.Informer(), loop.Handlers(c.podSeen, c.podUpdated, c.podGone)},
	} {
		reg, err := on.informer.AddEventHandler(on.handler)
		if err != nil {
			return nil, fmt.Errorf("node lifecycle controller: %w", err)
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
	var nodeErr, podErr error
	wg.Go(func() { nodeErr = c.nodeLoop.Run(ctx, 2, c.synced...) })
	wg.Go(func() { podErr = c.podLoop.Run(ctx, 2, c.synced...) })
	wg.Wait()
	return errors.Join(nodeErr, podErr)
}

func nodeOf(obj any) ([]string, error) {
	if p, ok := obj.(*corev1.Pod); ok && p.Spec.NodeName != "" {
		return []string{p.Spec.NodeName}, nil
	}
	return nil, nil
}

func (c *Controller) nodeAdded(n *corev1.Node) {
	c.nodeLoop.Add(n.Name)
	c.seeTaints(n)
	c.wakePods(n.Name)
}

func (c *Controller) nodeUpdated(before, after *corev1.Node) {
	c.nodeLoop.Add(after.Name)
	if !reflect.DeepEqual(before.Spec.Taints, after.Spec.Taints) {
		c.seeTaints(after)
		c.wakePods(after.Name)
	}
	if readiness(before) != readiness(after) {
		c.recordNotReady(after)
	}
}

func readiness(n *corev1.Node) corev1.ConditionStatus {
	if cond := condition(n, corev1.NodeReady); cond != nil {
		return cond.Status
	}
	return ""
}

// leaseSeen notes a sign of life without waking the node's worker: its timer finds the new deadline.
func (c *Controller) leaseSeen(l *coordinationv1.Lease) {
	if l.Namespace != corev1.NamespaceNodeLease || l.Spec.RenewTime == nil {
		return
	}
	n, err := c.nodes.Get(l.Name)
	if err != nil {
		return
	}
	c.note(n, *l.Spec.RenewTime)
}

// note brings the node's health up to date and returns when it will count as lost.
func (c *Controller) note(n *corev1.Node, renewed metav1.MicroTime) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.health[n.Name]
	if h == nil {
		h = &health{}
		c.health[n.Name] = h
	}
	h.note(n, renewed, c.clock.Now())
	return h.lost(n)
}

func (c *Controller) podSeen(p *corev1.Pod) {
	if p.Spec.NodeName == "" || p.DeletionTimestamp != nil {
		return
	}
	if n, err := c.nodes.Get(p.Spec.NodeName); err == nil {
		for _, t := range n.Spec.Taints {
			if t.Effect == corev1.TaintEffectNoExecute {
				c.podLoop.Add(cache.MetaObjectToName(p))
				return
			}
		}
	}
}

func (c *Controller) podUpdated(before, after *corev1.Pod) {
	if before.Spec.NodeName != after.Spec.NodeName || !reflect.DeepEqual(before.Spec.Tolerations, after.Spec.Tolerations) {
		c.podSeen(after)
	}
}

func (c *Controller) podGone(p *corev1.Pod) { c.await(cache.MetaObjectToName(p), false) }

func (c *Controller) wakePods(node string) {
	for _, p := range c.podsOf(node) {
		c.podLoop.Add(cache.MetaObjectToName(p))
	}
}

func (c *Controller) podsOf(node string) []*corev1.Pod {
	objs, err := c.podIndex.ByIndex(byNode, node)
	if err != nil {
		c.log.Warn("list the pods of a node", "node", node, "err", err)
		return nil
	}
	var out []*corev1.Pod
	for _, obj := range objs {
		if p, ok := obj.(*corev1.Pod); ok {
			out = append(out, p)
		}
	}
	return out
}

// recordNotReady tells of a node that stopped being ready.
func (c *Controller) recordNotReady(n *corev1.Node) {
	if readiness(n) != corev1.ConditionTrue {
		ref := &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}
		c.recorder.Eventf(ref, corev1.EventTypeNormal, "NodeNotReady", "Node %s status is now: %s", n.Name, "NodeNotReady")
	}
}

// forget drops what is known of nodes that are gone.
func (c *Controller) forget(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.health, node)
	delete(c.tainted, node)
}

// lease returns when the node's lease was last renewed; the zero time if it has none.
func (c *Controller) lease(node string) metav1.MicroTime {
	l, err := c.leases.Leases(corev1.NamespaceNodeLease).Get(node)
	if err != nil || l.Spec.RenewTime == nil {
		return metav1.MicroTime{}
	}
	return *l.Spec.RenewTime
}
