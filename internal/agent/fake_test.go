package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/agent/volume"
	"carob.dev/carob/internal/sys"
)

// fakeRuntime keeps sandboxes and containers in memory and tells its events at once. A method that is not here panics.
type fakeRuntime struct {
	cri.RuntimeService

	mu         sync.Mutex
	n          int
	calls      []string
	starts     map[string]int // by the container's name
	sandboxes  map[string]*runtimeapi.PodSandboxStatus
	containers map[string]*fakeContainer
	subs       map[chan *runtimeapi.ContainerEventResponse]context.Context
	// hangStop has StopContainer wait for its context; fails maps a method to its error.
	hangStop bool
	fails    map[string]error
	exec     func(ctx context.Context, cmd []string) error
}

type fakeContainer struct {
	runtimeapi.ContainerStatus
	sandbox string
	config  *runtimeapi.ContainerConfig
}

func newFakeRuntime() *fakeRuntime {
	return &fakeRuntime{starts: map[string]int{}, sandboxes: map[string]*runtimeapi.PodSandboxStatus{}, containers: map[string]*fakeContainer{},
		subs: map[chan *runtimeapi.ContainerEventResponse]context.Context{}, fails: map[string]error{}}
}

func (r *fakeRuntime) called(what string) error {
	r.calls = append(r.calls, what)
	return r.fails[what]
}

// tell is called with r.mu held.
func (r *fakeRuntime) tell(kind runtimeapi.ContainerEventType, id, sandbox string) {
	ev := &runtimeapi.ContainerEventResponse{ContainerId: id, ContainerEventType: kind, PodSandboxStatus: r.sandboxes[sandbox], ContainersStatuses: r.statuses(sandbox)}
	for ch, ctx := range r.subs {
		select {
		case ch <- ev:
		case <-ctx.Done():
		}
	}
}

func (r *fakeRuntime) statuses(sandbox string) []*runtimeapi.ContainerStatus {
	var list []*runtimeapi.ContainerStatus
	for _, c := range r.containers {
		if c.sandbox == sandbox {
			list = append(list, c.copy())
		}
	}
	return list
}

func (c *fakeContainer) copy() *runtimeapi.ContainerStatus {
	return &runtimeapi.ContainerStatus{Id: c.Id, Metadata: c.Metadata, State: c.State, StartedAt: c.StartedAt, FinishedAt: c.FinishedAt, ExitCode: c.ExitCode,
		Reason: c.Reason, Message: c.Message, Mounts: c.Mounts, LogPath: c.LogPath}
}

func (r *fakeRuntime) GetContainerEvents(ctx context.Context, ch chan *runtimeapi.ContainerEventResponse, up func(runtimeapi.RuntimeService_GetContainerEventsClient)) error {
	r.mu.Lock()
	r.subs[ch] = ctx
	r.mu.Unlock()
	up(nil)
	<-ctx.Done()
	r.mu.Lock()
	delete(r.subs, ch)
	r.mu.Unlock()
	return ctx.Err()
}

func (r *fakeRuntime) Status(context.Context, bool) (*runtimeapi.StatusResponse, error) {
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{}}, nil
}

func (r *fakeRuntime) RunPodSandbox(_ context.Context, c *runtimeapi.PodSandboxConfig, _ string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.called("RunPodSandbox"); err != nil {
		return "", err
	}
	r.n++
	id := fmt.Sprintf("sandbox-%d", r.n)
	r.sandboxes[id] = &runtimeapi.PodSandboxStatus{Id: id, Metadata: c.GetMetadata(), State: runtimeapi.PodSandboxState_SANDBOX_READY,
		Network: &runtimeapi.PodSandboxNetworkStatus{Ip: fmt.Sprintf("10.0.0.%d", r.n)}}
	return id, nil
}

func (r *fakeRuntime) PodSandboxStatus(_ context.Context, id string, _ bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[id]
	if s == nil {
		return nil, status.Errorf(codes.NotFound, "sandbox %s not found", id)
	}
	return &runtimeapi.PodSandboxStatusResponse{Status: s, ContainersStatuses: r.statuses(id)}, nil
}

func (r *fakeRuntime) ListPodSandbox(context.Context, *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*runtimeapi.PodSandbox
	for _, s := range r.sandboxes {
		list = append(list, &runtimeapi.PodSandbox{Id: s.GetId(), Metadata: s.GetMetadata(), State: s.GetState()})
	}
	return list, nil
}

// pauseDies has the sandbox's pause end by itself.
func (r *fakeRuntime) pauseDies(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[id]
	r.sandboxes[id] = &runtimeapi.PodSandboxStatus{Id: id, Metadata: s.GetMetadata(), State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY, Network: s.GetNetwork()}
	r.tell(runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, id, id)
}

func (r *fakeRuntime) StopPodSandbox(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.called("StopPodSandbox"); err != nil {
		return err
	}
	for _, c := range r.containers {
		if c.sandbox == id && c.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			r.end(c, 137)
		}
	}
	if s := r.sandboxes[id]; s != nil {
		r.sandboxes[id] = &runtimeapi.PodSandboxStatus{Id: id, Metadata: s.GetMetadata(), State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY}
	}
	return nil
}

