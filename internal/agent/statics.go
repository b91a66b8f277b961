package agent

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/agent/podstate"
	"carob.dev/carob/internal/agent/static"
)

// statics are the static Pods that are to run, and what the API shows of them.
type statics struct {
	source *static.Source
	// again gets a value when one may be started, or a mirror removed, that had to wait.
	again chan struct{}

	starting sync.Mutex // held while Pods are started: one after the other

	mu sync.Mutex // guards the rest
	// want are the Pods that are to run, mirrors those in the API, by namespace and name.
	want, mirrors map[string]*corev1.Pod
}

func fullName(pod *corev1.Pod) string { return pod.Namespace + "/" + pod.Name }

// followStatics reads the static Pods, starts those that are to run, and follows the sources until ctx ends. records and known are what is
// left of Pods; those of static Pods are taken out.
func (a *Agent) followStatics(ctx context.Context, l left) {
	a.statics.take(a.statics.source.Read(ctx))
	a.startStatics(ctx, l)
	a.wg.Go(func() {
		err := a.statics.source.Run(ctx, func(pods []*corev1.Pod) {
			a.statics.take(pods)
			a.startStatics(ctx, left{})
		})
		if err != nil && ctx.Err() == nil {
			a.cfg.Log.Error("static Pods are not followed any more", "error", err)
		}
	})
	a.wg.Go(func() {
		timer := a.cfg.Clock.NewTimer(time.Hour)
		timer.Stop()
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-a.statics.again:
			case <-timer.C():
			}
			a.startStatics(ctx, left{})
			if !a.removeMirrors(ctx) {
				timer.Reset(10 * time.Second)
			}
		}
	})
}

func (s *statics) take(pods []*corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want = map[string]*corev1.Pod{}
	for _, p := range pods {
		s.want[fullName(p)] = p
	}
}

// poke has what waits be looked at again.
func (s *statics) poke() {
	select {
	case s.again <- struct{}{}:
	default:
	}
}

func (s *statics) mirror(name string) *corev1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mirrors[name]
}

// wanted is a copy.
func (s *statics) wanted() map[string]*corev1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.want)
}

// startStatics starts those Pods that are to run and do not, and ends those that run and are not to. One that takes another's name waits for its end.
func (a *Agent) startStatics(ctx context.Context, l left) {
	a.statics.starting.Lock()
	defer a.statics.starting.Unlock()
	want := a.statics.wanted()
	running := map[string]*worker{}
	a.mu.Lock()
	for _, w := range a.workers {
		if w.static {
			running[w.namespace+"/"+w.name] = w
		}
	}
	a.mu.Unlock()
	for name, w := range running {
		if p := want[name]; p == nil || p.UID != w.uid {
			w.post(w.withdraw)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if p := want[name]; running[name] == nil {
			a.start(ctx, p, l.records[p.UID], l.known[p.UID], l.known != nil)
			delete(l.records, p.UID)
			delete(l.known, p.UID)
		}
	}
}

// withdraw ends a static Pod whose manifest is gone, as a Pod that is deleted.
func (w *worker) withdraw() {
	if w.pod.DeletionTimestamp != nil {
		return
	}
	p := w.asked.DeepCopy()
	now, grace := metav1.NewTime(w.a.cfg.Clock.Now()), int64(podstate.Grace(p)/time.Second)
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &grace
	w.update(p)
}

// mirrorChanged takes over what the API has of a mirror; gone says that it is there no more.
func (a *Agent) mirrorChanged(m *corev1.Pod, gone bool) {
	name, s := fullName(m), a.statics
	s.mu.Lock()
	if old := s.mirrors[name]; gone && uidOf(old) == m.UID {
		delete(s.mirrors, name)
	} else if !gone {
		s.mirrors[name] = m
	}
	now, wanted := s.mirrors[name], s.want[name] != nil
	s.mu.Unlock()
	if !wanted {
		s.poke()
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.workers {
		if w.static && w.namespace == m.Namespace && w.name == m.Name {
			w.post(func() { w.mirrored(now) })
		}
	}
}

// removeMirrors removes those of Pods that are not to run and do not, and says whether it could.
func (a *Agent) removeMirrors(ctx context.Context) bool {
	a.mu.Lock()
	running := map[string]bool{}
	for _, w := range a.workers {
		running[w.namespace+"/"+w.name] = w.static
	}
	a.mu.Unlock()
	a.statics.mu.Lock()
	var list []*corev1.Pod
	for name, m := range a.statics.mirrors {
		if a.statics.want[name] == nil && !running[name] {
			list = append(list, m)
		}
	}
	a.statics.mu.Unlock()
	ok := true
	for _, m := range list {
		if err := a.removeMirror(ctx, m); err != nil {
			a.cfg.Log.Info("remove the mirror of a static Pod that is gone", "pod", fullName(m), "error", err)
			ok = false
		}
	}
	return ok
}

// left is what is left of Pods on the node: their records, and their sandboxes.
type left struct {
	records map[types.UID]*podstate.Facts
	known   map[types.UID][]*runtimeapi.PodSandboxStatusResponse
}
