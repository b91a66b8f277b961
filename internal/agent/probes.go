package agent

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"carob.dev/carob/internal/agent/podstate"
	"carob.dev/carob/internal/agent/probe"
)

type probeKey struct {
	container, id string
	kind          probe.Kind
}

// syncProbes has those probes run that should: startup before the others, none but readiness while the Pod ends.
func (w *worker) syncProbes(ctx context.Context) {
	want := map[probeKey]*corev1.Probe{}
	ending := podstate.Ending(w.pod, w.facts)
	for _, spec := range podstate.Containers(w.pod) {
		c := w.facts.Containers[spec.Name]
		if c.State != podstate.Running || !c.Hooked || c.Busy == podstate.Hook || w.done {
			continue
		}
		add := func(kind probe.Kind, p *corev1.Probe, when bool) {
			if p != nil && when {
				want[probeKey{spec.Name, c.ID, kind}] = p
			}
		}
		started := spec.StartupProbe == nil || c.Startup == podstate.Success
		calm := !ending && c.Busy != podstate.Stop
		add(probe.Startup, spec.StartupProbe, !started && c.Startup != podstate.Failure && calm)
		add(probe.Liveness, spec.LivenessProbe, started && c.Liveness != podstate.Failure && calm)
		add(probe.Readiness, spec.ReadinessProbe, started)
	}
	for key, cancel := range w.probes {
		if want[key] == nil {
			cancel()
			delete(w.probes, key)
		}
	}
	for key, p := range want {
		if w.probes[key] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		w.probes[key] = cancel
		uid := w.pod.UID
		watch := probe.Watch{Kind: key.kind, Probe: p, Target: w.target(key.container), Started: w.facts.Containers[key.container].StartedAt,
			Report: func(ok bool) { w.post(func() { w.probed(key, ok) }) },
			Event: func(reason, message string) {
				w.post(func() { w.containerEvent(key.container, corev1.EventTypeWarning, reason, message) })
			},
			Tried: func(o probe.Outcome) {
				w.a.probed.Add(probe.Counted{Namespace: w.namespace, Pod: w.name, Container: key.container, UID: uid, Kind: key.kind}, o)
			},
			Clock: w.a.cfg.Clock}
		if r := w.facts.Containers[key.container].Readiness; key.kind == probe.Readiness && r != podstate.Unknown {
			was := r == podstate.Success
			watch.Was = &was
		}
		w.wg.Go(func() { w.a.handlers.Run(ctx, watch) })
	}
}

// probed takes a probe's verdict over, if the instance is still the same.
func (w *worker) probed(key probeKey, ok bool) {
	c := w.facts.Containers[key.container]
	if c.ID != key.id || c.State != podstate.Running {
		return
	}
	result := podstate.Failure
	if ok {
		result = podstate.Success
	}
	switch key.kind {
	case probe.Startup:
		c.Startup = result
	case probe.Liveness:
		c.Liveness = result
	case probe.Readiness:
		c.Readiness = result
	}
}
