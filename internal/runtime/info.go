package runtime

import (
	"context"
	"errors"
	"path/filepath"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/runtime/oci"
	"carob.dev/carob/internal/runtime/shim"
	"carob.dev/carob/internal/runtime/shim/wire"
	"carob.dev/carob/internal/sys"
	"carob.dev/carob/internal/version"
)

// Version tells what this is.
func (r *Runtime) Version(context.Context, string) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "carob", RuntimeVersion: version.Get().Version, RuntimeApiVersion: "v1"}, nil
}

// Status tells that runtime and network are ready: New fails otherwise.
func (r *Runtime) Status(_ context.Context, verbose bool) (*runtimeapi.StatusResponse, error) {
	resp := &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: "RuntimeReady", Status: true}, {Type: "NetworkReady", Status: true}}},
		Features: &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true, MountOptions: true}}
	for handler := range r.binaries {
		resp.RuntimeHandlers = append(resp.RuntimeHandlers, &runtimeapi.RuntimeHandler{Name: handler, Features: &runtimeapi.RuntimeHandlerFeatures{
			UserNamespaces: sys.CanIDMap(), RecursiveReadOnlyMounts: sys.CanIDMap()}})
	}
	if verbose {
		resp.Info = map[string]string{"root": r.cfg.Root, "shim": r.shim}
	}
	return resp, nil
}

// RuntimeConfig tells the cgroup driver.
func (r *Runtime) RuntimeConfig(context.Context) (*runtimeapi.RuntimeConfigResponse, error) {
	driver := runtimeapi.CgroupDriver_CGROUPFS
	if r.cfg.Systemd {
		driver = runtimeapi.CgroupDriver_SYSTEMD
	}
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: driver}}, nil
}

// UpdateRuntimeConfig takes the Pod range that a kubelet announces; the network has its own, so it is only noted.
func (r *Runtime) UpdateRuntimeConfig(_ context.Context, c *runtimeapi.RuntimeConfig) error {
	r.cfg.Log.Debug("a client announced a Pod range", "cidr", c.GetNetworkConfig().GetPodCidr())
	return nil
}

// ReopenContainerLog opens the log file anew, after it was rotated.
func (r *Runtime) ReopenContainerLog(ctx context.Context, id string) error {
	c, client, err := r.running(id)
	if err != nil {
		return err
	}
	_, err = client.Ask(ctx, wire.Frame{Op: wire.OpReopen, ID: c.rec.ID})
	var refusal *shim.Refusal
	if errors.As(err, &refusal) {
		return status.Error(codes.FailedPrecondition, refusal.Text)
	}
	return err
}

// UpdateContainerResources changes limits of a container, at once if it runs.
func (r *Runtime) UpdateContainerResources(ctx context.Context, id string, res *runtimeapi.ContainerResources) error {
	if err := checkResources(res.GetLinux()); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	c, err := r.findContainer(id)
	if err != nil {
		return err
	}
	if err := c.turn.take(ctx); err != nil {
		return err
	}
	defer c.turn.pass()
	r.mu.Lock()
	rec := c.rec
	r.mu.Unlock()
	merged := mergeResources(rec.Resources, res.GetLinux())
	if _, err := oci.Resources(merged, r.node); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	switch rec.State {
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		if err := limitCgroup(ctx, rec.Cgroup, limits(res.GetLinux())); err != nil {
			return err
		}
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		if err := r.rewriteResources(c, merged); err != nil {
			return err
		}
	default:
		return status.Errorf(codes.FailedPrecondition, "container %q has ended", id)
	}
	r.mu.Lock()
	c.rec.Resources = merged
	rec = c.rec
	r.mu.Unlock()
	return r.keepContainer(c)
}

func limits(l *runtimeapi.LinuxContainerResources) sys.Resources {
	return sys.Resources{CPUShares: uint64(l.GetCpuShares()), CPUQuota: l.GetCpuQuota(), CPUPeriod: uint64(l.GetCpuPeriod()),
		Memory: l.GetMemoryLimitInBytes(), CPUs: l.GetCpusetCpus(), Mems: l.GetCpusetMems(), Unified: l.GetUnified()}
}

