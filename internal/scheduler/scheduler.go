// Package scheduler finds a node for each Pod that has none, and binds it there through the pods/binding subresource.
//
// Choose is a pure function of a Pod and a Snapshot: filters, then scores, with Kubernetes' reasons, words and weights. Around it is one
// loop: informer events put Pods into a queue and wake those that did not fit; nothing polls. Pods that are bound, or about to be, count as using
// their node, however they got there.
//
// It knows the API only through client-go and imports nothing of the project. Preemption (removing Pods of lower priority) is not done.
package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
)

// maxBinds is how many bindings may be under way at once.
const maxBinds = 16

// Config is what a Scheduler needs. Only Clock may be left out.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Recorder  record.EventRecorder
	Log       *slog.Logger
	Clock     clock.Clock
}

// Scheduler gives nodes to Pods.
type Scheduler struct {
	cfg        Config
	queue      *queue
	pods       corelisters.PodLister
	nodes      corelisters.NodeLister
	namespaces corelisters.NamespaceLister
	volumes    *volumes
	synced     []cache.InformerSynced

	// weights are those of the last snapshot's Pods. They are Run's own: objects of informers never change, so each is weighed once.
	weights map[*corev1.Pod]weight

	mu      sync.Mutex // guards assumed
	assumed map[types.UID]*corev1.Pod
}

// New makes a Scheduler and registers with the informers, which the caller starts.
func New(cfg Config) (*Scheduler, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Recorder == nil || cfg.Log == nil {
		return nil, errors.New("scheduler: Client, Informers, Recorder and Log are needed")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	core := cfg.Informers.Core().V1()
	s := &Scheduler{
		cfg: cfg, queue: newQueue(cfg.Clock), pods: core.Pods().Lister(), nodes: core.Nodes().Lister(),
		namespaces: core.Namespaces().Lister(), assumed: map[types.UID]*corev1.Pod{},
	}
	var more map[cache.SharedIndexInformer]cache.ResourceEventHandler
	s.volumes, more = newVolumes(cfg.Informers, func() { s.queue.wake(usesClaims) })
	type listening struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}
	all := []listening{
		{core.Pods().Informer(), cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { s.podChanged(nil, obj.(*corev1.Pod)) },
			UpdateFunc: func(old, obj any) { s.podChanged(old.(*corev1.Pod), obj.(*corev1.Pod)) },
			DeleteFunc: s.podGone,
		}},
		{core.Nodes().Informer(), cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { s.queue.wake(nil) },
			UpdateFunc: func(old, obj any) { s.nodeChanged(old.(*corev1.Node), obj.(*corev1.Node)) },
		}},
		{core.Namespaces().Informer(), cache.ResourceEventHandlerFuncs{}},
	}
	for informer, handler := range more {
		all = append(all, listening{informer, handler})
	}
	for _, h := range all {
		reg, err := h.informer.AddEventHandler(h.handler)
		if err != nil {
			return nil, fmt.Errorf("scheduler: %w", err)
		}
		s.synced = append(s.synced, reg.HasSynced)
	}
	return s, nil
}

// Run schedules until ctx ends, and waits for the bindings under way.
func (s *Scheduler) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), s.synced...) {
		return nil // stopped while starting
	}
	var binds sync.WaitGroup
	defer binds.Wait()
	slots := make(chan struct{}, maxBinds)
	for {
		it, moves, ok := s.queue.next(ctx)
		if !ok {
			return nil
		}
		node, volumes, err := s.place(it.pod)
		if err != nil {
			s.fail(ctx, it, moves, err)
			continue
		}
		if len(volumes.static)+len(volumes.dynamic) > 0 { // which may take long, and holds nobody up
			binds.Go(func() {
				if s.prepare(ctx, it, moves, node, volumes) {
					s.bind(ctx, it, moves, node)
				}
			})
			continue
		}
		slots <- struct{}{}
		binds.Go(func() {
			defer func() { <-slots }()
			s.bind(ctx, it, moves, node)
		})
	}
}

// place chooses a node and takes the room and the volumes there at once, so that the next Pod sees them taken.
func (s *Scheduler) place(pod *corev1.Pod) (string, bindings, error) {
	snapshot, err := s.snapshot()
	if err != nil {
		return "", bindings{}, err
	}
	if usesClaims(pod) {
		if snapshot.Storage, err = s.volumes.storage(); err != nil {
			return "", bindings{}, err
		}
	}
	node, volumes, err := choose(pod, snapshot)
	if err != nil {
		return "", bindings{}, err
	}
	s.volumes.assume(volumes, node)
	placed := pod.DeepCopy()
	placed.Spec.NodeName = node
	s.mu.Lock()
	defer s.mu.Unlock()
	s.assumed[pod.UID] = placed
	return node, volumes, nil
}

// prepare sees to the Pod's volumes before it is bound. False: it is not to be bound now.
func (s *Scheduler) prepare(ctx context.Context, it *item, moves int, node string, b bindings) bool {
	pod := it.pod
	err := s.bindVolumes(ctx, b, node, func() error {
		current, err := s.pods.Pods(pod.Namespace).Get(pod.Name)
		if err != nil || current.UID != pod.UID || current.DeletionTimestamp != nil {
			return errors.New("pod does not exist any more")
		}
		return nil
	})
	s.volumes.release(b)
	if err == nil {
		return true
	}
	s.forget(pod.UID)
	s.queue.wake(usesClaims)
	s.fail(ctx, it, moves, fmt.Errorf("binding volumes: %w", err))
	return false
}

