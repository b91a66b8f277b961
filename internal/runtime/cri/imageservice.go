package cri

import (
	"context"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// imageService is the ImageService as gRPC has it.
type imageService struct {
	runtimeapi.UnimplementedImageServiceServer
	i cri.ImageManagerService
}

func (s *imageService) ListImages(ctx context.Context, q *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	list, err := s.i.ListImages(ctx, q.GetFilter())
	return &runtimeapi.ListImagesResponse{Images: list}, err
}

func (s *imageService) StreamImages(q *runtimeapi.StreamImagesRequest, stream grpc.ServerStreamingServer[runtimeapi.StreamImagesResponse]) error {
	list, err := s.i.ListImages(stream.Context(), q.GetFilter())
	return chunks(list, err, stream, func(part []*runtimeapi.Image) *runtimeapi.StreamImagesResponse {
		return &runtimeapi.StreamImagesResponse{Images: part}
	})
}

func (s *imageService) ImageStatus(ctx context.Context, q *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	return s.i.ImageStatus(ctx, q.GetImage(), q.GetVerbose())
}

func (s *imageService) PullImage(ctx context.Context, q *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	ref, err := s.i.PullImage(ctx, q.GetImage(), q.GetAuth(), q.GetSandboxConfig())
	return &runtimeapi.PullImageResponse{ImageRef: ref}, err
}

func (s *imageService) RemoveImage(ctx context.Context, q *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	return &runtimeapi.RemoveImageResponse{}, s.i.RemoveImage(ctx, q.GetImage())
}

func (s *imageService) ImageFsInfo(ctx context.Context, _ *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	return s.i.ImageFsInfo(ctx)
}
