package cri

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// batch is how many items one message of a streamed list carries: far below what a message may hold.
const batch = 256

// chunks sends a list in messages of at most batch items. An empty list is no message at all.
func chunks[T, M any](list []T, err error, stream grpc.ServerStreamingServer[M], message func([]T) *M) error {
	if err != nil {
		return err
	}
	for part := range slices.Chunk(list, batch) {
		if err := stream.Send(message(part)); err != nil {
			return err
		}
	}
	return nil
}

func (s *runtimeService) StreamPodSandboxes(q *runtimeapi.StreamPodSandboxesRequest, stream grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxesResponse]) error {
	list, err := s.r.ListPodSandbox(stream.Context(), q.GetFilter())
	return chunks(list, err, stream, func(part []*runtimeapi.PodSandbox) *runtimeapi.StreamPodSandboxesResponse {
		return &runtimeapi.StreamPodSandboxesResponse{PodSandboxes: part}
	})
}

func (s *runtimeService) StreamContainers(q *runtimeapi.StreamContainersRequest, stream grpc.ServerStreamingServer[runtimeapi.StreamContainersResponse]) error {
	list, err := s.r.ListContainers(stream.Context(), q.GetFilter())
	return chunks(list, err, stream, func(part []*runtimeapi.Container) *runtimeapi.StreamContainersResponse {
		return &runtimeapi.StreamContainersResponse{Containers: part}
	})
}

func (s *runtimeService) StreamContainerStats(q *runtimeapi.StreamContainerStatsRequest, stream grpc.ServerStreamingServer[runtimeapi.StreamContainerStatsResponse]) error {
	list, err := s.r.ListContainerStats(stream.Context(), q.GetFilter())
	return chunks(list, err, stream, func(part []*runtimeapi.ContainerStats) *runtimeapi.StreamContainerStatsResponse {
		return &runtimeapi.StreamContainerStatsResponse{ContainerStats: part}
	})
}

func (s *runtimeService) StreamPodSandboxStats(q *runtimeapi.StreamPodSandboxStatsRequest, stream grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxStatsResponse]) error {
	list, err := s.r.ListPodSandboxStats(stream.Context(), q.GetFilter())
	return chunks(list, err, stream, func(part []*runtimeapi.PodSandboxStats) *runtimeapi.StreamPodSandboxStatsResponse {
		return &runtimeapi.StreamPodSandboxStatsResponse{PodSandboxStats: part}
	})
}

func (s *runtimeService) StreamPodSandboxMetrics(_ *runtimeapi.StreamPodSandboxMetricsRequest, stream grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxMetricsResponse]) error {
	list, err := s.r.ListPodSandboxMetrics(stream.Context())
	return chunks(list, err, stream, func(part []*runtimeapi.PodSandboxMetrics) *runtimeapi.StreamPodSandboxMetricsResponse {
		return &runtimeapi.StreamPodSandboxMetricsResponse{PodSandboxMetrics: part}
	})
}

// GetContainerEvents sends what happens until the client leaves or the server ends.
func (s *runtimeService) GetContainerEvents(_ *runtimeapi.GetEventsRequest, stream grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	events, done := make(chan *runtimeapi.ContainerEventResponse), make(chan error, 1)
	go func() { done <- s.r.GetContainerEvents(ctx, events, nil) }()
	for {
		select {
		case ev := <-events:
			if err := stream.Send(ev); err != nil {
				cancel()
				<-done
				return err
			}
		case err := <-done:
			return err
		case <-s.ending:
			cancel()
			<-done
			return nil
		}
	}
}
