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

	"carob.dev/carob/internal/sys"
)

func TestStop(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	pod := b.pod(b.podConfig("stop"))
	for name, c := range map[string]struct {
		script  string
		timeout int64
		code    int32
		within  time.Duration
	}{
		"obeys":   {"trap 'exit 9' TERM; while true; do sleep 0.05; done", 10, 9, 2 * time.Second},
		"ignores": {"trap '' TERM; while true; do sleep 0.05; done", 1, 137, 3 * time.Second},
		"at-once": {"trap '' TERM; sleep 1000", 0, 137, time.Second},
	} {
		id := b.start(pod, containerConfig(name, "sh", "-c", c.script))
		time.Sleep(100 * time.Millisecond)
		began := time.Now()
		if err := b.StopContainer(ctx, id, c.timeout); err != nil {
			t.Fatal(err)
		}
		if s := b.ended(id); s.ExitCode != c.code || time.Since(began) > c.within {
			t.Errorf("%s: code %d after %v", name, s.ExitCode, time.Since(began))
		}
		if err := b.StopContainer(ctx, id, 1); err != nil {
			t.Error(err)
		}
	}
}

func TestStartErrors(t *testing.T) {
	b := newBench(t)
	pod := b.pod(b.podConfig("errors"))
	for _, handler := range []string{"", "runc"} {
		b.sandboxes[pod].rec.Handler = handler
		for i, c := range []struct{ command, want string }{
			{"nothere", `exec: "nothere": executable file not found in $PATH`},
			{"/not/there", `exec: "/not/there": stat /not/there: no such file or directory`},
			{"/plain", `exec: "/plain": permission denied`},
		} {
			id := b.create(pod, containerConfig(fmt.Sprintf("c%s%d", handler, i), c.command))
			err := b.StartContainer(context.Background(), id)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q %s: %v", handler, c.command, err)
			}
			if s := b.status(id); s.ExitCode != 128 || s.Reason != "StartError" || s.State != runtimeapi.ContainerState_CONTAINER_EXITED {
				t.Errorf("%q %s: %v", handler, c.command, s)
			}
		}
	}
}

func TestOutOfMemory(t *testing.T) {
	b := newBench(t)
	pod := b.pod(b.podConfig("oom"))
	c := containerConfig("c", "sh", "-c", "x=$(yes 0123456789012345678901234567890123456789 | head -c 100000000); echo ${#x}")
	c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 16 << 20, CpuShares: 512, CpuQuota: 100000, CpuPeriod: 100000, OomScoreAdj: 900}
	if s := b.ended(b.start(pod, c)); s.Reason != "OOMKilled" || s.ExitCode == 0 {
		t.Errorf("%v", s)
	}
}

func nsOf(t *testing.T, pid int, kind string) string {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// TestEquals holds what a Pod is: its containers share pause's net, ipc and uts, have their own mnt and pid, and none outlives its own end.
func TestEquals(t *testing.T) {
	b := newBench(t)
	pod := b.pod(b.podConfig("equals"))
	a, c := b.start(pod, containerConfig("a", "sleep", "1000")), b.start(pod, containerConfig("b", "sleep", "1000"))
	pause := b.sandboxes[pod].rec.PausePID
	pidA, pidC := b.containers[a].rec.PID, b.containers[c].rec.PID
	for _, kind := range []string{"net", "ipc", "uts"} {
		if n := nsOf(t, pause, kind); n != nsOf(t, pidA, kind) || n != nsOf(t, pidC, kind) || n == nsOf(t, os.Getpid(), kind) {
			t.Errorf("%s is not shared", kind)
		}
	}
	for _, kind := range []string{"mnt", "pid"} {
		if nsOf(t, pidA, kind) == nsOf(t, pidC, kind) || nsOf(t, pidA, kind) == nsOf(t, pause, kind) {
			t.Errorf("%s is shared", kind)
		}
	}
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pidA))
	parent := strings.Fields(string(stat))[3]
	comm, _ := os.ReadFile("/proc/" + parent + "/comm")
	if string(comm) != "carob-shim\n" {
		t.Errorf("the parent of a container is %q", comm)
	}
	checkPause(t, pause, parent)
	if err := b.StopContainer(context.Background(), a, 0); err != nil {
		t.Fatal(err)
	}
	if b.status(c).State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Error("the other container ended too")
	}
}

// checkPause holds that pause can do nothing and shows nothing.
func checkPause(t *testing.T, pause int, parent string) {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pause))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Name:\tpause\n", "PPid:\t" + parent + "\n", "Uid:\t65535\t65535\t65535\t65535\n", "CapPrm:\t0000000000000000\n", "NoNewPrivs:\t1\n"} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("pause: no %q in\n%s", want, raw)
		}
	}
	if entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/root/", pause)); err != nil || len(entries) != 0 {
		t.Errorf("pause shows files: %v %v", entries, err)
	}
	mounts, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pause))
	if n := strings.Count(string(mounts), "\n"); n != 2 || strings.Count(string(mounts), " - tmpfs shm ") != 1 {
		t.Errorf("pause has %d mounts, and should have its root and /dev/shm:\n%s", n, mounts)
	}
	if fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pause)); len(fds) != 0 {
		t.Errorf("pause has files open: %v", fds)
	}
}