func (r *fakeRuntime) RemovePodSandbox(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.called("RemovePodSandbox"); err != nil {
		return err
	}
	delete(r.sandboxes, id)
	for cid, c := range r.containers {
		if c.sandbox == id {
			delete(r.containers, cid)
		}
	}
	return nil
}

func (r *fakeRuntime) CreateContainer(_ context.Context, sandbox string, c *runtimeapi.ContainerConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.called("CreateContainer"); err != nil {
		return "", err
	}
	for _, other := range r.containers {
		if other.Metadata.GetName() == c.GetMetadata().GetName() && other.sandbox == sandbox && other.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			panic("two copies of " + c.GetMetadata().GetName())
		}
	}
	r.n++
	id := fmt.Sprintf("%s-%d", c.GetMetadata().GetName(), r.n)
	f := &fakeContainer{sandbox: sandbox, config: c}
	f.Id, f.Metadata, f.Mounts = id, c.GetMetadata(), c.GetMounts()
	f.State = runtimeapi.ContainerState_CONTAINER_CREATED
	r.containers[id] = f
	r.tell(runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, id, sandbox)
	return id, nil
}

func (r *fakeRuntime) StartContainer(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if err := r.called("StartContainer"); err != nil {
		c.Message = err.Error()
		r.end(c, 128)
		return err
	}
	c.State, c.StartedAt = runtimeapi.ContainerState_CONTAINER_RUNNING, time.Now().UnixNano()
	r.starts[c.Metadata.GetName()]++
	r.tell(runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, id, c.sandbox)
	return nil
}

func (r *fakeRuntime) end(c *fakeContainer, code int32) {
	c.State, c.ExitCode, c.FinishedAt, c.Reason = runtimeapi.ContainerState_CONTAINER_EXITED, code, time.Now().UnixNano(), "Error"
	if code == 0 {
		c.Reason = "Completed"
	}
	r.tell(runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, c.Id, c.sandbox)
}

// exits ends the running instance of a container.
func (r *fakeRuntime) exits(name string, code int32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.Metadata.GetName() == name && c.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			r.end(c, code)
			return true
		}
	}
	return false
}

func (r *fakeRuntime) StopContainer(ctx context.Context, id string, timeout int64) error {
	r.mu.Lock()
	hang := r.hangStop && timeout > 1
	r.calls = append(r.calls, fmt.Sprintf("StopContainer %d", timeout))
	r.mu.Unlock()
	for hang { // until it ends by itself
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
		r.mu.Lock()
		c := r.containers[id]
		hang = c != nil && c.State == runtimeapi.ContainerState_CONTAINER_RUNNING
		r.mu.Unlock()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.containers[id]; c != nil && c.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
		r.end(c, 143)
	}
	return nil
}

func (r *fakeRuntime) RemoveContainer(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.containers, id)
	return nil
}

func (r *fakeRuntime) ContainerStatus(_ context.Context, id string, _ bool) (*runtimeapi.ContainerStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return nil, status.Errorf(codes.NotFound, "container %s not found", id)
	}
	return &runtimeapi.ContainerStatusResponse{Status: c.copy()}, nil
}

func (r *fakeRuntime) ReopenContainerLog(context.Context, string) error { return nil }

func (r *fakeRuntime) ExecSync(ctx context.Context, _ string, cmd []string, _ time.Duration) ([]byte, []byte, error) {
	if r.exec == nil {
		return nil, nil, nil
	}
	return nil, nil, r.exec(ctx, cmd)
}

// fakeVolumes has every volume at one path; ready says when they are.
type fakeVolumes struct {
	mu      sync.Mutex
	err     error
	torn    []types.UID
	updates int
	// overdue says that a token wants to be renewed, always.
	overdue bool
}

func (v *fakeVolumes) set(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.err = err
}

func (v *fakeVolumes) Setup(_ context.Context, pod *corev1.Pod) (map[string]volume.Mounted, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	m := map[string]volume.Mounted{}
	for _, vol := range pod.Spec.Volumes {
		m[vol.Name] = volume.Mounted{Path: "/volumes/" + vol.Name}
	}
	return m, v.err
}

func (v *fakeVolumes) Resolve(_ context.Context, _ *corev1.Pod, _ string, m corev1.VolumeMount) (string, error) {
	return "/volumes/" + m.Name, nil
}

func (v *fakeVolumes) Update(context.Context, *corev1.Pod) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.updates++
	return nil
}

func (v *fakeVolumes) RefreshAt(types.UID) (time.Time, bool) { return time.Unix(1, 0), v.overdue }

func (v *fakeVolumes) Teardown(_ context.Context, uid types.UID) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.torn = append(v.torn, uid)
	return nil
}

type fakeCgroups struct{}

func (fakeCgroups) Create(string, sys.Resources) error { return nil }
func (fakeCgroups) Remove(string) error                { return nil }
func (fakeCgroups) SwapControl(string) (bool, error)   { return false, nil }

func (fakeCgroups) MemoryUsed(string) (uint64, error) { return 0, nil }
