package runtime

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/network"
	"carob.dev/carob/internal/network/ipam"
)

func TestWanted(t *testing.T) {
	t0 := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	at := func(seconds ...int) (list []time.Time) {
		for _, s := range seconds {
			list = append(list, t0.Add(time.Duration(s)*time.Second))
		}
		return list
	}
	for name, c := range map[string]struct {
		now          int
		asked        []time.Time
		least, limit int
		want, until  int
	}{
		"nothing happens":        {0, nil, 1, 4, 1, -1},
		"nothing, and no least":  {0, nil, 0, 4, 0, -1},
		"one was asked for":      {1, at(0), 0, 4, 1, 60},
		"three":                  {10, at(0, 5, 9), 1, 4, 3, 60},
		"the first is forgotten": {60, at(0, 5, 9), 1, 4, 2, 65},
		"all are":                {69, at(0, 5, 9), 1, 4, 1, -1},
		"more than may be":       {10, at(1, 2, 3, 4, 5), 1, 4, 4, 61},
		"none may be":            {10, at(1, 2), 1, 0, 0, 61},
	} {
		n, until := wanted(t0.Add(time.Duration(c.now)*time.Second), c.asked, c.least, c.limit)
		u := -1
		if !until.IsZero() {
			u = int(until.Sub(t0) / time.Second)
		}
		if diff := cmp.Diff([]int{c.want, c.until}, []int{n, u}); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestKindOf(t *testing.T) {
	config := func(opt *runtimeapi.NamespaceOption, ports ...*runtimeapi.PortMapping) *runtimeapi.PodSandboxConfig {
		return &runtimeapi.PodSandboxConfig{PortMappings: ports,
			Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: opt}}}
	}
	const node, container = runtimeapi.NamespaceMode_NODE, runtimeapi.NamespaceMode_CONTAINER
	for name, c := range map[string]struct {
		config *runtimeapi.PodSandboxConfig
		kind   kind
		ok     bool
	}{
		"usual":          {config(&runtimeapi.NamespaceOption{Pid: container}), kind{false}, true},
		"host's pids":    {config(&runtimeapi.NamespaceOption{Pid: node}), kind{false}, true},
		"shared pids":    {config(&runtimeapi.NamespaceOption{}), kind{true}, true},
		"host's network": {config(&runtimeapi.NamespaceOption{Pid: container, Network: node}), kind{false}, false},
		"host's IPC":     {config(&runtimeapi.NamespaceOption{Pid: container, Ipc: node}), kind{false}, false},
		"own users": {config(&runtimeapi.NamespaceOption{Pid: container, UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD}}),
			kind{false}, false},
		"host's users": {config(&runtimeapi.NamespaceOption{Pid: container, UsernsOptions: &runtimeapi.UserNamespace{Mode: node}}), kind{false}, true},
		"a port":       {config(&runtimeapi.NamespaceOption{Pid: container}, &runtimeapi.PortMapping{ContainerPort: 80}), kind{false}, true},
		"a host port":  {config(&runtimeapi.NamespaceOption{Pid: container}, &runtimeapi.PortMapping{HostPort: 80, ContainerPort: 80}), kind{false}, false},
	} {
		k, ok := kindOf(c.config)
		if ok != c.ok || ok && k != c.kind {
			t.Errorf("%s: %v, %v", name, k, ok)
		}
	}
}

// reopen opens the runtime anew with warm sandboxes.
func (b *bench) reopen(warm int) {
	b.t.Helper()
	if err := b.Close(context.Background()); err != nil {
		b.t.Fatal(err)
	}
	b.cfg.WarmSandboxes = warm
	b.open()
}

