package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"carob.dev/carob/internal/agent/podstate"

	podrule "carob.dev/carob/internal/api/pod"
)

// How long a Pod may take beyond its grace to be stopped, and how long the API may take to be told.
const (
	restPatience   = 15 * time.Second
	statusPatience = 2 * time.Second
)

// Rest stops the containers of all Pods gracefully, with their preStop hooks and grace periods, and their sandboxes. The Pods stay in the
// API; those that are to go on do so when the node's next agent starts. Pods of the system rest after all others, which may need them. tell is called for each Pod that rests. Run goes on meanwhile. An
// error names the Pods that cannot be stopped.
func (a *Agent) Rest(ctx context.Context, tell func(namespace, name string)) error {
	a.mu.Lock()
	a.resting = true
	var usual, system []*worker
	for _, w := range a.workers {
		if podrule.Critical(w.granted.Load()) {
			system = append(system, w)
		} else {
			usual = append(usual, w)
		}
	}
	a.mu.Unlock()
	a.node.Urgent() // it takes no more Pods
	return errors.Join(restAll(ctx, usual, tell), restAll(ctx, system, tell))
}

// Resting says that all Pods are being put to rest.
func (a *Agent) Resting() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.resting
}

func restAll(ctx context.Context, list []*worker, tell func(namespace, name string)) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex // guards errs
		errs []error
	)
	for _, w := range list {
		wg.Go(func() {
			if err := w.putToRest(ctx, tell); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (w *worker) putToRest(ctx context.Context, tell func(namespace, name string)) error {
	asked, rested, told := make(chan time.Duration, 1), make(chan struct{}), make(chan struct{})
	idle := false
	w.post(func() {
		idle = w.facts.Rested()
		w.rested, w.restTold = rested, told
		w.rest()
		asked <- podstate.Grace(w.pod)
	})
	limit := restPatience
	select {
	case grace := <-asked:
		limit += grace
	case <-w.ended:
		return nil
	}
	timer := w.a.cfg.Clock.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-rested:
		if !idle {
			tell(w.namespace, w.name)
		}
	case <-w.ended:
		return nil
	case <-timer.C():
		return fmt.Errorf("pod %s/%s cannot be stopped: see the log", w.namespace, w.name)
	case <-ctx.Done():
		return ctx.Err()
	}
	timer.Reset(statusPatience)
	select {
	case <-told:
	case <-w.ended:
	case <-timer.C():
	case <-ctx.Done():
	}
	return nil
}

// rest is called on the worker's goroutine, or before that runs.
func (w *worker) rest() {
	if w.facts.RestingSince.IsZero() {
		w.facts.RestingSince = w.a.cfg.Clock.Now()
	}
}

// tellOver tells those who wait for it that nothing of the Pod runs any more.
func (w *worker) tellOver() {
	for _, c := range w.over {
		close(c)
	}
	w.over = nil
}

// tellRest says once that the Pod rests, and once that the API knows.
func (w *worker) tellRest() {
	if len(w.over) > 0 && w.facts.Rested() {
		w.tellOver()
	}
	if w.rested != nil && w.facts.Rested() {
		close(w.rested)
		w.rested = nil
	}
	if w.restTold != nil && w.rested == nil && w.facts.StatusWritten {
		close(w.restTold)
		w.restTold = nil
	}
}
