// Package podgc deletes Pods that nothing else will: bound to a node that is gone, deleted before they were ever bound, or ended
// and more than the cluster should keep.
//
// It imports client-go and internal/controller/{loop,pods}. decide is pure. Invariant: a Pod counts as orphaned only after its node
// has been missing for Quarantine and the server has confirmed that there is no such node.
package podgc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/controller/loop"
	"carob.dev/carob/internal/controller/pods"
)

// Name is the controller's name: of its service account and in the log.
const Name = "pod-garbage-collector"

const (
	// Quarantine is how long a node must be missing before its Pods are.
	Quarantine = 40 * time.Second
	// DefaultThreshold is how many ended Pods the cluster keeps.
	DefaultThreshold = 12500
)

// sweepKey is the only key: one look at all Pods, asked for by events.
const sweepKey = "all"

// Config is what the controller needs. All fields but Threshold and Clock are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	// Threshold is how many ended Pods to keep; 0 is DefaultThreshold, less is no limit.
	Threshold int
	Log       *slog.Logger
	Clock     clock.WithTicker
}

// Controller is the Pod garbage collector. Make one with New, before the informers are started.
type Controller struct {
	client    kubernetes.Interface
	log       *slog.Logger
	clock     clock.WithTicker
	threshold int
	loop      *loop.Loop[string]
	pods      corelisters.PodLister
	nodes     corelisters.NodeLister
	synced    []cache.DoneChecker

	// missing is since when nodes that Pods are bound to have not been there. Only the one worker uses it.
	missing map[string]time.Time
}

// New returns a Controller that listens to the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Log == nil {
		return nil, errors.New("pod garbage collector: client, informers and log are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	podInformer, nodeInformer := cfg.Informers.Core().V1().Pods(), cfg.Informers.Core().V1().Nodes()
	c := &Controller{
		client: cfg.Client, log: cfg.Log, clock: cfg.Clock, threshold: cmp.Or(cfg.Threshold, DefaultThreshold),
		pods: podInformer.Lister(), nodes: nodeInformer.Lister(), missing: map[string]time.Time{},
	}
	c.loop = loop.New(Name, cfg.Clock, cfg.Log, c.sweep)
	sweep := func() { c.loop.Add(sweepKey) }
	onPods, err := podInformer.Informer().AddEventHandler(loop.Handlers(
		func(p *corev1.Pod) {
			if c.suspicious(p) {
				sweep()
			}
		},
		func(before, after *corev1.Pod) {
			if unboundDeletion(after) || !pods.Ended(before) && pods.Ended(after) && c.threshold > 0 {
				sweep()
			}
		}, nil))
	if err != nil {
		return nil, fmt.Errorf("pod garbage collector: watch pods: %w", err)
	}
	onNodes, err := nodeInformer.Informer().AddEventHandler(loop.Handlers(nil, nil, func(*corev1.Node) { sweep() }))
	if err != nil {
		return nil, fmt.Errorf("pod garbage collector: watch nodes: %w", err)
	}
	c.synced = []cache.DoneChecker{onPods.HasSyncedChecker(), onNodes.HasSyncedChecker()}
	return c, nil
}

// Name returns the controller's name.
func (c *Controller) Name() string { return Name }

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	c.loop.Add(sweepKey)
	return c.loop.Run(ctx, 1, c.synced...)
}

// suspicious says whether a Pod just seen calls for a sweep.
func (c *Controller) suspicious(p *corev1.Pod) bool {
	if unboundDeletion(p) {
		return true
	}
	if p.Spec.NodeName == "" {
		return false
	}
	_, err := c.nodes.Get(p.Spec.NodeName)
	return err != nil
}

func unboundDeletion(p *corev1.Pod) bool { return p.DeletionTimestamp != nil && p.Spec.NodeName == "" }

