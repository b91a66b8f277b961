package runtime

import (
	"context"
	"errors"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	utilexec "k8s.io/utils/exec"

	"carob.dev/carob/internal/runtime/cri"
)

// served is the bench's runtime, as a client of its socket sees it.
func (b *bench) served() runtimeapi.RuntimeServiceClient {
	b.t.Helper()
	socket := filepath.Join(b.cfg.RunDir, "cri.sock")
	s, err := cri.Listen(cri.Config{Runtime: b.Runtime, Socket: socket})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Serve(ctx); close(done) }()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close(); cancel(); <-done })
	return runtimeapi.NewRuntimeServiceClient(conn)
}

// TestBadSandboxes sends what no sandbox can be made of: each is refused as the caller's mistake, and leaves nothing.
func TestBadSandboxes(t *testing.T) {
	b := newBench(t)
	client := b.served()
	for name, change := range map[string]func(*runtimeapi.RunPodSandboxRequest){
		"no config":               func(q *runtimeapi.RunPodSandboxRequest) { q.Config = nil },
		"no metadata":             func(q *runtimeapi.RunPodSandboxRequest) { q.Config.Metadata = nil },
		"no name":                 func(q *runtimeapi.RunPodSandboxRequest) { q.Config.Metadata.Name = "" },
		"no uid":                  func(q *runtimeapi.RunPodSandboxRequest) { q.Config.Metadata.Uid = "" },
		"uid climbs":              func(q *runtimeapi.RunPodSandboxRequest) { q.Config.Metadata.Uid = "../../up" },
		"unknown handler":         func(q *runtimeapi.RunPodSandboxRequest) { q.RuntimeHandler = "kata" },
		"handler climbs":          func(q *runtimeapi.RunPodSandboxRequest) { q.RuntimeHandler = "../../bin/sh" },
		"long hostname":           func(q *runtimeapi.RunPodSandboxRequest) { q.Config.Hostname = strings.Repeat("h", 65) },
		"hostname of two lines":   func(q *runtimeapi.RunPodSandboxRequest) { q.Config.Hostname = "a\nb" },
		"relative log directory":  func(q *runtimeapi.RunPodSandboxRequest) { q.Config.LogDirectory = "logs" },
		"cgroup parent climbs":    func(q *runtimeapi.RunPodSandboxRequest) { q.Config.Linux.CgroupParent = "/a/../../b" },
		"relative cgroup parent":  func(q *runtimeapi.RunPodSandboxRequest) { q.Config.Linux.CgroupParent = "a" },
		"cgroup parent is a root": func(q *runtimeapi.RunPodSandboxRequest) { q.Config.Linux.CgroupParent = "/" },
		"dns of two lines": func(q *runtimeapi.RunPodSandboxRequest) {
			q.Config.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"10.0.0.1\nnameserver 10.0.0.2"}}
		},
		"unsafe sysctl of the machine": func(q *runtimeapi.RunPodSandboxRequest) {
			q.Config.Linux.Sysctls = map[string]string{"vm.swappiness": "1"}
		},
		"sysctl climbs": func(q *runtimeapi.RunPodSandboxRequest) {
			q.Config.Linux.Sysctls = map[string]string{"net/../vm/swappiness": "1"}
		},
		"no such port": func(q *runtimeapi.RunPodSandboxRequest) {
			q.Config.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 70000, HostPort: 70000}}
		},
		"negative port": func(q *runtimeapi.RunPodSandboxRequest) {
			q.Config.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: -1}}
		},
		"no such host address": func(q *runtimeapi.RunPodSandboxRequest) {
			q.Config.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: 8080, HostIp: "here"}}
		},
		"unknown namespace mode": func(q *runtimeapi.RunPodSandboxRequest) {
			q.Config.Linux.SecurityContext.NamespaceOptions.Network = 17
		},
		"target without a container": func(q *runtimeapi.RunPodSandboxRequest) {
			q.Config.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_TARGET
		},
	} {
		q := &runtimeapi.RunPodSandboxRequest{Config: b.podConfig(strings.ReplaceAll(name, " ", "-"))}
		change(q)
		if resp, err := client.RunPodSandbox(t.Context(), q); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v %v", name, resp.GetPodSandboxId(), err)
		}
	}
	id := b.pod(b.podConfig("twice"))
	_, err := client.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: b.podConfig("twice")})
	if status.Code(err) != codes.AlreadyExists || !strings.Contains(err.Error(), id) {
		t.Errorf("the same attempt twice: %v", err)
	}
	list, err := client.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil || len(list.Items) != 1 {
		t.Errorf("%v: %v", err, list)
	}
}

