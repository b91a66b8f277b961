package containerd

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// raw is a message that is passed on as it is.
type raw struct{ data []byte }

type rawCodec struct{}

func (rawCodec) Name() string { return "raw" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.(*raw).data)}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	v.(*raw).data = data.Materialize()
	return nil
}

// silence stands before a runtime and knows all calls but GetContainerEvents, as older runtimes do. It returns the endpoint, and a count of
// the calls.
func (m *machine) silence(endpoint string) (string, *atomic.Int64) {
	m.Helper()
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{})))
	if err != nil {
		m.Fatal(err)
	}
	calls := new(atomic.Int64)
	pass := func(_ any, s grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(s)
		if strings.HasSuffix(method, "/GetContainerEvents") {
			return status.Error(codes.Unimplemented, "unknown method GetContainerEvents")
		}
		calls.Add(1)
		var in, out raw
		if err := s.RecvMsg(&in); err != nil {
			return err
		}
		if err := conn.Invoke(s.Context(), method, &in, &out); err != nil {
			return err
		}
		return s.SendMsg(&out)
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.UnknownServiceHandler(pass))
	socket := filepath.Join(m.Dir, "silent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		m.Fatal(err)
	}
	go server.Serve(l)
	m.top.Cleanup(func() { server.Stop(); conn.Close() })
	return "unix://" + socket, calls
}

// TestWithoutEvents has the agent compare states once a second, and tells what that costs with ten Pods beside what events cost.
func TestWithoutEvents(t *testing.T) {
	m := newMachine(t)
	daemon, loud := m.startContainerd()
	silent, calls := m.silence(loud)
	c := m.cluster(loud)
	t.Cleanup(func() { c.carob("uninstall") })
	measure := func(what string) {
		c.Helper()
		time.Sleep(3 * time.Second) // what went before has calmed down
		const long = 15 * time.Second
		agent, before := c.daemon(), calls.Load()
		ours, theirs := processor(t, agent), processor(t, daemon.Process.Pid)
		time.Sleep(long)
		percent := func(d time.Duration) float64 { return 100 * d.Seconds() / long.Seconds() }
		t.Logf("idle with 10 Pods, %s: carob %.2f %% of a core, containerd %.2f %%, %.1f calls a second through the proxy", what,
			percent(processor(t, agent)-ours), percent(processor(t, daemon.Process.Pid)-theirs), float64(calls.Load()-before)/long.Seconds())
	}
	c.step("events", func() {
		c.mustCarob(c.upArgs()...)
		c.apply(`apiVersion: apps/v1
kind: Deployment
metadata: {name: idle}
spec:
  replicas: 10
  selector: {matchLabels: {app: idle}}
  template:
    metadata: {labels: {app: idle}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: busybox, command: [sleep, "9999"]}]
`)
		c.kubectl("rollout", "status", "deployment/idle", "--timeout=120s")
		measure("events")
	})
	c.step("no events", func() {
		c.killDaemon()
		c.endpoint = silent
		out, err := c.carob(c.upArgs()...)
		if err == nil {
			c.Error("it started with another endpoint although Pods run on the old one")
		}
		want(c, "carob up with another endpoint", out, "PodsElsewhere", loud)
		c.mustCarob("down")
		c.mustCarob(c.upArgs()...)
		c.waitGet("pods -l app=idle", "{range .items[*]}{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready} {end}", strings.Repeat("1 true ", 10))
		measure("states compared")
		c.apply(busybox("ends", "sleep 2; echo bye; exit 6", ""))
		c.kubectl("wait", "--for=condition=Ready", "--timeout=30s", "pod/ends")
		began := time.Now()
		if out := c.kubectl("logs", "-f", "ends"); out != "bye\n" {
			c.Errorf("kubectl logs -f: %q", out)
		}
		c.waitGet("pod ends", "{.status.phase} {.status.containerStatuses[0].state.terminated.exitCode}", "Failed 6")
		t.Logf("the end of a container of 2 s was told %s after it was ready", time.Since(began).Round(10*time.Millisecond))
		c.killContainer("idle")
	})
	c.finish(func() {})
}

// killContainer removes a Pod's container behind the agent's back, between two looks: it is started again.
func (c *cluster) killContainer(app string) {
	c.Helper()
	pod := c.get("pods -l app="+app, "{.items[0].metadata.name}")
	id := strings.TrimPrefix(c.get("pod "+pod, "{.status.containerStatuses[0].containerID}"), "containerd://")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := c.cri().RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id}); err != nil {
		c.Fatal(err)
	}
	c.waitGet("pod "+pod, "{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}", "1 true")
}
