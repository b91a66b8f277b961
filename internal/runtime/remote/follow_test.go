package remote

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	created = runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT
	started = runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT
	stopped = runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT
	deleted = runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT
)

// listen subscribes, and returns a function that waits for an event of the given kind and returns the container's status in it.
func listen(t *testing.T, r *Runtime) func(id string, kind runtimeapi.ContainerEventType) *runtimeapi.ContainerStatus {
	t.Helper()
	ch, up := make(chan *runtimeapi.ContainerEventResponse, 100), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go r.GetContainerEvents(ctx, ch, func(runtimeapi.RuntimeService_GetContainerEventsClient) { close(up) })
	<-up
	return func(id string, kind runtimeapi.ContainerEventType) *runtimeapi.ContainerStatus {
		t.Helper()
		limit := time.After(10 * time.Second)
		for {
			select {
			case ev := <-ch:
				if ev.GetContainerId() != id || ev.GetContainerEventType() != kind {
					continue
				}
				for _, c := range ev.GetContainersStatuses() {
					if c.GetId() == id {
						return c
					}
				}
				return nil
			case <-limit:
				t.Fatalf("no event %s of %s", kind, id)
			}
		}
	}
}

// pod makes a sandbox with a running container.
func pod(t *testing.T, r *Runtime, name string) (sandbox, container string) {
	t.Helper()
	config := &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "n", Uid: "u-" + name}}
	sandbox, err := r.RunPodSandbox(t.Context(), config, "")
	if err != nil {
		t.Fatal(err)
	}
	container, err = r.CreateContainer(t.Context(), sandbox, &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: "c"}}, config)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.StartContainer(t.Context(), container); err != nil {
		t.Fatal(err)
	}
	if config.Labels != nil {
		t.Error("the caller's own configuration was changed")
	}
	return sandbox, container
}

// TestNothingIsMissed: with events of its own or without, across a time when the runtime is away.
func TestNothingIsMissed(t *testing.T) {
	for _, mute := range []bool{false, true} {
		t.Run(fmt.Sprintf("mute=%v", mute), func(t *testing.T) {
			t.Parallel()
			f, socket := newFake(), socketOf(t)
			f.mute = mute
			stop := f.serve(t, socket)
			r := dial(t, socket)
			wait := listen(t, r)
			sandbox, c := pod(t, r, "a")
			wait(c, started)
			f.set(c, runtimeapi.ContainerState_CONTAINER_EXITED, 3)
			if st := wait(c, stopped); st.GetExitCode() != 3 || st.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
				t.Errorf("told %v", st)
			}
			_, c2 := pod(t, r, "b")
			_, c3 := pod(t, r, "c")
			wait(c3, started)
			stop()
			select {
			case <-r.Changed():
			case <-time.After(5 * time.Second):
				t.Fatal("the runtime went away and nobody was told")
			}
			f.set(c2, runtimeapi.ContainerState_CONTAINER_EXITED, 4)
			f.drop(c3)
			f.mu.Lock()
			delete(f.sandboxes, sandbox)
			f.mu.Unlock()
			f.drop(c)
			f.serve(t, socket)
			got := map[string]int32{}
			again := listen(t, r)
			got[c2] = wait(c2, stopped).GetExitCode()
			if got[c2] != 4 {
				t.Errorf("the exit while the runtime was away: %v", got)
			}
			if st := again(c3, deleted); st.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED || st.GetReason() != "ContainerStatusUnknown" {
				t.Errorf("a container that vanished: %v", st)
			}
			listen(t, r)
			select {
			case <-r.Changed():
			case <-time.After(5 * time.Second):
				t.Fatal("the runtime came back and nobody was told")
			}
			_, c4 := pod(t, r, "d")
			wait(c4, started)
		})
	}
}

func TestOthersAreLeftAlone(t *testing.T) {
	f, socket := newFake(), socketOf(t)
	f.serve(t, socket)
	r := dial(t, socket)
	other := &runtimeapi.RunPodSandboxRequest{Config: &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "x", Namespace: "n", Uid: "x"}}}
	if _, err := f.RunPodSandbox(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	sandbox, c := pod(t, r, "a")
	list, err := r.ListPodSandbox(t.Context(), nil)
	if err != nil || len(list) != 1 || list[0].GetId() != sandbox {
		t.Errorf("listed %v, %v", list, err)
	}
	st, err := r.PodSandboxStatus(t.Context(), sandbox, false)
	if err != nil || len(st.GetContainersStatuses()) != 1 || st.GetContainersStatuses()[0].GetId() != c {
		t.Errorf("status %v, %v", st, err)
	}
}

func TestChanges(t *testing.T) {
	sb := func(ready bool) *runtimeapi.PodSandboxStatus {
		s := &runtimeapi.PodSandboxStatus{Id: "s"}
		if !ready {
			s.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
		}
		return s
	}
	c := func(id string, s runtimeapi.ContainerState) *runtimeapi.ContainerStatus {
		return &runtimeapi.ContainerStatus{Id: id, State: s}
	}
	const (
		isCreated = runtimeapi.ContainerState_CONTAINER_CREATED
		isRunning = runtimeapi.ContainerState_CONTAINER_RUNNING
		hasExited = runtimeapi.ContainerState_CONTAINER_EXITED
	)
	for name, tc := range map[string]struct {
		before, after *sandboxSeen
		want          []change
	}{
		"new":              {nil, seen(sb(true), []*runtimeapi.ContainerStatus{c("a", isCreated)}), []change{{"s", started}, {"a", created}}},
		"the same":         {seen(sb(true), []*runtimeapi.ContainerStatus{c("a", isRunning)}), seen(sb(true), []*runtimeapi.ContainerStatus{c("a", isRunning)}), nil},
		"started":          {seen(sb(true), []*runtimeapi.ContainerStatus{c("a", isCreated)}), seen(sb(true), []*runtimeapi.ContainerStatus{c("a", isRunning)}), []change{{"a", started}}},
		"one ends":         {seen(sb(true), []*runtimeapi.ContainerStatus{c("a", isRunning), c("b", isRunning)}), seen(sb(true), []*runtimeapi.ContainerStatus{c("a", isRunning), c("b", hasExited)}), []change{{"b", stopped}}},
		"all ends":         {seen(sb(true), []*runtimeapi.ContainerStatus{c("a", isRunning)}), seen(sb(false), []*runtimeapi.ContainerStatus{c("a", hasExited)}), []change{{"a", stopped}, {"s", stopped}}},
		"removed":          {seen(sb(true), []*runtimeapi.ContainerStatus{c("a", hasExited)}), seen(sb(true), nil), []change{{"a", deleted}}},
		"the sandbox gone": {seen(sb(false), []*runtimeapi.ContainerStatus{c("a", hasExited)}), nil, []change{{"a", deleted}, {"s", deleted}}},
	} {
		got := changes(tc.before, tc.after)
		if fmt.Sprint(got) != fmt.Sprint(tc.want) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
	end := vanished(seen(sb(true), []*runtimeapi.ContainerStatus{c("a", isRunning), c("b", hasExited), c("c", isCreated)}), []*runtimeapi.ContainerStatus{c("c", isRunning)}, time.Unix(1, 0))
	if len(end) != 1 || !proto.Equal(end[0], &runtimeapi.ContainerStatus{Id: "a", State: hasExited, FinishedAt: 1e9, ExitCode: 137, Reason: "ContainerStatusUnknown",
		Message: "The container was removed from the runtime before its end was seen"}) {
		t.Errorf("vanished: %v", end)
	}
}