// TestBadContainers is the same for containers.
func TestBadContainers(t *testing.T) {
	b := newBench(t)
	client := b.served()
	pod := b.pod(b.podConfig("pod"))
	good := b.create(pod, containerConfig("good", "sleep", "1000"))
	for name, change := range map[string]func(*runtimeapi.ContainerConfig){
		"no metadata":     func(c *runtimeapi.ContainerConfig) { c.Metadata = nil },
		"no name":         func(c *runtimeapi.ContainerConfig) { c.Metadata.Name = "" },
		"no image":        func(c *runtimeapi.ContainerConfig) { c.Image = nil },
		"log path climbs": func(c *runtimeapi.ContainerConfig) { c.LogPath = "../../../etc/cron.d/x" },
		"relative mount": func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{HostPath: "/tmp", ContainerPath: "x"}}
		},
		"relative source": func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{HostPath: "x", ContainerPath: "/x"}}
		},
		"empty source": func(c *runtimeapi.ContainerConfig) { c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/x"}} },
		"mount on the root": func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{HostPath: "/tmp", ContainerPath: "/x/.."}}
		},
		"unknown propagation": func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{HostPath: "/tmp", ContainerPath: "/x", Propagation: 9}}
		},
		"negative memory": func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: -5}
		},
		"negative shares": func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{CpuShares: -1}
		},
		"negative period": func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{CpuPeriod: -1}
		},
		"less swap than memory": func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: 32 << 20}
		},
		"oom score out of range": func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{OomScoreAdj: 5000}
		},
		"no such processor": func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{CpusetCpus: "a-b"}
		},
		"environment without a key": func(c *runtimeapi.ContainerConfig) {
			c.Envs = []*runtimeapi.KeyValue{{Key: "", Value: []byte("x")}}
		},
		"environment with a zero": func(c *runtimeapi.ContainerConfig) {
			c.Envs = []*runtimeapi.KeyValue{{Key: "A", Value: []byte("x\x00y")}}
		},
		"command with a zero": func(c *runtimeapi.ContainerConfig) { c.Command = []string{"echo", "x\x00y"} },
		"a device that is a file": func(c *runtimeapi.ContainerConfig) {
			c.Devices = []*runtimeapi.Device{{HostPath: "/etc/passwd", ContainerPath: "/dev/x", Permissions: "rwm"}}
		},
		"a device that may fly": func(c *runtimeapi.ContainerConfig) {
			c.Devices = []*runtimeapi.Device{{HostPath: "/dev/null", ContainerPath: "/dev/x", Permissions: "fly"}}
		},
		"unknown capability": func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"FLY"}}
		},
		"negative user": func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: -1}
		},
		"group beyond the last": func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.SupplementalGroups = []int64{1 << 40}
		},
		"no such user": func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.RunAsUsername = "nobody-there" },
	} {
		c := containerConfig(strings.ReplaceAll(name, " ", "-"), "true")
		change(c)
		want := codes.InvalidArgument
		resp, err := client.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: c, SandboxConfig: b.podConfig("pod")})
		if status.Code(err) != want {
			t.Errorf("%s: %v %v", name, resp.GetContainerId(), err)
		}
	}
	create := func(pod string, c *runtimeapi.ContainerConfig) error {
		_, err := client.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: c})
		return err
	}
	for name, c := range map[string]struct {
		err  error
		want codes.Code
	}{
		"the same attempt twice": {create(pod, containerConfig("good", "true")), codes.AlreadyExists},
		"no config":              {create(pod, nil), codes.InvalidArgument},
		"no such sandbox":        {create("none", containerConfig("c", "true")), codes.NotFound},
		"no sandbox":             {create("", containerConfig("c", "true")), codes.NotFound},
	} {
		if status.Code(c.err) != c.want {
			t.Errorf("%s: %v", name, c.err)
		}
	}
	list, err := client.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil || len(list.Containers) != 1 || list.Containers[0].Id != good {
		t.Errorf("%v: %v", err, list)
	}
}

