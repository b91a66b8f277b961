package runtime

import (
	"fmt"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/failpoint"
	"carob.dev/carob/internal/runtime/shim"
	"carob.dev/carob/internal/runtime/shim/wire"
	"carob.dev/carob/internal/sys"
)

// Reasons for ends that nobody saw, as a container's status tells them.
const (
	reasonUnknown     = "Unknown"
	reasonShimDied    = "ShimDied"
	reasonShimVersion = "ShimVersion"
)

// unknownExit is the exit code of a container whose end nobody saw.
const unknownExit = 255

// heard takes a shim's report. It may be told the same thing again after a restart.
func (r *Runtime) heard(sb *sandbox, f wire.Frame) {
	switch f.Op {
	case wire.OpExit, wire.OpState:
		r.mu.Lock()
		c := r.containers[f.ID]
		r.mu.Unlock()
		if c != nil {
			r.containerIs(c, f)
			return
		}
		r.execEnded(f)
	case wire.OpDetach:
		r.sessionEnded(f.ID)
	case wire.OpPause:
		r.pauseEnded(sb)
	}
}

// containerIs notes a container's state as the shim tells it.
func (r *Runtime) containerIs(c *container, f wire.Frame) {
	r.mu.Lock()
	if c.rec.State == runtimeapi.ContainerState_CONTAINER_EXITED || f.Pid == 0 {
		r.mu.Unlock()
		return
	}
	began := c.rec.State == runtimeapi.ContainerState_CONTAINER_CREATED
	c.rec.PID = f.Pid
	c.rec.StartedAt = int64(f.Started)
	c.rec.State = runtimeapi.ContainerState_CONTAINER_RUNNING
	ended := f.Exited != 0
	if ended {
		c.rec.finish(int64(f.Ended), int32(f.Code), exitReason(f), "")
	}
	rec := c.rec
	r.mu.Unlock()
	if began || ended {
		failpoint.Hit("runtime/container/heard")
		if err := r.keepContainer(c); err != nil {
			r.cfg.Log.Error("keep the state of a container", "container", rec.ID, "error", err)
		}
	}
	failpoint.Hit("runtime/container/kept")
	if began {
		r.started(rec.ID)
		r.tell(runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, rec.ID, c.sb)
	}
	if ended {
		close(c.exited)
		r.tell(runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, rec.ID, c.sb)
	}
}

func (rec *containerRecord) finish(at int64, code int32, reason, message string) {
	rec.State = runtimeapi.ContainerState_CONTAINER_EXITED
	rec.FinishedAt, rec.ExitCode, rec.Reason, rec.Message, rec.PID = at, code, reason, message, 0
}

func exitReason(f wire.Frame) string {
	switch {
	case f.OOM != 0:
		return "OOMKilled"
	case f.Code == 0:
		return "Completed"
	}
	return "Error"
}

// pauseEnded marks the sandbox as not ready, at once. Its containers are the agent's to end.
func (r *Runtime) pauseEnded(sb *sandbox) {
	r.mu.Lock()
	was := sb.rec.Ready && !sb.stopping
	sb.rec.Ready, sb.dead = false, true
	rec := sb.rec
	r.mu.Unlock()
	r.warm.poke() // it may have been one of them
	if !was {
		return
	}
	if err := r.keepSandbox(sb); err != nil {
		r.cfg.Log.Error("keep the state of a sandbox", "sandbox", rec.ID, "error", err)
	}
	r.tell(runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, rec.ID, sb)
}

// lost is called when a shim's connection ends. If nobody asked for that the shim has died, and pause with it: what is left of the
// Pod is killed, and its containers' ends are read from the shim's notes or else unknown.
func (r *Runtime) lost(sb *sandbox) {
	r.mu.Lock()
	expected := sb.ending || r.closed
	r.mu.Unlock()
	if expected {
		return
	}
	r.cfg.Log.Warn("the shim of a Pod has died; its containers are killed", "sandbox", sb.rec.ID)
	r.mourn(sb, reasonShimDied, "the process that holds the Pod (carob-shim) died; what ran in the Pod was killed")
}

// disown ends a Pod whose shim speaks a version of the protocol that this build does not: it could be neither stopped nor heard.
func (r *Runtime) disown(sb *sandbox, client *shim.Client, version int) {
	r.cfg.Log.Warn("the shim of a Pod speaks another version of the protocol; the Pod is ended", "sandbox", sb.rec.ID, "version", version)
	client.Close()
	r.mourn(sb, reasonShimVersion, fmt.Sprintf("the process that holds the Pod (carob-shim) speaks version %d of its protocol, and this carob version %d; "+
		"what ran in the Pod was killed", version, wire.Version))
}

// mourn kills what is left of a Pod without a shim to speak to.
func (r *Runtime) mourn(sb *sandbox, reason, why string) {
	// An OCI runtime that is at work would make a container that nobody knows.
	if err := sys.CgroupKillAll(r.cfg.shimCgroup(sb.rec.ID)); err != nil {
		r.cfg.Log.Error("kill what a lost shim started", "sandbox", sb.rec.ID, "error", err)
	}
	r.readFacts(sb)
	r.mu.Lock()
	sb.client = nil
	containers := r.containersOf(sb)
	r.mu.Unlock()
	for _, c := range containers {
		r.mu.Lock()
		state := c.rec.State
		cgroup, id := c.rec.Cgroup, c.rec.ID
		r.mu.Unlock()
		if state == runtimeapi.ContainerState_CONTAINER_EXITED {
			continue
		}
		if err := sys.CgroupKillAll(cgroup); err != nil {
			r.cfg.Log.Error("kill a container of a lost Pod", "container", id, "error", err)
		}
		if state == runtimeapi.ContainerState_CONTAINER_RUNNING {
			r.endUnseen(c, reason, why)
		}
	}
	r.pauseEnded(sb)
}

// endUnseen ends a container on paper.
func (r *Runtime) endUnseen(c *container, reason, why string) {
	r.mu.Lock()
	if c.rec.State == runtimeapi.ContainerState_CONTAINER_EXITED {
		r.mu.Unlock()
		return
	}
	c.rec.finish(r.cfg.Clock.Now().UnixNano(), unknownExit, reason, why)
	rec := c.rec
	r.mu.Unlock()
	if err := r.keepContainer(c); err != nil {
		r.cfg.Log.Error("keep the state of a container", "container", rec.ID, "error", err)
	}
	close(c.exited)
	r.tell(runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, rec.ID, c.sb)
}

// within says whether a channel closes in time.
func (r *Runtime) within(ch <-chan struct{}, d time.Duration, done <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
	}
	t := r.cfg.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-ch:
		return true
	case <-t.C():
	case <-done:
	}
	return false
}
