package runtime

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
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