// TestBadCalls holds the codes of calls on what is not there, or is not in that state.
func TestBadCalls(t *testing.T) {
	b := newBench(t)
	client := b.served()
	pod := b.pod(b.podConfig("pod"))
	created := b.create(pod, containerConfig("created", "sleep", "1000"))
	running := b.start(pod, containerConfig("running", "sleep", "1000"))
	ended := b.start(pod, containerConfig("ended", "true"))
	b.ended(ended)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	second := func(_ any, err error) error { return err }
	for _, c := range []struct {
		name string
		err  error
		want codes.Code
	}{
		{"status of no sandbox", second(client.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: "none"})), codes.NotFound},
		{"status of no container", second(client.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: "none"})), codes.NotFound},
		{"stats of no container", second(client.ContainerStats(ctx, &runtimeapi.ContainerStatsRequest{ContainerId: "none"})), codes.NotFound},
		{"stop no sandbox", second(client.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: "none"})), codes.OK},
		{"remove no sandbox", second(client.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: "none"})), codes.OK},
		{"stop no container", second(client.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: "none"})), codes.OK},
		{"remove no container", second(client.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: "none"})), codes.OK},
		{"start no container", second(client.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: "none"})), codes.NotFound},
		{"start twice", second(client.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: running})), codes.FailedPrecondition},
		{"start again", second(client.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: ended})), codes.FailedPrecondition},
		{"exec nothing", second(client.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: running})), codes.InvalidArgument},
		{"exec with patience below zero", second(client.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: running, Cmd: []string{"true"}, Timeout: -1})), codes.InvalidArgument},
		{"exec too long", second(client.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: running, Cmd: []string{"sleep", "100"}, Timeout: 1})), codes.DeadlineExceeded},
		{"exec before the start", second(client.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: created, Cmd: []string{"true"}})), codes.FailedPrecondition},
		{"exec after the end", second(client.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: ended, Cmd: []string{"true"}})), codes.FailedPrecondition},
		{"exec by URL, nothing", second(client.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: running, Stdout: true})), codes.InvalidArgument},
		{"exec by URL, no stream", second(client.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: running, Cmd: []string{"sh"}})), codes.InvalidArgument},
		{"exec by URL, tty and stderr", second(client.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: running, Cmd: []string{"sh"}, Tty: true, Stdout: true, Stderr: true})), codes.InvalidArgument},
		{"exec by URL after the end", second(client.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: ended, Cmd: []string{"sh"}, Stdout: true})), codes.FailedPrecondition},
		{"attach after the end", second(client.Attach(ctx, &runtimeapi.AttachRequest{ContainerId: ended, Stdout: true})), codes.FailedPrecondition},
		{"forward no such port", second(client.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: pod, Port: []int32{70000}})), codes.InvalidArgument},
		{"forward to no sandbox", second(client.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: "none", Port: []int32{80}})), codes.NotFound},
		{"reopen the log of one that ended", second(client.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: ended})), codes.FailedPrecondition},
		{"negative limit", second(client.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: running,
			Linux: &runtimeapi.LinuxContainerResources{CpuShares: -7}})), codes.InvalidArgument},
		{"limits of one that ended", second(client.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: ended,
			Linux: &runtimeapi.LinuxContainerResources{CpuShares: 7}})), codes.FailedPrecondition},
		{"checkpoint to no path", second(client.CheckpointContainer(ctx, &runtimeapi.CheckpointContainerRequest{ContainerId: running, Location: "x"})), codes.InvalidArgument},
		{"checkpoint after the end", second(client.CheckpointContainer(ctx, &runtimeapi.CheckpointContainerRequest{ContainerId: ended, Location: t.TempDir() + "/x"})),
			codes.FailedPrecondition},
		{"checkpoint of a Pod", second(client.CheckpointPod(ctx, &runtimeapi.CheckpointPodRequest{PodSandboxId: pod})), codes.Unimplemented},
		{"restore of a Pod", second(client.RestorePod(ctx, &runtimeapi.RestorePodRequest{})), codes.Unimplemented},
	} {
		if status.Code(c.err) != c.want {
			t.Errorf("%s: %v, want %v", c.name, c.err, c.want)
		}
	}
}

