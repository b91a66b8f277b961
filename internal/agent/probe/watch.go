package probe

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
)

// Kind is which of a container's probes.
type Kind string

// The kinds, as Kubernetes' events name them.
const (
	Startup   Kind = "Startup"
	Liveness  Kind = "Liveness"
	Readiness Kind = "Readiness"
)

// Watch is one probe of one running container.
type Watch struct {
	Kind   Kind
	Probe  *corev1.Probe
	Target Target
	// Started is when the container was started; the initial delay counts from there.
	Started time.Time
	// Was is what the probe said before, of the same container.
	Was *bool
	// Report is called when the probe's verdict changes, Event for what users should read of.
	Report func(ok bool)
	Event  func(reason, message string)
	// Tried is told of every attempt; it may be nil.
	Tried func(Outcome)
	Clock clock.Clock
}

// Run probes until ctx ends; a startup probe until it has passed, and a startup or liveness probe until it has failed.
func (h *Handlers) Run(ctx context.Context, w Watch) {
	period, timeout := seconds(w.Probe.PeriodSeconds, 10), seconds(w.Probe.TimeoutSeconds, 1)
	first := w.Started.Add(time.Duration(w.Probe.InitialDelaySeconds) * time.Second).Sub(w.Clock.Now())
	timer := w.Clock.NewTimer(max(first, 0))
	defer timer.Stop()
	verdict := w.Was
	var last bool
	run := int32(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C():
		}
		began := w.Clock.Now()
		o := h.Attempt(ctx, w.Probe.ProbeHandler, timeout, w.Target)
		if ctx.Err() != nil {
			return
		}
		w.tell(o)
		if o.Err != nil { // it says nothing about the container
			timer.Reset(max(began.Add(period).Sub(w.Clock.Now()), 0))
			continue
		}
		if o.OK != last {
			run = 0
		}
		last = o.OK
		run++
		enough := max(w.Probe.FailureThreshold, 1)
		if o.OK {
			enough = max(w.Probe.SuccessThreshold, 1)
		}
		if run >= enough && (verdict == nil || *verdict != o.OK) {
			ok := o.OK
			verdict = &ok
			w.Report(ok)
			if w.Kind == Startup || w.Kind == Liveness && !ok {
				return
			}
		}
		timer.Reset(max(began.Add(period).Sub(w.Clock.Now()), 0))
	}
}

func (w Watch) tell(o Outcome) {
	if w.Tried != nil {
		w.Tried(o)
	}
	switch {
	case o.Err != nil:
		w.Event("Unhealthy", fmt.Sprintf("%s probe errored and resulted in unknown state: %v", w.Kind, o.Err))
	case !o.OK:
		w.Event("Unhealthy", fmt.Sprintf("%s probe failed: %s", w.Kind, o.Output))
	case o.Warning:
		w.Event("ProbeWarning", fmt.Sprintf("%s probe warning: %s", w.Kind, o.Output))
	}
}

func seconds(n, otherwise int32) time.Duration {
	if n <= 0 {
		n = otherwise
	}
	return time.Duration(n) * time.Second
}
