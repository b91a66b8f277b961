package runtime

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"carob.dev/carob/internal/agent/logs"
	"carob.dev/carob/internal/sys"
)

// busyChild is a carob that is killed while it rotates the log of one container as fast as it can, runs a process in another, and is
// attached to a third, whose output it does not take. It says when it is.
func busyChild(r *Runtime, containers map[string]string) error {
	ctx := context.Background()
	clock := clocktesting.NewFakeClock(time.Now())
	rotator := logs.NewRotator(logs.Limits{MaxSize: 32 << 10, MaxFiles: 1 << 20}, r.ReopenContainerLog, clock, slog.New(slog.DiscardHandler))
	st, err := r.ContainerStatus(ctx, containers["writes"], false)
	if err != nil {
		return err
	}
	rotator.Add(containers["writes"], st.GetStatus().GetLogPath())
	go rotator.Run(ctx)
	go func() {
		for {
			time.Sleep(time.Millisecond)
			clock.Step(10 * time.Second)
		}
	}()
	go r.ExecSync(ctx, containers["stays"], []string{"sleep", "1000"}, 0)
	_, full, err := os.Pipe()
	if err != nil {
		return err
	}
	go r.Streaming().Attach(ctx, containers["watched"], nil, full, nil, false, nil)
	for n := 0; n != 2; { // the container's own sleep, and that of the exec
		if n, err = countSleeps(r.containers[containers["stays"]].rec.Cgroup); err != nil {
			return err
		}
	}
	fmt.Println("busy")
	select {}
}

func countSleeps(cgroup string) (int, error) {
	pids, err := sys.CgroupProcs(cgroup)
	n := 0
	for _, pid := range pids {
		if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); string(comm) == "sleep\n" {
			n++
		}
	}
	return n, err
}

// numbered holds that the lines that come are the numbers from 0 on, each once, in order, and returns how many there are.
func numbered(in io.Reader) (n int, err error) {
	sc := bufio.NewScanner(in)
	for sc.Scan() {
		if sc.Text() != fmt.Sprint(n) {
			return n, fmt.Errorf("%q in place of %d", sc.Text(), n)
		}
		n++
	}
	return n, sc.Err()
}

// TestSurvives kills a carob again and again while a container writes numbered lines at full speed and its log is rotated, a process runs in
// another, and a session is attached to a third and full; others end meanwhile, one with a code, one for want of memory. Nothing is missed:
// each number is seen once, in order, by a follower and in the files; exits, codes and the OOM kill are known; whoever waited for the killed
// carob does not.
func TestSurvives(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	pod := b.pod(b.podConfig("survives"))
	script := func(s string) []string { return []string{"sh", "-c", s} }
	ids := map[string]string{
		"writes":  b.start(pod, containerConfig("writes", script("i=0; until test -e /tmp/stop; do echo $i; i=$((i+1)); done; exit 9")...)),
		"stays":   b.start(pod, containerConfig("stays", "sleep", "1000")),
		"watched": b.start(pod, containerConfig("watched", script("i=0; while test $i -lt 50000; do echo $i; i=$((i+1)); done; exit 8")...)),
	}
	hog := containerConfig("hog", script("sleep 1; x=$(yes 0123456789012345678901234567890123456789 | head -c 100000000); echo ${#x}")...)
	hog.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 16 << 20}
	hogID := b.start(pod, hog)
	codeID := b.start(pod, containerConfig("code", script("sleep 1.2; exit 7")...))
	path := b.status(ids["writes"]).LogPath
	r, w := io.Pipe()
	over, followed := make(chan struct{}), make(chan int, 1)
	go func() { w.CloseWithError(logs.Follow(ctx, path, logs.Options{}, w, w, over)) }()
	go func() {
		n, err := numbered(r)
		if err != nil {
			t.Errorf("the follower: %v", err)
		}
		r.CloseWithError(err)
		followed <- n
	}()
	b.Close(ctx)
	raw, err := json.Marshal(childConfig{b.cfg.Root, b.cfg.RunDir, b.cfg.CgroupRoot, b.cfg.Images.(fakeImages).layer, ids})
	if err != nil {
		t.Fatal(err)
	}
	rotations := func() int {
		files, _ := filepath.Glob(path + ".*")
		return len(files)
	}
	rounds, want := 6, 50
	if testing.Short() {
		rounds, want = 2, 2
	}
	for i := 0; i < rounds || i < 60 && rotations() < want; i++ {
		longer := time.Duration(1 + i/10) // where many rounds were not enough to rotate
		killBusyChild(t, string(raw), longer*time.Duration(100+37*(i%7))*time.Millisecond)
	}
	b.open()
	// The command can be killed with the container that it stops (137): what counts is the container's exit code.
	_, _, stopErr := b.ExecSync(ctx, ids["writes"], []string{"sh", "-c", "echo >/tmp/stop"}, 0)
	for id, want := range map[string]int32{ids["writes"]: 9, ids["watched"]: 8, codeID: 7} {
		if s := b.ended(id); s.ExitCode != want {
			t.Errorf("%s: %v, %v", s.Metadata.Name, s, stopErr)
		}
	}
	if s := b.ended(hogID); s.Reason != "OOMKilled" {
		t.Error(s)
	}
	if n := strings.Count(b.log(ids["watched"]), "\n"); n != 50000 {
		t.Errorf("watched: %d lines", n)
	}
	if n, err := countSleeps(b.containers[ids["stays"]].rec.Cgroup); err != nil || n != 1 || b.status(ids["stays"]).State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("%d processes, %v: the killed carob's are still there, or the container is not", n, err)
	}
	close(over)
	seen := <-followed
	r, w = io.Pipe()
	go func() { w.CloseWithError(logs.Read(path, logs.Options{}, w, w)) }()
	if n, err := numbered(r); err != nil || n != seen {
		t.Errorf("the files: %d lines, the follower saw %d, %v", n, seen, err)
	}
	if t.Logf("%d lines, %d rotations", seen, rotations()); rotations() < want {
		t.Error("too few")
	}
}

