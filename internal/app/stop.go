package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/config"
	"carob.dev/carob/internal/network"
	"carob.dev/carob/internal/runtime"
	"carob.dev/carob/internal/runtime/image"
	"carob.dev/carob/internal/runtime/remote"
)

// defaultGrace is a container's time to end, in seconds, where nothing says otherwise: Kubernetes' default.
const defaultGrace = 30

// graceAnnotation is where the agent writes a container's time to end, under the name that other runtimes know.
const graceAnnotation = "io.kubernetes.pod.terminationGracePeriod"

// stopPods has the agent stop every Pod as its hooks and grace period allow, ends the agent, and stops what it may have overlooked. When ctx
// ends before that, the Pods that still run are left running.
func (c *Carob) stopPods(ctx context.Context, tell func(string)) error {
	if err := c.agent.Rest(ctx, func(namespace, name string) { tell(fmt.Sprintf("pod %s/%s stopped", namespace, name)) }); err != nil {
		if ctx.Err() != nil {
			tell("the other Pods are left running")
			return nil
		}
		tell("warning: " + err.Error())
	}
	if err := c.stages.endFrom(c.agentFrom); err != nil {
		c.opt.Log.Warn("the agent did not end well", "err", err)
	}
	return stopAll(ctx, c.pods.runtime, tell)
}

// StopLeftPods stops the Pods that a daemon which is gone left running.
func StopLeftPods(ctx context.Context, cfg config.Config, tell func(string)) (err error) {
	log, _ := logger(cfg, os.Stderr)
	if cfg.RuntimeEndpoint != "" {
		client, err := remote.Dial(ctx, remoteConfig(cfg, log))
		if err != nil {
			return err
		}
		return errors.Join(stopAll(ctx, client.Runtime, tell), client.Close())
	}
	images, err := image.Open(ctx, image.Config{Dir: cfg.Path("images"), Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, images.Close(ctx)) }()
	net, err := network.New(ctx, networkConfig(cfg, log))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, net.Close()) }()
	r, err := runtime.New(ctx, runtime.Config{
		Root: cfg.Root, RunDir: cfg.RunDir(), CgroupRoot: cfg.CgroupRoot(), Images: images, Network: net, OCIRuntimes: cfg.OCIRuntimes, Log: log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close(ctx)) }()
	return stopAll(ctx, r, tell)
}

func stopAll(ctx context.Context, r cri.RuntimeService, tell func(string)) error {
	sandboxes, err := r.ListPodSandbox(ctx, nil)
	if err != nil {
		return fmt.Errorf("list the Pods: %w", err)
	}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	for _, sb := range sandboxes {
		if sb.State != runtimeapi.PodSandboxState_SANDBOX_READY {
			continue
		}
		wg.Go(func() {
			err := stopSandbox(ctx, r, sb)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
			if err == nil {
				tell(fmt.Sprintf("pod %s/%s stopped", sb.GetMetadata().GetNamespace(), sb.GetMetadata().GetName()))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func stopSandbox(ctx context.Context, r cri.RuntimeService, sb *runtimeapi.PodSandbox) error {
	containers, err := r.ListContainers(ctx, &runtimeapi.ContainerFilter{PodSandboxId: sb.Id})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, len(containers), len(containers)+1)
	for i, c := range containers {
		if c.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			wg.Go(func() { errs[i] = r.StopContainer(ctx, c.Id, grace(c.Annotations)) })
		}
	}
	wg.Wait()
	return errors.Join(append(errs, r.StopPodSandbox(ctx, sb.Id))...)
}

func grace(annotations map[string]string) int64 {
	if s, err := strconv.ParseInt(annotations[graceAnnotation], 10, 64); err == nil {
		return s
	}
	return defaultGrace
}