// verdict is what one sweep decides.
type verdict struct {
	// orphaned are Pods of nodes that are missing for long enough; their nodes are to be confirmed missing first.
	orphaned []*corev1.Pod
	// unbound are Pods that were deleted before they had a node.
	unbound []*corev1.Pod
	// surplus are ended Pods beyond the threshold, oldest first.
	surplus []*corev1.Pod
	// again is when the next node has been missing for long enough; zero for never.
	again time.Duration
}

// decide looks at all Pods. exists tells whether a node does; missing is since when nodes are not there and is kept up to date.
func decide(all []*corev1.Pod, exists func(node string) bool, missing map[string]time.Time, threshold int, now time.Time) verdict {
	var v verdict
	var ended []*corev1.Pod
	still := map[string]bool{}
	for _, p := range all {
		node := p.Spec.NodeName
		switch {
		case unboundDeletion(p):
			v.unbound = append(v.unbound, p)
			continue
		case node != "" && !exists(node):
			still[node] = true
			since, ok := missing[node]
			if !ok {
				since = now
				missing[node] = now
			}
			if left := since.Add(Quarantine).Sub(now); left > 0 {
				if v.again == 0 || left < v.again {
					v.again = left
				}
			} else {
				v.orphaned = append(v.orphaned, p)
				continue
			}
		}
		if pods.Ended(p) {
			ended = append(ended, p)
		}
	}
	for node := range missing {
		if !still[node] {
			delete(missing, node)
		}
	}
	if threshold > 0 && len(ended) > threshold {
		slices.SortFunc(ended, func(a, b *corev1.Pod) int {
			return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
		})
		v.surplus = ended[:len(ended)-threshold]
	}
	return v
}

func (c *Controller) sweep(ctx context.Context, _ string) error {
	all, err := c.pods.List(labels.Everything())
	if err != nil {
		return err
	}
	exists := func(node string) bool {
		_, err := c.nodes.Get(node)
		return err == nil
	}
	v := decide(all, exists, c.missing, c.threshold, c.clock.Now())
	var errs []error
	confirmed := map[string]bool{}
	for _, p := range v.orphaned {
		node := p.Spec.NodeName
		gone, asked := confirmed[node]
		if !asked {
			_, err := c.client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
			gone = apierrors.IsNotFound(err)
			confirmed[node] = gone
			if err != nil && !gone {
				errs = append(errs, fmt.Errorf("look for node %s: %w", node, err))
			}
		}
		if gone {
			errs = append(errs, c.remove(ctx, p, "PodGC: node no longer exists"))
		}
	}
	for _, p := range v.unbound {
		errs = append(errs, c.remove(ctx, p, ""))
	}
	for _, p := range v.surplus {
		errs = append(errs, c.remove(ctx, p, ""))
	}
	if v.again > 0 {
		c.loop.AddAfter(sweepKey, v.again)
	}
	return errors.Join(errs...)
}

// remove deletes a Pod at once. With a reason, a Pod that has not ended is first marked failed, so that whoever owns it learns why.
func (c *Controller) remove(ctx context.Context, p *corev1.Pod, why string) error {
	c.log.Info("deleting a pod", "namespace", p.Namespace, "pod", p.Name, "node", p.Spec.NodeName, "phase", string(p.Status.Phase), "why", why)
	if !pods.Ended(p) && why != "" {
		if err := c.fail(ctx, p, why); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("mark pod %s/%s failed: %w", p.Namespace, p.Name, err)
		}
	}
	now := int64(0)
	options := metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: metav1.NewUIDPreconditions(string(p.UID))}
	err := c.client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, options)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}

func (c *Controller) fail(ctx context.Context, p *corev1.Pod, why string) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		fresh, err := c.client.CoreV1().Pods(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
		if err != nil || fresh.UID != p.UID || pods.Ended(fresh) {
			return err
		}
		fresh.Status.Phase = corev1.PodFailed
		pods.SetCondition(&fresh.Status, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByPodGC", Message: why,
			ObservedGeneration: fresh.Generation, LastTransitionTime: metav1.NewTime(c.clock.Now()),
		})
		_, err = c.client.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, fresh, metav1.UpdateOptions{})
		return err
	})
}
