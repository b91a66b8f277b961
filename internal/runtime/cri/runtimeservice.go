package cri

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	utilexec "k8s.io/utils/exec"
)

// runtimeService is the RuntimeService as gRPC has it.
type runtimeService struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	r      Runtime
	urls   *urls
	ending <-chan struct{}
}

func (s *runtimeService) Version(ctx context.Context, q *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return s.r.Version(ctx, q.GetVersion())
}

func (s *runtimeService) RunPodSandbox(ctx context.Context, q *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	id, err := s.r.RunPodSandbox(ctx, q.GetConfig(), q.GetRuntimeHandler())
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, err
}

func (s *runtimeService) StopPodSandbox(ctx context.Context, q *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	return &runtimeapi.StopPodSandboxResponse{}, s.r.StopPodSandbox(ctx, q.GetPodSandboxId())
}

func (s *runtimeService) RemovePodSandbox(ctx context.Context, q *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	return &runtimeapi.RemovePodSandboxResponse{}, s.r.RemovePodSandbox(ctx, q.GetPodSandboxId())
}

func (s *runtimeService) PodSandboxStatus(ctx context.Context, q *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	return s.r.PodSandboxStatus(ctx, q.GetPodSandboxId(), q.GetVerbose())
}

func (s *runtimeService) ListPodSandbox(ctx context.Context, q *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	items, err := s.r.ListPodSandbox(ctx, q.GetFilter())
	return &runtimeapi.ListPodSandboxResponse{Items: items}, err
}

func (s *runtimeService) CreateContainer(ctx context.Context, q *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	id, err := s.r.CreateContainer(ctx, q.GetPodSandboxId(), q.GetConfig(), q.GetSandboxConfig())
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, err
}

func (s *runtimeService) StartContainer(ctx context.Context, q *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	return &runtimeapi.StartContainerResponse{}, s.r.StartContainer(ctx, q.GetContainerId())
}

func (s *runtimeService) StopContainer(ctx context.Context, q *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	return &runtimeapi.StopContainerResponse{}, s.r.StopContainer(ctx, q.GetContainerId(), q.GetTimeout())
}

func (s *runtimeService) RemoveContainer(ctx context.Context, q *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	return &runtimeapi.RemoveContainerResponse{}, s.r.RemoveContainer(ctx, q.GetContainerId())
}

func (s *runtimeService) ListContainers(ctx context.Context, q *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	list, err := s.r.ListContainers(ctx, q.GetFilter())
	return &runtimeapi.ListContainersResponse{Containers: list}, err
}

func (s *runtimeService) ContainerStatus(ctx context.Context, q *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	return s.r.ContainerStatus(ctx, q.GetContainerId(), q.GetVerbose())
}

func (s *runtimeService) UpdateContainerResources(ctx context.Context, q *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	res := &runtimeapi.ContainerResources{Linux: q.GetLinux(), Windows: q.GetWindows()}
	return &runtimeapi.UpdateContainerResourcesResponse{}, s.r.UpdateContainerResources(ctx, q.GetContainerId(), res)
}

func (s *runtimeService) UpdatePodSandboxResources(ctx context.Context, q *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	return s.r.UpdatePodSandboxResources(ctx, q)
}

func (s *runtimeService) ReopenContainerLog(ctx context.Context, q *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	return &runtimeapi.ReopenContainerLogResponse{}, s.r.ReopenContainerLog(ctx, q.GetContainerId())
}

// ExecSync: a command that ends with another code than 0 is an answer here, not an error.
func (s *runtimeService) ExecSync(ctx context.Context, q *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	if q.GetTimeout() < 0 {
		return nil, status.Errorf(codes.InvalidArgument, "timeout: %d: must not be negative", q.GetTimeout())
	}
	out, stderr, err := s.r.ExecSync(ctx, q.GetContainerId(), q.GetCmd(), time.Duration(q.GetTimeout())*time.Second)
	var exit utilexec.ExitError
	if errors.As(err, &exit) {
		return &runtimeapi.ExecSyncResponse{Stdout: out, Stderr: stderr, ExitCode: int32(exit.ExitStatus())}, nil
	}
	return &runtimeapi.ExecSyncResponse{Stdout: out, Stderr: stderr}, err
}

func (s *runtimeService) Exec(_ context.Context, q *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	id, err := s.r.Running(q.GetContainerId())
	if err != nil {
		return nil, err
	}
	if len(q.GetCmd()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "cmd: it is empty")
	}
	u, err := s.urls.get()
	if err != nil {
		return nil, err
	}
	return u.GetExec(&runtimeapi.ExecRequest{ContainerId: id, Cmd: q.GetCmd(), Tty: q.GetTty(), Stdin: q.GetStdin(), Stdout: q.GetStdout(), Stderr: q.GetStderr()})
}

