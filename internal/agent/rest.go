package agent

import (
	"context"
	"sync"

	"carob.dev/carob/internal/agent/podstate"
)

// Rest stops the containers of all Pods gracefully, with their preStop hooks and grace periods, and their sandboxes. The Pods stay in the
// API; those that are to go on do so when the node's next agent starts. tell is called for each Pod that rests. Run goes on meanwhile.
func (a *Agent) Rest(ctx context.Context, tell func(namespace, name string)) error {
	a.mu.Lock()
	a.resting = true
	var all []*worker
	for _, w := range a.workers {
		all = append(all, w)
	}
	a.mu.Unlock()
	var wg sync.WaitGroup
	for _, w := range all {
		rested := make(chan struct{})
		idle := false
		w.post(func() {
			idle = w.facts.Rested()
			w.rested = rested
			w.rest()
		})
		wg.Go(func() {
			select {
			case <-rested:
				if !idle {
					tell(w.namespace, w.name)
				}
			case <-w.ended:
			case <-ctx.Done():
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

// rest is called on the worker's goroutine, or before that runs.
func (w *worker) rest() {
	if w.facts.RestingSince.IsZero() {
		w.facts.RestingSince = w.a.cfg.Clock.Now()
	}
}

// tellRest says once that the Pod rests.
func (w *worker) tellRest() {
	if w.rested != nil && w.facts.Rested() && (w.facts.StatusWritten || podstate.Ending(w.pod, w.facts)) {
		close(w.rested)
		w.rested = nil
	}
}