func killBusyChild(t *testing.T, config string, after time.Duration) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+config)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "busy\n" {
		t.Errorf("the child says %q, %v", line, err)
	}
	time.Sleep(after)
	cmd.Process.Kill()
	if cmd.Wait(); !strings.Contains(cmd.ProcessState.String(), "killed") {
		t.Errorf("the child ended by itself: %v", cmd.ProcessState)
	}
}

// TestShimDiesWithAll kills the shim of a Pod with orphans, a process that was started in a container, and a session: nothing stays, and
// nobody waits on.
func TestShimDiesWithAll(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	cfg := b.podConfig("all")
	opt := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_NODE} // so that the kernel ends none of them by itself
	cfg.Linux.SecurityContext.NamespaceOptions = opt
	pod := b.pod(cfg)
	var ids []string
	for i := range 3 {
		c := containerConfig(fmt.Sprint("c", i), "sh", "-c", "(sleep 1000 &) ; sleep 1000 & sleep 1000")
		c.Linux.SecurityContext.NamespaceOptions = opt
		ids = append(ids, b.start(pod, c))
	}
	execd, attached := make(chan error, 1), make(chan error, 1)
	go func() {
		_, _, err := b.ExecSync(ctx, ids[0], []string{"sleep", "1000"}, 0)
		execd <- err
	}()
	go func() { attached <- b.Streaming().Attach(ctx, ids[1], nil, &buffer{}, nil, false, nil) }()
	cgroup := b.containers[ids[0]].rec.Cgroup
	for n := 0; n != 4; {
		var err error
		if n, err = countSleeps(cgroup); err != nil {
			t.Fatal(err)
		}
	}
	syscall.Kill(shimOf(t, b.sandboxes[pod].rec.PausePID), syscall.SIGKILL)
	for _, id := range ids {
		if s := b.ended(id); s.Reason != "ShimDied" {
			t.Error(s)
		}
	}
	for name, ch := range map[string]chan error{"exec": execd, "attach": attached} {
		select {
		case err := <-ch:
			t.Logf("%s: %v", name, err)
		case <-time.After(5 * time.Second):
			t.Errorf("%s is still waited for", name)
		}
	}
	time.Sleep(50 * time.Millisecond)
	for _, cg := range []string{"/" + b.cfg.CgroupRoot + "/shims", "/" + b.cfg.CgroupRoot + "/kubepods"} {
		if pids, err := sys.CgroupProcs(cg); err != nil || len(pids) > 0 {
			t.Errorf("left in %s: %v %v", cg, pids, err)
		}
	}
}
