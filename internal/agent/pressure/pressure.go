// Package pressure watches what the node has left of memory, disk and processes, and ends Pods when that is too little, or when they keep more on
// the disk than they may. What to do is decided by agent/eviction.
//
// It may import agent/eviction, agent/measure, agent/podstate, client-go's recorder and cri-api. It looks every ten seconds, which costs three
// small files and two statfs (0.1 ms), and a walk over the files of those Pods alone that have a limit of disk; the kernel wakes it besides when
// memory runs short. All files are looked at only when Pods have to be put in an order.
package pressure

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/agent/eviction"
	"carob.dev/carob/internal/agent/measure"
	"carob.dev/carob/internal/agent/podstate"
	podrule "carob.dev/carob/internal/api/pod"
)

const (
	lookEvery = 10 * time.Second
	// hardGrace is how long a Pod has to end that is ended at once.
	hardGrace = time.Second
	// cleanupPatience is how long the next look waits for a Pod that is being ended.
	cleanupPatience = 30 * time.Second
)

// Policy says when too little is left, and how Pods end then.
type Policy struct {
	Thresholds []eviction.Threshold
	// Implied says that nobody has chosen the thresholds. Those of a disk for images hold only where there is one then.
	Implied bool
	// Transition is how long a condition stays at least.
	Transition time.Duration
	// MaxGrace is the most that a Pod gets to end when a soft threshold is not kept.
	MaxGrace time.Duration
}

// Meter measures: package measure.
type Meter interface {
	Node(ctx context.Context) (stats.NodeStats, error)
	Summary(ctx context.Context, pods []measure.Pod) (stats.Summary, time.Duration, error)
	Ephemeral(ctx context.Context, pod measure.Pod) measure.Ephemeral
	// OneDisk says that the images are on the disk that Pods write to.
	OneDisk(ctx context.Context) bool
}

// Config is what a Watcher needs. All must be set.
type Config struct {
	Policy Policy
	Meter  Meter
	// Pods are those that run.
	Pods func() []measure.Pod
	// End ends a Pod. The channel is closed once nothing of it runs; nil for a Pod that is not there any more.
	End func(types.UID, podstate.End) <-chan struct{}
	// Free removes containers and images that nobody uses.
	Free func(context.Context) error
	// Changed is called when the node's conditions have changed.
	Changed func()
	// Recorder writes events about Node.
	Recorder record.EventRecorder
	Node     *corev1.ObjectReference
	Log      *slog.Logger
	Clock    clock.Clock
}

// Watcher watches one node.
type Watcher struct {
	cfg        Config
	state      eviction.State
	conditions atomic.Pointer[[]corev1.NodeConditionType]
	oneDisk    bool
}

// New returns a Watcher that does nothing before Run.
func New(cfg Config) *Watcher {
	w := &Watcher{cfg: cfg}
	w.conditions.Store(&[]corev1.NodeConditionType{})
	return w
}

// Conditions are those of the node that tell of pressure. They are not to be changed.
func (w *Watcher) Conditions() []corev1.NodeConditionType { return *w.conditions.Load() }