// TestEventsOnTheSocket holds that a client of the socket hears of each step of a container's life, in order, and that the stream ends with
// the client.
func TestEventsOnTheSocket(t *testing.T) {
	b := newBench(t)
	client := b.served()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := client.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for b.events.Len() == 0 {
		time.Sleep(time.Millisecond)
	}
	pod := b.pod(b.podConfig("events"))
	id := b.start(pod, containerConfig("main", "true"))
	b.ended(id)
	if err := b.RemovePodSandbox(ctx, pod); err != nil {
		t.Fatal(err)
	}
	var got []string
	for len(got) < 7 {
		ev, err := stream.Recv()
		if err != nil {
			t.Fatal(err, got)
		}
		name := map[string]string{id: "container", pod: "pod"}[ev.ContainerId]
		got = append(got, name+" "+strings.TrimSuffix(strings.TrimPrefix(ev.ContainerEventType.String(), "CONTAINER_"), "_EVENT"))
	}
	want := []string{"pod STARTED", "container CREATED", "container STARTED", "container STOPPED", "pod STOPPED", "container DELETED", "pod DELETED"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	cancel()
	for deadline := time.Now().Add(5 * time.Second); b.events.Len() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the stream did not end with its client")
		}
	}
}

// TestStreamsByURL runs a command by the URL that the socket answers with, over each of the protocols that clients speak. The WebSocket one that
// CRI servers speak, v4, cannot say that the input has ended.
func TestStreamsByURL(t *testing.T) {
	b := newBench(t)
	client := b.served()
	id := b.start(b.pod(b.podConfig("urls")), containerConfig("main", "sleep", "1000"))
	executors := map[string]func(*url.URL) (remotecommand.Executor, error){
		"SPDY": func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(&rest.Config{}, "POST", u)
		},
		"WebSocket": func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutorForProtocols(&rest.Config{}, "GET", u.String(), "v4.channel.k8s.io")
		},
	}
	for name, dial := range executors {
		resp, err := client.Exec(t.Context(), &runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"sh", "-c", "cat; printf text; echo problem >&2; exit 4"},
			Stdin: name == "SPDY", Stdout: true, Stderr: true})
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(resp.Url)
		if err != nil {
			t.Fatal(err)
		}
		if host := u.Hostname(); host != "127.0.0.1" {
			t.Errorf("%s is not loopback", host)
		}
		exec, err := dial(u)
		if err != nil {
			t.Fatal(err)
		}
		var out, stderr strings.Builder
		options, want := remotecommand.StreamOptions{Stdout: &out, Stderr: &stderr}, "text"
		if name == "SPDY" {
			options.Stdin, want = strings.NewReader("input and "), "input and text"
		}
		err = exec.StreamWithContext(t.Context(), options)
		var exit utilexec.ExitError
		if !errors.As(err, &exit) || exit.ExitStatus() != 4 || out.String() != want || stderr.String() != "problem\n" {
			t.Errorf("%s: %v, out %q, err %q", name, err, out.String(), stderr.String())
		}
		if exec, err = dial(u); err == nil {
			err = exec.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &out})
		}
		if err == nil {
			t.Errorf("%s: the URL served twice", name)
		}
	}
}
