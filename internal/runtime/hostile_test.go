package runtime

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// peak is the most memory that a process has had resident, in bytes.
func peak(t *testing.T, pid int) int {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// TestEndlessOutput holds that a container which writes without a pause starves nobody and costs the shim no memory.
func TestEndlessOutput(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	pod := b.pod(b.podConfig("endless"))
	shim := shimOf(t, b.sandboxes[pod].rec.PausePID)
	loud := b.start(pod, containerConfig("loud", "yes"))
	time.Sleep(300 * time.Millisecond)
	began := time.Now()
	b.ended(b.start(pod, containerConfig("quiet", "true")))
	if err := b.StopContainer(ctx, loud, 0); err != nil {
		t.Error(err)
		syscall.Kill(b.containers[loud].rec.PID, syscall.SIGKILL)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("starting and stopping took %v", took)
	}
	if n := peak(t, shim); n > 12<<20 {
		t.Errorf("the shim took %d KiB", n>>10)
	}
}

// TestLongErrors holds that what an OCI runtime complains of does not cost the Pod its shim, however long it is.
func TestLongErrors(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	pod := b.pod(b.podConfig("errors"))
	id := b.start(pod, containerConfig("c", "sleep", "1000"))
	for _, n := range []int{1000, 4000, 9000} {
		_, _, err := b.ExecSync(ctx, id, []string{strings.Repeat(`/"""""""`, n/8)}, 0)
		if err == nil || !strings.Contains(err.Error(), "OCI runtime exec failed") {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if s := b.status(id); s.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Error(s)
	}
}

// withRuntime has the bench use a program in place of crun: a script with this body.
func (b *bench) withRuntime(body string) {
	b.t.Helper()
	b.Close(context.Background())
	file := filepath.Join(b.cfg.Root, "bin-test", "crun")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
		b.t.Fatal(err)
	}
	b.cfg.OCIRuntimes = map[string]string{"": file}
	b.open()
}

// TestOrphans holds that the ends of many processes that the shim inherits do not hide the end of a container which is quicker than
// the OCI runtime that starts it.
func TestOrphans(t *testing.T) {
	b := newBench(t)
	b.withRuntime("crun \"$@\"\ncode=$?\nsleep 0.2\nexit $code\n")
	cfg, c := b.podConfig("orphans"), containerConfig("parent", "sh", "-c", "i=0; while test $i -lt 300; do (true &); i=$((i+1)); done")
	opt := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_NODE}
	cfg.Linux.SecurityContext.NamespaceOptions, c.Linux.SecurityContext.NamespaceOptions = opt, opt
	pod := b.pod(cfg)
	b.ended(b.start(pod, c))
	b.ended(b.start(pod, containerConfig("quick", "true")))
}

// TestTerminalsAtOnce starts containers with terminals at the same moment, and some that fail to start.
func TestTerminalsAtOnce(t *testing.T) {
	b := newBench(t)
	b.withRuntime("sleep 0.2\nexec crun \"$@\"\n")
	pod := b.pod(b.podConfig("terminals"))
	shim := shimOf(t, b.sandboxes[pod].rec.PausePID)
	files := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", shim))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := files()
	var wg sync.WaitGroup
	for i := range 4 {
		name := fmt.Sprint("t", i)
		c := containerConfig(name, "sh", "-c", "echo "+name)
		c.Tty = true
		id := b.create(pod, c)
		bad := containerConfig("bad"+name, "/not/there")
		bad.Tty = true
		badID := b.create(pod, bad)
		wg.Go(func() {
			if err := b.StartContainer(context.Background(), id); err != nil {
				t.Error(err)
				return
			}
			b.ended(id)
			time.Sleep(50 * time.Millisecond)
			if got := b.log(id); got != "stdout F "+name+"\r\n" {
				t.Errorf("%s: %q", name, got)
			}
			b.RemoveContainer(context.Background(), id)
		})
		wg.Go(func() {
			if err := b.StartContainer(context.Background(), badID); err == nil {
				t.Error("started")
			}
		})
	}
	wg.Wait()
	if now := files(); now != before {
		t.Errorf("%d descriptors became %d", before, now)
	}
}

// TestLastWords: a line that a container did not end is in its log when its end is told, though somebody else still holds its output open.
func TestLastWords(t *testing.T) {
	b := newBench(t)
	pod := b.pod(b.podConfig("words"))
	id := b.start(pod, containerConfig("a", "sh", "-c", "while ! test -e /held; do sleep 0.02; done; printf last"))
	b.mu.Lock()
	pid := b.containers[id].rec.PID
	b.mu.Unlock()
	held, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/1", pid), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, _, err := b.ExecSync(context.Background(), id, []string{"sh", "-c", "echo >/held"}, 0); err != nil {
		t.Fatal(err)
	}
	b.ended(id)
	if got := b.log(id); got != "stdout P last\n" {
		t.Errorf("%q", got)
	}
}