// begin finds out what disks there are.
func (w *Watcher) begin(ctx context.Context) {
	if w.oneDisk = w.cfg.Meter.OneDisk(ctx); w.oneDisk && w.cfg.Policy.Implied {
		w.cfg.Policy.Thresholds = slices.DeleteFunc(slices.Clone(w.cfg.Policy.Thresholds), func(t eviction.Threshold) bool {
			return t.Signal == eviction.ImageFsAvailable || t.Signal == eviction.ImageFsInodesFree
		})
	}
}

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	w.begin(ctx)
	short, stop := memoryShort(w.cfg.Log)
	defer stop()
	for {
		if ended := w.look(ctx); ended != nil && ctx.Err() == nil {
			w.wait(ctx, ended)
			continue // one Pod may not have been enough
		}
		timer := w.cfg.Clock.NewTimer(lookEvery)
		select {
		case <-timer.C():
		case <-short:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (w *Watcher) wait(ctx context.Context, ended []<-chan struct{}) {
	timer := w.cfg.Clock.NewTimer(cleanupPatience)
	defer timer.Stop()
	for _, c := range ended {
		select {
		case <-c:
		case <-timer.C():
			w.cfg.Log.Warn("a Pod that was evicted does not end")
			return
		case <-ctx.Done():
			return
		}
	}
}

// look looks once, and returns the ends of the Pods that it has asked to end.
func (w *Watcher) look(ctx context.Context) []<-chan struct{} {
	n, err := w.cfg.Meter.Node(ctx)
	if err != nil {
		w.cfg.Log.Warn("measure what the node has left", "error", err)
		return nil
	}
	o := eviction.Observe(n)
	v := w.state.Look(w.cfg.Policy.Thresholds, o, w.cfg.Policy.Transition, w.cfg.Clock.Now())
	if !slices.Equal(v.Conditions, w.Conditions()) {
		w.cfg.Log.Warn("the node's pressure has changed", "conditions", v.Conditions, "left", o)
		w.conditions.Store(&v.Conditions)
		w.cfg.Changed()
	}
	pods := w.cfg.Pods()
	if ended := w.endOver(ctx, pods); len(ended) > 0 {
		return ended
	}
	if len(v.Due) == 0 {
		return nil
	}
	what := v.Due[0].Signal.Resource()
	w.cfg.Recorder.Eventf(w.cfg.Node, corev1.EventTypeWarning, "EvictionThresholdMet", "Attempting to reclaim %s", what)
	if v.Due[0].Signal.Condition() == corev1.NodeDiskPressure && w.freed(ctx) {
		return nil
	}
	return w.endOne(ctx, v, o, pods)
}

// endOver ends Pods that have gone beyond a limit of their own.
func (w *Watcher) endOver(ctx context.Context, pods []measure.Pod) []<-chan struct{} {
	var ended []<-chan struct{}
	for _, p := range pods {
		if !eviction.Limited(p.Pod) {
			continue
		}
		e := w.cfg.Meter.Ephemeral(ctx, p)
		have := eviction.Stored{Containers: signed(e.Containers), EmptyDirs: signed(e.EmptyDirs), Total: int64(e.Total())}
		if message := eviction.Over(p.Pod, have); message != "" {
			if c := w.end(p, message, nil, hardGrace, false); c != nil {
				ended = append(ended, c)
			}
		}
	}
	return ended
}

func signed(m map[string]uint64) map[string]int64 {
	out := make(map[string]int64, len(m))
	for k, n := range m {
		out[k] = int64(n)
	}
	return out
}

// freed removes what nobody uses and says whether that was enough.
func (w *Watcher) freed(ctx context.Context) bool {
	if err := w.cfg.Free(ctx); err != nil {
		w.cfg.Log.Warn("free disk", "error", err)
	}
	n, err := w.cfg.Meter.Node(ctx)
	return err == nil && eviction.Enough(w.cfg.Policy.Thresholds, eviction.Observe(n))
}

// endOne ends the Pod that is the first to go.
func (w *Watcher) endOne(ctx context.Context, v eviction.Verdict, o eviction.Observations, pods []measure.Pod) []<-chan struct{} {
	sum, _, err := w.cfg.Meter.Summary(ctx, pods)
	if err != nil {
		w.cfg.Log.Warn("measure the Pods", "error", err)
		return nil
	}
	var list []eviction.Candidate
	byUID := map[types.UID]measure.Pod{}
	for _, p := range pods {
		c := eviction.Candidate{Pod: p.Pod}
		for i := range sum.Pods {
			if sum.Pods[i].PodRef.UID == string(p.Pod.UID) {
				c.Stats = &sum.Pods[i]
			}
		}
		byUID[p.Pod.UID] = p
		list = append(list, c)
	}
	t := v.Due[0]
	eviction.Rank(t.Signal, list, !w.oneDisk)
	for _, c := range list {
		if podrule.Critical(c.Pod) {
			continue
		}
		grace := hardGrace
		if t.Soft {
			grace = min(w.cfg.Policy.MaxGrace, podstate.Grace(c.Pod))
		}
		message, notes := eviction.Message(v.Due, o, c)
		if end := w.end(byUID[c.Pod.UID], message, notes, grace, true); end != nil {
			return []<-chan struct{}{end}
		}
	}
	w.cfg.Log.Warn("too little is left, and there is no Pod to end", "signal", t.Signal)
	return nil
}

func (w *Watcher) end(p measure.Pod, message string, notes map[string]string, grace time.Duration, disrupted bool) <-chan struct{} {
	if podrule.Critical(p.Pod) {
		return nil
	}
	c := w.cfg.End(p.Pod.UID, podstate.End{Reason: eviction.Reason, Message: message, Grace: &grace, Disrupted: disrupted})
	if c != nil {
		w.cfg.Log.Warn("evict a Pod", "pod", p.Pod.Namespace+"/"+p.Pod.Name, "message", message)
		w.cfg.Recorder.AnnotatedEventf(p.Pod, notes, corev1.EventTypeWarning, eviction.Reason, "%s", message)
	}
	return c
}
