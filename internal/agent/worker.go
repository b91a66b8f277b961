package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/agent/podstate"
	"carob.dev/carob/internal/agent/pull"
	"carob.dev/carob/internal/agent/server"
	"carob.dev/carob/internal/agent/static"
	"carob.dev/carob/internal/failpoint"
	"carob.dev/carob/internal/sys"
)

// worker makes one Pod what it should be. All fields but inbox are its own goroutine's.
type worker struct {
	a   *Agent
	log *slog.Logger

	// pod is the Pod with the resources that it was granted, asked the Pod as the API has it.
	pod, asked *corev1.Pod
	facts      *podstate.Facts
	saved      []byte
	images     map[string]pull.Result
	// volumeImages are, by container, the IDs of the images that it mounts as volumes, by volume.
	volumeImages map[string]map[string]string
	// cancels break off what is under way: by container, "" for the Pod.
	cancels map[string]context.CancelFunc
	tries   map[string]int
	probes  map[probeKey]context.CancelFunc
	status  statusWriter
	// backingOff are the containers whose back-off has been told.
	backingOff map[string]int32
	// waits is what a Pod that is past its grace period has been told to wait for.
	waits string
	// killed are the containers of which a process was killed for want of memory, each with when to look whether it lives on.
	killed     map[string]time.Time
	discarding bool
	volumes    volumeWork
	timer      clock.Timer
	done       bool
	// rejected says that the node did not take the Pod. It is fixed when the worker is made.
	rejected bool
	// preempted says that the Pod ends to make room for another, which has what it asked for. It is guarded by the agent's mu.
	preempted bool
	// rested is closed once the Pod rests, if it was asked to, restTold once the API has been told.
	rested, restTold chan struct{}
	// static says that the Pod is in no API: mirror is what the API shows of it.
	static bool
	mirror mirror
	// over are closed once nothing of a Pod that the node ends runs any more.
	over []chan struct{}
	// uid, namespace and name never change; ended is closed when run returns.
	uid             types.UID
	namespace, name string
	ended           chan struct{}
	// granted is pod, for others.
	granted atomic.Pointer[corev1.Pod]
	// view is what the server may see.
	view atomic.Pointer[server.View]

	wg    sync.WaitGroup
	inbox inbox
}

// volumeWork is what a worker knows of its Pod's volumes: an update is under way, another is wanted, and when a token wants to be renewed.
type volumeWork struct {
	busy, again bool
	refreshAt   time.Time
}

// inbox is an unbounded queue of what to do on the worker's goroutine.
type inbox struct {
	wake chan struct{}

	mu    sync.Mutex // guards queue
	queue []func()
}

func newWorker(a *Agent, pod *corev1.Pod, f *podstate.Facts) *worker {
	now := a.cfg.Clock.Now()
	w := &worker{a: a, static: static.Is(pod), uid: pod.UID, namespace: pod.Namespace, name: pod.Name, ended: make(chan struct{}),
		log: a.cfg.Log.With("pod", pod.Namespace+"/"+pod.Name, "uid", pod.UID), pod: pod, asked: pod, facts: f,
		images: map[string]pull.Result{}, volumeImages: map[string]map[string]string{},
		cancels: map[string]context.CancelFunc{}, tries: map[string]int{}, probes: map[probeKey]context.CancelFunc{}, backingOff: map[string]int32{}, killed: map[string]time.Time{},
		inbox: inbox{wake: make(chan struct{}, 1)}}
	if f == nil {
		w.facts = podstate.New(pod, now)
	}
	w.volumes.again = f != nil // labels and sources may have changed since
	w.facts.Complete(pod)
	w.pod = w.facts.Granted.In(pod)
	w.granted.Store(w.pod)
	w.facts.MaxBackoff = a.cfg.MaxRestartPeriod
	w.facts.HostIPs, w.facts.Runtime = a.hostIPs(), a.cfg.RuntimeName
	w.status.init(pod, w.facts)
	return w
}

// post has f run on the worker's goroutine, before it decides anew.
func (w *worker) post(f func()) {
	w.inbox.mu.Lock()
	w.inbox.queue = append(w.inbox.queue, f)
	w.inbox.mu.Unlock()
	select {
	case w.inbox.wake <- struct{}{}:
	default:
	}
}