func (s *runtimeService) Attach(_ context.Context, q *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	id, err := s.r.Running(q.GetContainerId())
	if err != nil {
		return nil, err
	}
	u, err := s.urls.get()
	if err != nil {
		return nil, err
	}
	return u.GetAttach(&runtimeapi.AttachRequest{ContainerId: id, Tty: q.GetTty(), Stdin: q.GetStdin(), Stdout: q.GetStdout(), Stderr: q.GetStderr()})
}

func (s *runtimeService) PortForward(_ context.Context, q *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	id, err := s.r.ReadySandbox(q.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	for _, p := range q.GetPort() {
		if p < 1 || p > 65535 {
			return nil, status.Errorf(codes.InvalidArgument, "port: %d: must be between 1 and 65535", p)
		}
	}
	u, err := s.urls.get()
	if err != nil {
		return nil, err
	}
	return u.GetPortForward(&runtimeapi.PortForwardRequest{PodSandboxId: id, Port: q.GetPort()})
}

func (s *runtimeService) ContainerStats(ctx context.Context, q *runtimeapi.ContainerStatsRequest) (*runtimeapi.ContainerStatsResponse, error) {
	stats, err := s.r.ContainerStats(ctx, q.GetContainerId())
	return &runtimeapi.ContainerStatsResponse{Stats: stats}, err
}

func (s *runtimeService) ListContainerStats(ctx context.Context, q *runtimeapi.ListContainerStatsRequest) (*runtimeapi.ListContainerStatsResponse, error) {
	list, err := s.r.ListContainerStats(ctx, q.GetFilter())
	return &runtimeapi.ListContainerStatsResponse{Stats: list}, err
}

func (s *runtimeService) PodSandboxStats(ctx context.Context, q *runtimeapi.PodSandboxStatsRequest) (*runtimeapi.PodSandboxStatsResponse, error) {
	stats, err := s.r.PodSandboxStats(ctx, q.GetPodSandboxId())
	return &runtimeapi.PodSandboxStatsResponse{Stats: stats}, err
}

func (s *runtimeService) ListPodSandboxStats(ctx context.Context, q *runtimeapi.ListPodSandboxStatsRequest) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	list, err := s.r.ListPodSandboxStats(ctx, q.GetFilter())
	return &runtimeapi.ListPodSandboxStatsResponse{Stats: list}, err
}

func (s *runtimeService) ListMetricDescriptors(ctx context.Context, _ *runtimeapi.ListMetricDescriptorsRequest) (*runtimeapi.ListMetricDescriptorsResponse, error) {
	list, err := s.r.ListMetricDescriptors(ctx)
	return &runtimeapi.ListMetricDescriptorsResponse{Descriptors: list}, err
}

func (s *runtimeService) ListPodSandboxMetrics(ctx context.Context, _ *runtimeapi.ListPodSandboxMetricsRequest) (*runtimeapi.ListPodSandboxMetricsResponse, error) {
	list, err := s.r.ListPodSandboxMetrics(ctx)
	return &runtimeapi.ListPodSandboxMetricsResponse{PodMetrics: list}, err
}

func (s *runtimeService) UpdateRuntimeConfig(ctx context.Context, q *runtimeapi.UpdateRuntimeConfigRequest) (*runtimeapi.UpdateRuntimeConfigResponse, error) {
	return &runtimeapi.UpdateRuntimeConfigResponse{}, s.r.UpdateRuntimeConfig(ctx, q.GetRuntimeConfig())
}

func (s *runtimeService) Status(ctx context.Context, q *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	return s.r.Status(ctx, q.GetVerbose())
}

func (s *runtimeService) RuntimeConfig(ctx context.Context, _ *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	return s.r.RuntimeConfig(ctx)
}

func (s *runtimeService) CheckpointContainer(ctx context.Context, q *runtimeapi.CheckpointContainerRequest) (*runtimeapi.CheckpointContainerResponse, error) {
	return &runtimeapi.CheckpointContainerResponse{}, s.r.CheckpointContainer(ctx, q)
}

func (s *runtimeService) CheckpointPod(ctx context.Context, q *runtimeapi.CheckpointPodRequest) (*runtimeapi.CheckpointPodResponse, error) {
	return &runtimeapi.CheckpointPodResponse{}, s.r.CheckpointPod(ctx, q)
}

func (s *runtimeService) RestorePod(ctx context.Context, q *runtimeapi.RestorePodRequest) (*runtimeapi.RestorePodResponse, error) {
	return s.r.RestorePod(ctx, q)
}
