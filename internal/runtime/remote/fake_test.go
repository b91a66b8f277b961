package remote

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeCRI is a runtime on a socket that keeps its states in memory.
type fakeCRI struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer

	// mute has it tell no events, as a runtime that does not know the call.
	mute   bool
	driver runtimeapi.CgroupDriver

	mu         sync.Mutex // guards all below
	sandboxes  map[string]*runtimeapi.PodSandboxStatus
	containers map[string]*fakeContainer
	events     map[chan *runtimeapi.ContainerEventResponse]bool
	lists      int
}

type fakeContainer struct {
	*runtimeapi.ContainerStatus
	sandbox string
}

func newFake() *fakeCRI {
	return &fakeCRI{driver: runtimeapi.CgroupDriver_CGROUPFS, sandboxes: map[string]*runtimeapi.PodSandboxStatus{}, containers: map[string]*fakeContainer{},
		events: map[chan *runtimeapi.ContainerEventResponse]bool{}}
}

// serve answers at the socket until stop.
func (f *fakeCRI) serve(t *testing.T, socket string) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(s, f)
	runtimeapi.RegisterImageServiceServer(s, f)
	go s.Serve(l)
	stop = sync.OnceFunc(s.Stop)
	t.Cleanup(stop)
	return stop
}

// dial connects to the socket and keeps the events flowing until the test ends.
func dial(t *testing.T, socket string) *Runtime {
	t.Helper()
	c, err := Dial(t.Context(), Config{Endpoint: "unix://" + socket, Owner: "carob-1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Runtime.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done; c.Close() })
	return c.Runtime
}

func socketOf(t *testing.T) string { return filepath.Join(t.TempDir(), "cri.sock") }

func (f *fakeCRI) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "fake", RuntimeVersion: "v7", RuntimeApiVersion: "v1"}, nil
}

func (f *fakeCRI) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: f.driver}}, nil
}

func (f *fakeCRI) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{}, nil
}

func (f *fakeCRI) ExecSync(context.Context, *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	return nil, status.Error(codes.DeadlineExceeded, "too slow")
}

func (f *fakeCRI) RunPodSandbox(_ context.Context, r *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := fmt.Sprintf("s%d", len(f.sandboxes)+1)
	f.sandboxes[id] = &runtimeapi.PodSandboxStatus{Id: id, Metadata: r.GetConfig().GetMetadata(), CreatedAt: 1, Labels: r.GetConfig().GetLabels()}
	f.tell(id, id, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

func (f *fakeCRI) CreateContainer(_ context.Context, r *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := fmt.Sprintf("c%d", len(f.containers)+1)
	f.containers[id] = &fakeContainer{&runtimeapi.ContainerStatus{Id: id, Metadata: r.GetConfig().GetMetadata(), CreatedAt: 1, Labels: r.GetConfig().GetLabels(),
		Image: &runtimeapi.ImageSpec{Image: "i"}, ImageRef: "i"}, r.GetPodSandboxId()}
	f.tell(id, r.GetPodSandboxId(), runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

func (f *fakeCRI) StartContainer(_ context.Context, r *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	f.set(r.GetContainerId(), runtimeapi.ContainerState_CONTAINER_RUNNING, 0)
	return &runtimeapi.StartContainerResponse{}, nil
}

// set gives a container a state, with an event.
func (f *fakeCRI) set(id string, state runtimeapi.ContainerState, code int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[id]
	c.ContainerStatus = &runtimeapi.ContainerStatus{Id: id, Metadata: c.GetMetadata(), CreatedAt: 1, Labels: c.GetLabels(), Image: c.GetImage(),
		ImageRef: c.GetImageRef(), State: state, ExitCode: code}
	f.tell(id, c.sandbox, kindOf(state))
}

// drop takes a container away without a word.
func (f *fakeCRI) drop(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.containers, id)
}

// tell is called with mu held.
func (f *fakeCRI) tell(id, sandbox string, kind runtimeapi.ContainerEventType) {
	ev := &runtimeapi.ContainerEventResponse{ContainerId: id, ContainerEventType: kind, PodSandboxStatus: f.sandboxes[sandbox]}
	for _, c := range f.containers {
		if c.sandbox == sandbox {
			ev.ContainersStatuses = append(ev.ContainersStatuses, c.ContainerStatus)
		}
	}
	for ch := range f.events {
		ch <- ev
	}
}

func (f *fakeCRI) GetContainerEvents(_ *runtimeapi.GetEventsRequest, s runtimeapi.RuntimeService_GetContainerEventsServer) error {
	if f.mute {
		return status.Error(codes.Unimplemented, "no such call")
	}
	ch := make(chan *runtimeapi.ContainerEventResponse, 100)
	f.mu.Lock()
	f.events[ch] = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.events, ch)
	}()
	for {
		select {
		case ev := <-ch:
			if err := s.Send(ev); err != nil {
				return err
			}
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

func fits(labels, want map[string]string) bool {
	for k, v := range want {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func (f *fakeCRI) ListPodSandbox(_ context.Context, r *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	out := &runtimeapi.ListPodSandboxResponse{}
	for s := range maps.Values(f.sandboxes) {
		if fits(s.GetLabels(), r.GetFilter().GetLabelSelector()) {
			out.Items = append(out.Items, &runtimeapi.PodSandbox{Id: s.GetId(), Metadata: s.GetMetadata(), State: s.GetState(), Labels: s.GetLabels()})
		}
	}
	return out, nil
}

func (f *fakeCRI) ListContainers(_ context.Context, r *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &runtimeapi.ListContainersResponse{}
	for c := range maps.Values(f.containers) {
		if s := r.GetFilter().GetPodSandboxId(); fits(c.GetLabels(), r.GetFilter().GetLabelSelector()) && (s == "" || s == c.sandbox) {
			out.Containers = append(out.Containers, &runtimeapi.Container{Id: c.GetId(), PodSandboxId: c.sandbox, Metadata: c.GetMetadata(), State: c.GetState()})
		}
	}
	return out, nil
}

func (f *fakeCRI) PodSandboxStatus(_ context.Context, r *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sandboxes[r.GetPodSandboxId()]
	if s == nil {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	return &runtimeapi.PodSandboxStatusResponse{Status: s}, nil
}

func (f *fakeCRI) ContainerStatus(_ context.Context, r *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[r.GetContainerId()]
	if c == nil {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	return &runtimeapi.ContainerStatusResponse{Status: c.ContainerStatus}, nil
}
