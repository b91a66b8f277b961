package runtime

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/network"
	"carob.dev/carob/internal/runtime/shim/wire"
	"carob.dev/carob/internal/sys"
)

// TestShimDiesWhileStopping holds that a Pod whose shim is killed after an attempt to stop it can still be stopped.
func TestShimDiesWhileStopping(t *testing.T) {
	b := newBench(t)
	pod := b.pod(b.podConfig("stopping"))
	id := b.start(pod, containerConfig("c", "sleep", "1000"))
	b.mu.Lock()
	b.sandboxes[pod].stopping = true // as an attempt leaves it whose context ended
	b.mu.Unlock()
	syscall.Kill(shimOf(t, b.sandboxes[pod].rec.PausePID), syscall.SIGKILL)
	b.ended(id)
	if err := b.StopPodSandbox(context.Background(), pod); err != nil {
		t.Error(err)
	}
}

// TestShimDiesWhileStarting holds that an OCI runtime which outlives the shim that started it makes no container that nobody knows.
func TestShimDiesWhileStarting(t *testing.T) {
	b := newBench(t)
	b.Close(context.Background())
	slow := filepath.Join(b.cfg.Root, "slow", "crun")
	if err := os.MkdirAll(filepath.Dir(slow), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(slow, []byte("#!/bin/sh\nsleep 0.6\nexec crun \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.cfg.OCIRuntimes = map[string]string{"": slow}
	b.open()
	cfg, c := b.podConfig("starting"), containerConfig("c", "sleep", "1000")
	opt := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_NODE, Network: runtimeapi.NamespaceMode_NODE, Ipc: runtimeapi.NamespaceMode_NODE}
	cfg.Linux.SecurityContext.NamespaceOptions, c.Linux.SecurityContext.NamespaceOptions = opt, opt // none of pause's is needed
	pod := b.pod(cfg)
	id := b.create(pod, c)
	shim := shimOf(t, b.sandboxes[pod].rec.PausePID)
	time.AfterFunc(200*time.Millisecond, func() { syscall.Kill(shim, syscall.SIGKILL) })
	if err := b.StartContainer(context.Background(), id); err == nil {
		t.Error("started without a shim")
	}
	time.Sleep(time.Second)
	if pids, _ := sys.CgroupProcs(b.containers[id].rec.Cgroup); len(pids) > 0 {
		t.Errorf("processes that nobody knows: %v", pids)
	}
	if s := b.status(id); s.State != runtimeapi.ContainerState_CONTAINER_EXITED {
		t.Error(s)
	}
}

// killsPause is a network in which pause dies while it is being connected.
type killsPause struct {
	*fakeNetwork
	run string
}

func (n killsPause) Attach(ctx context.Context, req network.Request) (network.Result, error) {
	raw, err := os.ReadFile(filepath.Join(n.run, "shims", short(req.SandboxID), "pause"))
	var f wire.Frame
	if err == nil && f.Parse(raw) == nil {
		syscall.Kill(f.Pid, syscall.SIGKILL)
		time.Sleep(100 * time.Millisecond)
	}
	return n.fakeNetwork.Attach(ctx, req)
}

func TestPauseDiesWhileMade(t *testing.T) {
	b := newBench(t)
	b.Close(context.Background())
	b.cfg.Network = killsPause{b.cfg.Network.(*fakeNetwork), b.cfg.RunDir}
	b.open()
	cfg := b.podConfig("made")
	if err := sys.CgroupCreate(cfg.Linux.CgroupParent, sys.Resources{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.RunPodSandbox(context.Background(), cfg, ""); err == nil || !strings.Contains(err.Error(), "pause") {
		t.Errorf("a Pod without pause: %v", err)
	}
}

// TestStuckShim holds that a shim which was stopped does not keep carob from starting, and that its Pod ends with the reason.
func TestStuckShim(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for as long as a shim is given")
	}
	b := newBench(t)
	stuck, well := b.pod(b.podConfig("stuck")), b.pod(b.podConfig("well"))
	lost, kept := b.start(stuck, containerConfig("c", "sleep", "1000")), b.start(well, containerConfig("c", "sleep", "1000"))
	shim := shimOf(t, b.sandboxes[stuck].rec.PausePID)
	b.Close(context.Background())
	syscall.Kill(shim, syscall.SIGSTOP)
	began := time.Now()
	b.open()
	if took := time.Since(began); took > shimPatience+5*time.Second {
		t.Errorf("the start took %v", took)
	}
	if s := b.status(lost); s.State != runtimeapi.ContainerState_CONTAINER_EXITED || s.Reason != reasonShimDied || !strings.Contains(s.Message, "did not answer") {
		t.Errorf("%v", s)
	}
	if s := b.status(kept); s.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the other Pod: %v", s)
	}
}
