package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// wrecks leads Pods through their lives while somebody kills their shims and pauses. Each that is hit must be found not ready, with all of its
// containers ended, and be removable; the others must not notice.
func (n *node) wrecks(ctx context.Context, lives int) error {
	names := make(chan string)
	errs := make([]error, atOnce)
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex // guards hit
		hits int
	)
	for i := range atOnce {
		wg.Go(func() {
			for name := range names {
				hit, err := n.mayBeHit(ctx, name)
				if err != nil {
					errs[i] = errors.Join(errs[i], fmt.Errorf("%s: %w", name, err))
				}
				mu.Lock()
				if hit {
					hits++
				}
				mu.Unlock()
			}
		})
	}
	for i := range lives {
		names <- fmt.Sprintf("w%d", i)
	}
	close(names)
	wg.Wait()
	fmt.Printf("%d lives, %d hit\n", lives, hits)
	return errors.Join(errs...)
}

func (n *node) mayBeHit(ctx context.Context, name string) (hit bool, err error) {
	broken := n.lead(ctx, name)
	if broken == nil {
		return false, nil
	}
	l := &life{node: n, name: name}
	if err := l.once(); err != nil {
		return true, err
	}
	err = wait(func() error {
		s, err := l.find(ctx)
		if err != nil || s == nil {
			return err
		}
		if s.Status.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			return fmt.Errorf("ready, though %w", broken)
		}
		for _, c := range s.ContainersStatuses {
			if c.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
				if err := l.StopContainer(ctx, c.Id, 0); err != nil { // pause alone is dead: the rest is the agent's to end
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return true, err
	}
	if s, err := l.find(ctx); err == nil && s != nil {
		for _, c := range s.ContainersStatuses {
			if s, err := l.ContainerStatus(ctx, c.Id, false); err != nil || s.Status.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
				return true, fmt.Errorf("a container of a dead Pod: %v, %w", s, err)
			}
		}
	}
	return true, errors.Join(l.end(ctx, true), l.forget())
}
