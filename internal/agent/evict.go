package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"

	"carob.dev/carob/internal/agent/measure"
	"carob.dev/carob/internal/agent/podstate"
)

// measured are the Pods that have something running.
func (a *Agent) measured() []measure.Pod {
	var list []measure.Pod
	for _, v := range a.Views() {
		if v.SandboxID != "" {
			list = append(list, v.Measured())
		}
	}
	return list
}

// end has the node end the Pod, if it does not end by itself already. The channel is closed once nothing of it runs; nil if there is no such Pod.
func (a *Agent) end(uid types.UID, why podstate.End) <-chan struct{} {
	w := a.worker(uid)
	if w == nil {
		return nil
	}
	over := make(chan struct{})
	w.post(func() {
		w.over = append(w.over, over)
		if !podstate.Ending(w.pod, w.facts) {
			w.facts.End = &why
		}
	})
	return over
}

// free removes what takes room on the disk and nobody needs: ended containers, whose logs and facts stay, and images that no container uses.
func (a *Agent) free(ctx context.Context) error {
	a.mu.Lock()
	var all []*worker
	for _, w := range a.workers {
		all = append(all, w)
	}
	a.mu.Unlock()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex // guards errs
		errs []error
	)
	for _, w := range all {
		ids := make(chan []string, 1)
		w.post(func() { ids <- w.facts.Ended() })
		wg.Go(func() {
			select {
			case list := <-ids:
				for _, id := range list {
					if err := a.cfg.Runtime.RemoveContainer(ctx, id); err != nil && status.Code(err) != codes.NotFound {
						mu.Lock()
						errs = append(errs, fmt.Errorf("remove ended container %s: %w", id, err))
						mu.Unlock()
					}
				}
			case <-w.ended:
			case <-ctx.Done():
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, a.images.Free(ctx))...)
}