// mergeResources lays new limits over old ones; zero fields keep what was.
func mergeResources(old, change *runtimeapi.LinuxContainerResources) *runtimeapi.LinuxContainerResources {
	pick := func(a, b int64) int64 {
		if b != 0 {
			return b
		}
		return a
	}
	text := func(a, b string) string {
		if b != "" {
			return b
		}
		return a
	}
	m := &runtimeapi.LinuxContainerResources{CpuPeriod: pick(old.GetCpuPeriod(), change.GetCpuPeriod()), CpuQuota: pick(old.GetCpuQuota(), change.GetCpuQuota()),
		CpuShares: pick(old.GetCpuShares(), change.GetCpuShares()), MemoryLimitInBytes: pick(old.GetMemoryLimitInBytes(), change.GetMemoryLimitInBytes()),
		OomScoreAdj: pick(old.GetOomScoreAdj(), change.GetOomScoreAdj()), MemorySwapLimitInBytes: pick(old.GetMemorySwapLimitInBytes(), change.GetMemorySwapLimitInBytes()),
		CpusetCpus: text(old.GetCpusetCpus(), change.GetCpusetCpus()), CpusetMems: text(old.GetCpusetMems(), change.GetCpusetMems()),
		HugepageLimits: old.GetHugepageLimits(), Unified: old.GetUnified()}
	if len(change.GetHugepageLimits()) > 0 {
		m.HugepageLimits = change.GetHugepageLimits()
	}
	if len(change.GetUnified()) > 0 {
		m.Unified = change.GetUnified()
	}
	return m
}

func (r *Runtime) rewriteResources(c *container, res *runtimeapi.LinuxContainerResources) error {
	spec, err := readSpec(filepath.Join(r.cfg.bundleDir(c.rec.ID), "config.json"))
	if err != nil {
		return err
	}
	devices := spec.Linux.Resources.Devices
	if spec.Linux.Resources, err = oci.Resources(res, r.node); err != nil {
		return err
	}
	spec.Linux.Resources.Devices = devices
	return r.writeBundle(c.rec.ID, spec)
}

func unimplemented(what string) error {
	return status.Error(codes.Unimplemented, what+" is not implemented by this runtime")
}

// Running returns the full ID of a container that runs.
func (r *Runtime) Running(id string) (string, error) {
	c, _, err := r.running(id)
	if err != nil {
		return "", err
	}
	return c.rec.ID, nil
}

// ReadySandbox returns the full ID of a sandbox that is ready.
func (r *Runtime) ReadySandbox(id string) (string, error) {
	sb, err := r.findSandbox(id)
	if err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !sb.rec.Ready {
		return "", status.Errorf(codes.FailedPrecondition, "sandbox %q is not ready", id)
	}
	return sb.rec.ID, nil
}

// Exec is not implemented: within the process Streaming is called directly, and outside it package cri answers with a URL.
func (r *Runtime) Exec(context.Context, *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	return nil, unimplemented("Exec by URL")
}

// Attach is not implemented: see Exec.
func (r *Runtime) Attach(context.Context, *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	return nil, unimplemented("Attach by URL")
}

// PortForward is not implemented: see Exec.
func (r *Runtime) PortForward(context.Context, *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	return nil, unimplemented("PortForward by URL")
}

// UpdatePodSandboxResources notes what the caller has set on the Pod's own cgroup, which is the caller's; nil keeps what was noted.
func (r *Runtime) UpdatePodSandboxResources(ctx context.Context, q *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	sb, err := r.findSandbox(q.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	if err := sb.turn.take(ctx); err != nil {
		return nil, err
	}
	defer sb.turn.pass()
	r.mu.Lock()
	config := proto.CloneOf(sb.rec.Config) // others read the one there is
	if config.Linux == nil {
		config.Linux = &runtimeapi.LinuxPodSandboxConfig{}
	}
	if q.GetOverhead() != nil {
		config.Linux.Overhead = q.GetOverhead()
	}
	if q.GetResources() != nil {
		config.Linux.Resources = q.GetResources()
	}
	sb.rec.Config = config
	r.mu.Unlock()
	return &runtimeapi.UpdatePodSandboxResourcesResponse{}, r.keepSandbox(sb)
}