func (s *Scheduler) snapshot() (*Snapshot, error) {
	nodes, err := s.nodes.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	listed, err := s.pods.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	namespaces, err := s.namespaces.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	pods := make([]*corev1.Pod, 0, len(listed))
	for _, p := range listed {
		if p.Spec.NodeName == "" {
			if p = s.assumed[p.UID]; p == nil {
				continue
			}
		}
		pods = append(pods, p)
	}
	known := s.weights
	s.weights = make(map[*corev1.Pod]weight, len(pods))
	return newSnapshot(nodes, pods, namespaces, func(p *corev1.Pod) weight {
		w, ok := known[p]
		if !ok {
			w = weigh(p)
		}
		s.weights[p] = w
		return w
	}), nil
}

func (s *Scheduler) forget(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.assumed, uid)
}

func (s *Scheduler) bind(ctx context.Context, it *item, moves int, node string) {
	pod := it.pod
	err := s.cfg.Client.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
	switch {
	case err == nil:
		s.cfg.Log.Debug("Pod bound", "pod", pod.Namespace+"/"+pod.Name, "node", node)
		s.cfg.Recorder.Eventf(pod, corev1.EventTypeNormal, "Scheduled", "Successfully assigned %v/%v to %v", pod.Namespace, pod.Name, node)
	case apierrors.IsNotFound(err), ctx.Err() != nil:
		s.forget(pod.UID)
	default:
		s.forget(pod.UID)
		if current, getErr := s.pods.Pods(pod.Namespace).Get(pod.Name); getErr == nil && current.Spec.NodeName != "" {
			return // somebody else bound it
		}
		s.fail(ctx, it, moves, fmt.Errorf("binding rejected: %w", err))
	}
}

// fail tells why the Pod has no node, as event and condition, and queues it again.
func (s *Scheduler) fail(ctx context.Context, it *item, moves int, cause error) {
	pod := it.pod
	current, err := s.pods.Pods(pod.Namespace).Get(pod.Name)
	if err != nil || current.UID != pod.UID || !waits(current) {
		return // gone or bound meanwhile
	}
	var u *Unschedulable
	fits := errors.As(cause, &u)
	reason := corev1.PodReasonUnschedulable
	if !fits {
		reason = corev1.PodReasonSchedulerError
		s.cfg.Log.Error("Scheduling failed", "pod", pod.Namespace+"/"+pod.Name, "err", cause)
	}
	s.queue.back(it, moves, !fits)
	s.cfg.Recorder.Event(current, corev1.EventTypeWarning, "FailedScheduling", cause.Error())
	if err := s.condition(ctx, current, reason, cause.Error()); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		s.cfg.Log.Warn("Writing a Pod's condition failed", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	}
}

func (s *Scheduler) condition(ctx context.Context, pod *corev1.Pod, reason, message string) error {
	want := corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: reason, Message: message,
		ObservedGeneration: pod.Generation, LastTransitionTime: metav1.NewTime(s.cfg.Clock.Now()),
	}
	for _, have := range pod.Status.Conditions {
		if have.Type != corev1.PodScheduled {
			continue
		}
		if have.Status == want.Status {
			want.LastTransitionTime = have.LastTransitionTime
		}
		want.LastProbeTime = have.LastProbeTime
		if apiequality.Semantic.DeepEqual(have, want) {
			return nil
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID}, // never another Pod of the same name
		"status":   map[string]any{"conditions": []corev1.PodCondition{want}},
	})
	if err != nil {
		return err
	}
	_, err = s.cfg.Client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// waits says whether the Pod is ours to place now.
func waits(p *corev1.Pod) bool {
	return p.Spec.NodeName == "" && p.DeletionTimestamp == nil && !ended(p) && len(p.Spec.SchedulingGates) == 0 &&
		(p.Spec.SchedulerName == "" || p.Spec.SchedulerName == corev1.DefaultSchedulerName)
}

func (s *Scheduler) podChanged(old, pod *corev1.Pod) {
	if waits(pod) {
		changed := old != nil &&
			(!apiequality.Semantic.DeepEqual(old.Spec, pod.Spec) || !apiequality.Semantic.DeepEqual(old.Labels, pod.Labels))
		if old == nil || changed || !waits(old) {
			s.mu.Lock()
			_, placed := s.assumed[pod.UID]
			s.mu.Unlock()
			if !placed {
				s.queue.put(pod, changed)
			}
		}
		return
	}
	s.queue.remove(pod.UID)
	if pod.Spec.NodeName == "" {
		return
	}
	s.forget(pod.UID)
	switch {
	case old != nil && !ended(old) && ended(pod), old != nil && !apiequality.Semantic.DeepEqual(old.Labels, pod.Labels):
		s.queue.wake(nil)
	case old == nil || old.Spec.NodeName == "":
		s.queue.wake(looksAtPods)
	}
}

// looksAtPods says whether one more Pod somewhere may make room for this one.
func looksAtPods(p *corev1.Pod) bool {
	return len(p.Spec.TopologySpreadConstraints) > 0 || (p.Spec.Affinity != nil && p.Spec.Affinity.PodAffinity != nil)
}

func (s *Scheduler) podGone(obj any) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	s.queue.remove(pod.UID)
	s.forget(pod.UID)
	s.volumes.signal()
	if !ended(pod) {
		s.queue.wake(nil)
	}
}

// nodeChanged wakes on what scheduling looks at; heartbeats change none of it.
func (s *Scheduler) nodeChanged(old, node *corev1.Node) {
	if !apiequality.Semantic.DeepEqual(old.Labels, node.Labels) || !apiequality.Semantic.DeepEqual(old.Spec, node.Spec) ||
		!apiequality.Semantic.DeepEqual(old.Status.Allocatable, node.Status.Allocatable) {
		s.queue.wake(nil)
	}
}