// run is the worker's life: until ctx ends, or the Pod is off the node.
func (w *worker) run(ctx context.Context) {
	defer close(w.ended)
	defer w.tellOver()
	ctx, cancel := context.WithCancel(ctx)
	w.timer = w.a.cfg.Clock.NewTimer(time.Hour)
	defer w.timer.Stop()
	defer w.wg.Wait()
	defer cancel()
	if !w.facts.Gone {
		w.a.sources.Follow(w.pod)
	}
	for {
		w.step(ctx)
		if w.done {
			w.a.forget(w.pod.UID)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-w.inbox.wake:
		case <-w.timer.C():
		}
		w.inbox.mu.Lock()
		queue := w.inbox.queue
		w.inbox.queue = nil
		w.inbox.mu.Unlock()
		for _, f := range queue {
			f()
		}
	}
}

// step decides once and sets going what is to be done.
func (w *worker) step(ctx context.Context) {
	now := w.a.cfg.Clock.Now()
	had, resizing := w.facts.End, w.facts.Resizing
	w.facts.Advance(w.pod, now)
	if resizing != nil && w.facts.Resizing == nil && !podstate.Ending(w.pod, w.facts) {
		w.event(corev1.EventTypeNormal, "ResizeCompleted", resizeMessage("Pod resize completed", w.pod, resizing.Generation, ""))
		w.a.roomMade()
	}
	if had == nil && w.facts.End != nil {
		w.event(corev1.EventTypeNormal, w.facts.End.Reason, w.facts.End.Message)
	}
	status := podstate.Status(w.pod, w.facts, w.status.base(w.pod), now)
	untold := w.facts.Replacing(w.pod, now)
	if untold.IsZero() {
		w.writeStatus(ctx, status)
	}
	mirrorAt := w.syncMirror(ctx)
	d := podstate.Decide(w.pod, w.facts, now)
	for _, a := range d.Actions {
		w.facts.Begin(a)
	}
	if err := w.save(); err != nil {
		// Without the record nothing may be done: it is tried again soon.
		w.log.Error("write the Pod's record", "error", err)
		w.undo(d.Actions)
		w.sleepUntil(now.Add(time.Second), now)
		return
	}
	for _, a := range d.Actions {
		failpoint.Hit(pointOf(a.Verb) + "written")
		w.act(ctx, a)
	}
	w.discard(ctx)
	if w.volumes.again && w.facts.Prepared {
		w.updateVolumes(ctx)
	}
	w.syncProbes(ctx)
	w.tellRest()
	w.tellBackoff(d.BackingOff)
	w.tellWaits(now)
	w.publish()
	next := d.Next
	if at := w.status.retryAt; !at.IsZero() && (next.IsZero() || at.Before(next)) {
		next = at
	}
	if !mirrorAt.IsZero() && (next.IsZero() || mirrorAt.Before(next)) {
		next = mirrorAt
	}
	if !untold.IsZero() && (next.IsZero() || untold.Before(next)) {
		next = untold
	}
	if at := w.volumes.refreshAt; !at.IsZero() && !w.volumes.busy && !podstate.Ending(w.pod, w.facts) {
		if !now.Before(at) {
			w.volumes.refreshAt = time.Time{}
			w.updateVolumes(ctx)
		} else if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	w.sleepUntil(w.tellKilled(now, next), now)
}

func (w *worker) sleepUntil(at, now time.Time) {
	d := 24 * time.Hour
	if !at.IsZero() {
		d = max(at.Sub(now), 0)
	}
	w.timer.Reset(d)
}

func (w *worker) undo(actions []podstate.Action) {
	for _, a := range actions {
		if a.Verb == podstate.Cancel {
			continue
		}
		if a.Container == "" {
			w.facts.Busy = ""
		} else {
			w.facts.Containers[a.Container].Busy = ""
		}
	}
}

// save writes the record if it has changed.
func (w *worker) save() error {
	if w.done {
		return nil
	}
	raw, err := json.Marshal(w.facts)
	if err != nil {
		return fmt.Errorf("record of Pod %s: %w", w.pod.UID, err)
	}
	if bytes.Equal(raw, w.saved) {
		return nil
	}
	if err := sys.WriteFileVolatile(w.a.cfg.record(w.pod.UID), raw, 0o600); err != nil {
		return err
	}
	w.saved = raw
	return nil
}

// update takes the Pod's new object.
func (w *worker) update(pod *corev1.Pod) {
	old := w.asked
	w.asked = pod
	w.facts.Complete(pod)
	w.takeResources()
	if !w.static {
		w.status.seen(pod)
	}
	if !reflect.DeepEqual(old.Labels, pod.Labels) || !reflect.DeepEqual(old.Annotations, pod.Annotations) {
		w.volumes.again = true
	}
	if len(old.Spec.EphemeralContainers) != len(pod.Spec.EphemeralContainers) {
		w.a.sources.Follow(pod)
	}
	w.imagesChanged(old)
	if ended(pod) && !ended(old) {
		w.a.roomMade()
	}
}

// imagesChanged tries at once what waits for an image that the Pod does not ask for any more.
func (w *worker) imagesChanged(old *corev1.Pod) {
	for _, spec := range podstate.Containers(w.pod) {
		was, ok := podstate.Find(old, spec.Name)
		if c := w.facts.Containers[spec.Name]; ok && was.Image != spec.Image && c.State == podstate.Absent && c.Busy == "" {
			c.Trouble, c.ImageRef = nil, ""
			delete(w.tries, spec.Name)
		}
	}
}

// ended says that the API has the Pod as one that runs no more.
func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
}