// warmIDs waits until there are n warm sandboxes of the kind.
func (b *bench) warmIDs(k kind, n int) (ids []string) {
	b.t.Helper()
	for range 500 {
		ids = nil
		b.warm.mu.Lock()
		for _, sb := range b.warm.ready[k] {
			ids = append(ids, sb.rec.ID)
		}
		b.warm.mu.Unlock()
		if len(ids) == n {
			return ids
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.t.Fatalf("%d warm sandboxes, want %d", len(ids), n)
	return nil
}

// TestWarm has Pods take warm sandboxes: they are as any other Pod's.
func TestWarm(t *testing.T) {
	b := newBench(t)
	b.reopen(2)
	ctx := context.Background()
	first := b.warmIDs(kind{}, 1)[0]
	if list, _ := b.ListPodSandbox(ctx, nil); len(list) != 0 {
		t.Errorf("warm sandboxes are listed: %v", list)
	}
	cfg := b.podConfig("one")
	cfg.Hostname = "one-host"
	cfg.Linux.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "1000", "kernel.shm_rmid_forced": "1"}
	pod := b.pod(cfg)
	if pod != first {
		t.Errorf("made anew though one was ready: %s, not %s", pod, first)
	}
	id := b.start(pod, containerConfig("c", "sh", "-c",
		"hostname; cat /etc/hostname /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced; echo x >/dev/shm/x && ls /dev/shm"))
	b.ended(id)
	if diff := cmp.Diff("stdout F one-host\nstdout F one-host\nstdout F 1000\nstdout F 1\nstdout F x\n", b.log(id)); diff != "" {
		t.Error(diff)
	}
	b.warmIDs(kind{}, 1) // one was asked for in the last minute
	shared := b.podConfig("two")
	shared.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	b.pod(shared)
	shared = b.podConfig("three")
	shared.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	ready := b.warmIDs(kind{sharedPID: true}, 1)[0]
	if pod := b.pod(shared); pod != ready {
		t.Error("made anew though one with a shared pid namespace was ready")
	}
	b.reopen(2)
	if list, _ := b.ListPodSandbox(ctx, nil); len(list) != 3 {
		t.Errorf("%d Pods after opening anew", len(list))
	}
}

// TestWarmDies holds that a warm sandbox that dies is not given to a Pod, and that another takes its place.
func TestWarmDies(t *testing.T) {
	b := newBench(t)
	b.reopen(1)
	first := b.warmIDs(kind{}, 1)[0]
	b.warm.mu.Lock()
	pause := b.warm.ready[kind{}][0].rec.PausePID
	b.warm.mu.Unlock()
	syscall.Kill(pause, syscall.SIGKILL)
	for range 200 {
		if next := b.warmIDs(kind{}, 1)[0]; next != first {
			b.pod(b.podConfig("p"))
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("a dead warm sandbox stays")
}

// TestWarmForgets holds that what nobody asks for any more is given up, down to one.
func TestWarmForgets(t *testing.T) {
	b := newBench(t)
	b.reopen(3)
	for i := range 3 {
		b.pod(b.podConfig(strconv.Itoa(i)))
	}
	b.warmIDs(kind{}, 3)
	b.warm.mu.Lock()
	for i := range b.warm.asked[kind{}] {
		b.warm.asked[kind{}][i] = time.Now().Add(-warmMemory)
	}
	b.warm.mu.Unlock()
	b.warm.poke()
	b.warmIDs(kind{}, 1)
}

// narrow is a network with few addresses.
type narrow struct {
	*fakeNetwork
	size int
}

func (n narrow) Attach(ctx context.Context, req network.Request) (network.Result, error) {
	n.mu.Lock()
	full := len(n.attached) >= n.size
	n.mu.Unlock()
	if full {
		return network.Result{}, fmt.Errorf("attach: %w", ipam.ErrExhausted)
	}
	return n.fakeNetwork.Attach(ctx, req)
}

// TestWarmGivesBack holds that a Pod which cannot use a warm sandbox gets its address if no other is left.
func TestWarmGivesBack(t *testing.T) {
	b := newBench(t)
	b.cfg.Network = narrow{b.cfg.Network.(*fakeNetwork), 2}
	b.reopen(1)
	b.warmIDs(kind{}, 1)
	for i := range 2 {
		cfg := b.podConfig(strconv.Itoa(i))
		cfg.PortMappings = []*runtimeapi.PortMapping{{HostPort: int32(80 + i), ContainerPort: 80}}
		b.pod(cfg)
	}
}

// TestWarmAfterCrash holds that warm sandboxes of a carob that was killed are taken apart by the next.
func TestWarmAfterCrash(t *testing.T) {
	b := newBench(t)
	b.reopen(1)
	left := b.warmIDs(kind{}, 1)[0]
	old := b.Runtime
	old.warm.end()
	<-old.warm.ended
	old.mu.Lock()
	old.closed = true
	old.mu.Unlock()
	b.cfg.WarmSandboxes = 0
	b.open()
	if _, err := os.Stat(b.cfg.sandboxDir(left)); !os.IsNotExist(err) {
		t.Errorf("the record of a warm sandbox: %v", err)
	}
	if mounts, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(mounts), left) {
		t.Error("its /dev/shm is still mounted")
	}
	if _, err := os.Stat(filepath.Join(b.cfg.RunDir, "s", short(left))); !os.IsNotExist(err) {
		t.Errorf("its shim's socket: %v", err)
	}
}
