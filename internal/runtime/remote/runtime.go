package remote

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	criclient "k8s.io/cri-client/pkg"

	"carob.dev/carob/internal/runtime/events"
)

// ownerLabel marks sandboxes and containers; its value is Config.Owner.
const ownerLabel = "carob.dev/owner"

// Runtime is the CRI of another process, reduced to what is this Carob's. Run keeps its events flowing.
type Runtime struct {
	cri.RuntimeService
	cfg  Config
	subs events.Subscribers
	// known is what was last told of each sandbox; Run's own.
	known map[string]*sandboxSeen
	// changed gets a value when the runtime goes away or comes back.
	changed chan struct{}
}

var _ cri.RuntimeService = (*Runtime)(nil)

func newRuntime(service cri.RuntimeService, cfg Config) *Runtime {
	return &Runtime{RuntimeService: service, cfg: cfg, known: map[string]*sandboxSeen{}, changed: make(chan struct{}, 1)}
}

// Changed gets a value when the runtime goes away or comes back: Status tells which.
func (r *Runtime) Changed() <-chan struct{} { return r.changed }

// labelled is the labels with the owner's.
func (r *Runtime) labelled(labels map[string]string) map[string]string {
	out := map[string]string{}
	maps.Copy(out, labels)
	out[ownerLabel] = r.cfg.Owner
	return out
}

func (r *Runtime) markSandbox(config *runtimeapi.PodSandboxConfig) *runtimeapi.PodSandboxConfig {
	c := proto.Clone(config).(*runtimeapi.PodSandboxConfig)
	c.Labels = r.labelled(c.Labels)
	return c
}

// RunPodSandbox makes a sandbox that is known as this Carob's.
func (r *Runtime) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	return r.RuntimeService.RunPodSandbox(ctx, r.markSandbox(config), handler)
}

// CreateContainer makes a container that is known as this Carob's.
func (r *Runtime) CreateContainer(ctx context.Context, sandboxID string, config *runtimeapi.ContainerConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	c := proto.Clone(config).(*runtimeapi.ContainerConfig)
	c.Labels = r.labelled(c.Labels)
	return r.RuntimeService.CreateContainer(ctx, sandboxID, c, r.markSandbox(sandbox))
}

// ListPodSandbox lists this Carob's sandboxes.
func (r *Runtime) ListPodSandbox(ctx context.Context, f *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	return r.RuntimeService.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{Id: f.GetId(), State: f.GetState(), LabelSelector: r.labelled(f.GetLabelSelector())})
}

// ListContainers lists this Carob's containers.
func (r *Runtime) ListContainers(ctx context.Context, f *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	return r.RuntimeService.ListContainers(ctx, &runtimeapi.ContainerFilter{Id: f.GetId(), State: f.GetState(), PodSandboxId: f.GetPodSandboxId(),
		LabelSelector: r.labelled(f.GetLabelSelector())})
}

// ListContainerStats tells what this Carob's containers use.
func (r *Runtime) ListContainerStats(ctx context.Context, f *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error) {
	return r.RuntimeService.ListContainerStats(ctx, &runtimeapi.ContainerStatsFilter{Id: f.GetId(), PodSandboxId: f.GetPodSandboxId(),
		LabelSelector: r.labelled(f.GetLabelSelector())})
}

// ListPodSandboxStats tells what this Carob's Pods use.
func (r *Runtime) ListPodSandboxStats(ctx context.Context, f *runtimeapi.PodSandboxStatsFilter) ([]*runtimeapi.PodSandboxStats, error) {
	return r.RuntimeService.ListPodSandboxStats(ctx, &runtimeapi.PodSandboxStatsFilter{Id: f.GetId(), LabelSelector: r.labelled(f.GetLabelSelector())})
}

// PodSandboxStatus tells a sandbox's state with those of its containers, which some runtimes leave out.
func (r *Runtime) PodSandboxStatus(ctx context.Context, id string, verbose bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	resp, err := r.RuntimeService.PodSandboxStatus(ctx, id, verbose)
	if err != nil || len(resp.GetContainersStatuses()) > 0 {
		return resp, err
	}
	if resp.ContainersStatuses, err = r.containers(ctx, id); err != nil {
		return nil, err
	}
	return resp, nil
}

// containers are the statuses of a sandbox's containers, oldest first.
func (r *Runtime) containers(ctx context.Context, sandboxID string) ([]*runtimeapi.ContainerStatus, error) {
	list, err := r.RuntimeService.ListContainers(ctx, &runtimeapi.ContainerFilter{PodSandboxId: sandboxID})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b *runtimeapi.Container) int { return int(a.GetCreatedAt() - b.GetCreatedAt()) })
	var all []*runtimeapi.ContainerStatus
	for _, c := range list {
		resp, err := r.RuntimeService.ContainerStatus(ctx, c.GetId(), false)
		if status.Code(err) == codes.NotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, resp.GetStatus())
	}
	return all, nil
}

// RemoveAll removes all of this Carob's sandboxes with what is in them.
func (r *Runtime) RemoveAll(ctx context.Context) error {
	list, err := r.ListPodSandbox(ctx, nil)
	if err != nil {
		return fmt.Errorf("list the sandboxes: %w", err)
	}
	var errs []error
	for _, sb := range list {
		err := r.StopPodSandbox(ctx, sb.GetId())
		if err == nil {
			err = r.RemovePodSandbox(ctx, sb.GetId())
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove sandbox %s: %w", sb.GetId(), err))
		}
	}
	return errors.Join(errs...)
}

// ExecSync runs a command. One that takes too long fails with DeadlineExceeded, as the CRI has it.
func (r *Runtime) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (stdout, stderr []byte, err error) {
	stdout, stderr, err = r.RuntimeService.ExecSync(ctx, id, cmd, timeout)
	if errors.Is(err, criclient.ErrCommandTimedOut) {
		err = fmt.Errorf("%w: %w", status.Error(codes.DeadlineExceeded, "the command took too long"), err)
	}
	return stdout, stderr, err
}

// GetContainerEvents sends what happens to ch until ctx ends, as long as Run does its part. The callback, if there is one, is called with
// nil once nothing that happens from then on can be missed. An event may be told late, and more than once.
func (r *Runtime) GetContainerEvents(ctx context.Context, ch chan *runtimeapi.ContainerEventResponse,
	established func(runtimeapi.RuntimeService_GetContainerEventsClient)) error {
	return r.subs.Get(ctx, ch, established)
}