// sourceChanged tries again what may have failed for want of a ConfigMap or Secret, and has volumes follow.
func (w *worker) sourceChanged() {
	if t := w.facts.Trouble; t != nil && w.facts.Busy == "" {
		t.RetryAt = time.Time{}
	}
	for _, c := range w.facts.Containers {
		if c.Trouble != nil && c.Busy == "" && afterPull(c.Trouble.Reason) {
			c.Trouble.RetryAt = time.Time{}
		}
	}
	w.volumes.again = true
}

// act sets an action going.
func (w *worker) act(ctx context.Context, a podstate.Action) {
	w.log.Debug("action", "verb", string(a.Verb), "container", a.Container)
	switch a.Verb {
	case podstate.Cancel:
		if cancel := w.cancels[a.Container]; cancel != nil {
			cancel()
		}
		return
	case podstate.Forget:
		w.done = true
		failpoint.Hit(pointOf(a.Verb) + "done")
		if err := os.Remove(w.a.cfg.record(w.pod.UID)); err != nil && !os.IsNotExist(err) {
			w.log.Warn("remove the Pod's record", "error", err)
		}
		return
	}
	if cancel := w.cancels[a.Container]; cancel != nil {
		cancel() // a stop that is to be quicker than the one under way
	}
	ctx, cancel := context.WithCancel(ctx)
	w.cancels[a.Container] = cancel
	do := w.operation(a)
	w.wg.Go(func() {
		report := do(ctx)
		failpoint.Hit(pointOf(a.Verb) + "done")
		superseded := a.Verb == podstate.Stop && ctx.Err() != nil
		w.post(func() {
			if superseded {
				return
			}
			if a.Container == "" {
				w.facts.Busy = ""
			} else {
				w.facts.Containers[a.Container].Busy = ""
			}
			if report != nil {
				report() // it looks at the context: whether it was broken off
			}
			cancel()
		})
	})
}

// pointOf is the first part of the names of an action's fail points: written, when it is on record that the action is about to be done, and
// done, when it is done and nothing is noted of that yet.
func pointOf(v podstate.Verb) string { return "agent/" + strings.ReplaceAll(string(v), " ", "-") + "/" }

// retry is when to try again something that has failed n times in a row: soon at first, and at most two minutes later.
func (w *worker) retry(what string) time.Time {
	n := w.tries[what]
	w.tries[what] = n + 1
	return w.a.cfg.Clock.Now().Add(min(500*time.Millisecond<<min(n, 8), 2*time.Minute))
}

// tellWaits writes the event of a Pod that is past its grace period and is not gone, once for each thing it waits for.
func (w *worker) tellWaits(now time.Time) {
	if waits := podstate.Waits(w.pod, w.facts, now); waits != w.waits {
		if w.waits = waits; waits != "" {
			w.event(corev1.EventTypeWarning, "FailedKillPod", "the Pod is past its grace period and waits for "+waits)
		}
	}
}

// tellBackoff writes the event of a container that must wait, once for each wait.
func (w *worker) tellBackoff(names []string) {
	for _, name := range names {
		c := w.facts.Containers[name]
		if w.backingOff[name] == c.Attempt+1 {
			continue
		}
		w.backingOff[name] = c.Attempt + 1
		w.containerEvent(name, corev1.EventTypeWarning, "BackOff", fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)",
			name, w.pod.Name, w.pod.Namespace, w.pod.UID))
	}
}
