package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"carob.dev/carob/internal/agent/measure"
	"carob.dev/carob/internal/agent/podstate"
	"carob.dev/carob/internal/agent/shutdown"
	"carob.dev/carob/internal/agent/volume"
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

// endable are the Pods that may run.
func (a *Agent) endable() []shutdown.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []shutdown.Pod
	for _, w := range a.workers {
		pod := w.granted.Load()
		if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
			continue
		}
		p := shutdown.Pod{UID: pod.UID, Grace: podstate.Grace(pod)}
		if pod.Spec.Priority != nil {
			p.Priority = *pod.Spec.Priority
		}
		list = append(list, p)
	}
	return list
}

// told waits until the API knows the status of Pods that have ended, two seconds at most.
func (a *Agent) told(ctx context.Context, uids []types.UID) {
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	for _, uid := range uids {
		w := a.worker(uid)
		if w == nil {
			continue
		}
		told := make(chan struct{})
		w.post(func() { w.restTold = told })
		select {
		case <-told:
		case <-w.ended:
		case <-ctx.Done():
			return
		}
	}
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

// backed are the Pod's volumes that claims and drivers give it.
func (a *Agent) backed(uid types.UID) []volume.Backed {
	if v, ok := a.volumes.(interface {
		Backed(types.UID) []volume.Backed
	}); ok {
		return v.Backed(uid)
	}
	return nil
}
