package agent

import (
	"path"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"carob.dev/carob/internal/agent/podstate"
	"carob.dev/carob/internal/sys"
)

// MemoryWatch tells of processes that the kernel kills for want of memory: sys.OOMWatch.
type MemoryWatch interface {
	// Add returns how many were killed already.
	Add(name, cgroup string) (kills uint64, err error)
	Remove(name string)
	Run(killed func(name string))
	Close()
}

// watchMemory hears of the containers' memory until the returned function is called.
func (a *Agent) watchMemory() (end func()) {
	if a.cfg.Memory == nil {
		return func() {}
	}
	a.wg.Go(func() { a.cfg.Memory.Run(a.outOfMemory) })
	return a.cfg.Memory.Close
}

// outOfMemory passes on that a process of a container was killed.
func (a *Agent) outOfMemory(name string) {
	uid, id, _ := strings.Cut(name, "/")
	if w := a.worker(types.UID(uid)); w != nil {
		w.post(func() { w.killed[id] = a.cfg.Clock.Now().Add(killedPause) })
	}
}

// killedPause is how long it may take until a container whose first process was killed is known to have ended.
const killedPause = time.Second

// followMemory has the memory of a container watched that runs since started.
func (w *worker) followMemory(id string, started time.Time) {
	m := w.a.cfg.Memory
	if m == nil {
		return
	}
	leaf := id
	if w.a.cfg.CgroupNames.Systemd {
		leaf = sys.ContainerScope(id)
	}
	kills, err := m.Add(memoryName(w.pod.UID, id), path.Join(w.a.cfg.CgroupNames.Pod(w.pod), leaf))
	if err != nil {
		w.log.Debug("the container's memory is not watched", "container", id, "error", err) // another runtime's cgroups have other names
	}
	if kills > 0 && started.After(w.a.began) { // before anyone looked
		w.killed[id] = w.a.cfg.Clock.Now().Add(killedPause)
	}
}

func (a *Agent) forgetMemory(pod types.UID, id string) {
	if a.cfg.Memory != nil {
		a.cfg.Memory.Remove(memoryName(pod, id))
	}
}

func memoryName(pod types.UID, id string) string { return string(pod) + "/" + id }

// tellKilled writes the event of processes that were killed while their container lives on: one that ends tells of it itself. It returns when
// to come again.
func (w *worker) tellKilled(now, next time.Time) time.Time {
	for id, at := range w.killed {
		if now.Before(at) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
			continue
		}
		delete(w.killed, id)
		if name, c := w.facts.Named(id); c != nil && c.State == podstate.Running {
			w.containerEvent(name, corev1.EventTypeWarning, "OOMKilling", "The kernel killed a process of container "+name+" for want of memory; the container lives on")
		}
	}
	return next
}