func TestSharedProcessNamespace(t *testing.T) {
	b := newBench(t)
	cfg := b.podConfig("shared")
	cfg.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	pod := b.pod(cfg)
	c := containerConfig("a", "sh", "-c", "cat /proc/1/comm; (sleep 0.1 & ) ; sleep 0.4; ps | grep -v ps; ls /proc/1/root/ /proc/1/root/../ 2>&1; exec sleep 1000")
	c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	id := b.start(pod, c)
	time.Sleep(700 * time.Millisecond)
	log := b.log(id)
	if !strings.HasPrefix(log, "stdout F pause\n") || strings.Contains(log, "Z") || strings.Contains(log, "etc") {
		t.Errorf("%s", log)
	}
	if err := b.StopContainer(context.Background(), id, 0); err != nil {
		t.Fatal(err)
	}
}

func TestHostNamespaces(t *testing.T) {
	b := newBench(t)
	cfg := b.podConfig("host")
	opt := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_NODE, Network: runtimeapi.NamespaceMode_NODE, Ipc: runtimeapi.NamespaceMode_NODE}
	cfg.Linux.SecurityContext.NamespaceOptions = opt
	pod := b.pod(cfg)
	c := containerConfig("a", "sh", "-c", "sleep 1000 & sleep 1000")
	c.Linux.SecurityContext.NamespaceOptions = opt
	id := b.start(pod, c)
	for _, kind := range []string{"net", "pid", "ipc", "uts"} {
		if nsOf(t, b.containers[id].rec.PID, kind) != nsOf(t, os.Getpid(), kind) {
			t.Errorf("%s is not the host's", kind)
		}
	}
	if len(b.cfg.Network.(*fakeNetwork).attached) != 0 {
		t.Error("a Pod in the host's network was attached")
	}
	time.Sleep(100 * time.Millisecond)
	if err := b.StopContainer(context.Background(), id, 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if pids, _ := sys.CgroupProcs(b.containers[id].rec.Cgroup); len(pids) != 0 {
		t.Errorf("processes survived their container: %v", pids)
	}
}

func TestPauseDies(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ch := make(chan *runtimeapi.ContainerEventResponse, 10)
	ready := make(chan bool, 1)
	go b.GetContainerEvents(ctx, ch, func(runtimeapi.RuntimeService_GetContainerEventsClient) { ready <- true })
	<-ready
	pod := b.pod(b.podConfig("pause"))
	id := b.start(pod, containerConfig("a", "sleep", "1000"))
	syscall.Kill(b.sandboxes[pod].rec.PausePID, syscall.SIGKILL)
	var got []string
	for len(got) < 4 {
		select {
		case ev := <-ch:
			who := map[string]string{pod: "pod", id: "container"}[ev.ContainerId]
			got = append(got, who+" "+ev.ContainerEventType.String()+" "+ev.PodSandboxStatus.State.String())
		case <-time.After(3 * time.Second):
			t.Fatalf("only %v", got)
		}
	}
	want := []string{"pod CONTAINER_STARTED_EVENT SANDBOX_READY", "container CONTAINER_CREATED_EVENT SANDBOX_READY",
		"container CONTAINER_STARTED_EVENT SANDBOX_READY", "pod CONTAINER_STOPPED_EVENT SANDBOX_NOTREADY"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func shimOf(t *testing.T, pause int) int {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pause))
	if err != nil {
		t.Fatal(err)
	}
	pid, _ := strconv.Atoi(strings.Fields(string(stat))[3])
	return pid
}

func TestShimDies(t *testing.T) {
	b := newBench(t)
	pod := b.pod(b.podConfig("shim"))
	id := b.start(pod, containerConfig("a", "sleep", "1000"))
	pause := b.sandboxes[pod].rec.PausePID
	syscall.Kill(shimOf(t, pause), syscall.SIGKILL)
	if s := b.ended(id); s.ExitCode != 255 || s.Reason != "ShimDied" || !strings.Contains(s.Message, "carob-shim") {
		t.Error(s)
	}
	time.Sleep(50 * time.Millisecond)
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pause)); err == nil && strings.Fields(string(stat))[2] != "Z" {
		t.Errorf("pause survived its shim: %s", stat)
	}
	if pids, _ := sys.CgroupProcs(b.containers[id].rec.Cgroup); len(pids) != 0 {
		t.Errorf("processes survived their shim: %v", pids)
	}
}

// TestReopen lets the runtime go while containers run and end, and has a new one find out.
func TestReopen(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	pod := b.pod(b.podConfig("reopen"))
	stays := b.start(pod, containerConfig("stays", "sh", "-c", "while true; do echo tick; sleep 0.02; done"))
	ends := b.start(pod, containerConfig("ends", "sh", "-c", "sleep 0.2; exit 6"))
	waits := b.create(pod, containerConfig("waits", "true"))
	b.Close(ctx)
	time.Sleep(400 * time.Millisecond)
	b.open()
	if s := b.status(ends); s.ExitCode != 6 || s.State != runtimeapi.ContainerState_CONTAINER_EXITED {
		t.Error(s)
	}
	if s := b.status(stays); s.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Error(s)
	}
	if err := b.StartContainer(ctx, waits); err != nil {
		t.Error(err)
	}
	if s := b.ended(waits); s.ExitCode != 0 {
		t.Error(s)
	}
	if n := strings.Count(b.log(stays), "tick"); n < 10 {
		t.Errorf("%d lines while nobody watched", n)
	}
	if err := os.WriteFile(filepath.Join(b.cfg.Root, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}
