package runtime

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// buildOldShim builds the shim as it was before its last change: at the last tag, if that is older, or in the commit before the change.
func buildOldShim(t *testing.T) string {
	t.Helper()
	git := func(args ...string) string {
		out, err := exec.Command("git", append([]string{"-C", "../.."}, args...)...).Output()
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(out))
	}
	paths := []string{"--", "cmd/carob-shim/*.go", "internal/runtime/shim", ":!*_test.go"}
	last := git(append([]string{"log", "-1", "--format=%H"}, paths...)...)
	commit := git("rev-parse", "--verify", last+"^")
	if tag := git("describe", "--tags", "--abbrev=0"); tag != "" && git(append([]string{"diff", "--name-only", tag}, paths...)...) != "" {
		commit = tag
	}
	if last == "" || commit == "" {
		t.Skip("there is no history to build an older shim from; the recorded conversation of its protocol is tested in any case")
	}
	dir := t.TempDir()
	archive, err := exec.Command("git", "-C", "../..", "archive", commit, "go.mod", "go.sum", "cmd/carob-shim", "internal/runtime/shim").Output()
	if err != nil {
		t.Fatal(err)
	}
	tar := exec.Command("tar", "x", "-C", dir)
	tar.Stdin = bytes.NewReader(archive)
	if out, err := tar.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	build := exec.Command("go", "build", "-o", dir+"/bin/carob-shim", "./cmd/carob-shim")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the shim of %s: %v: %s", commit, err, out)
	}
	t.Logf("the shim of %s", commit)
	return dir + "/bin/carob-shim"
}

// TestOldShim drives a shim of an earlier build, and finds it again as a carob does that was upgraded.
func TestOldShim(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	old := buildOldShim(t)
	b.Close(ctx)
	b.open()
	b.Runtime.shim = old
	pod := b.pod(b.podConfig("old"))
	b.start(pod, containerConfig("stays", "sh", "-c", "while read x; do echo got $x; done"))
	stdin := containerConfig("stdin", "sh", "-c", "while read x; do echo got $x; done; exit 4")
	stdin.Stdin, stdin.StdinOnce = true, true
	reads := b.start(pod, stdin)
	ends := b.start(pod, containerConfig("ends", "sh", "-c", "sleep 0.3; echo last; exit 6"))
	b.Close(ctx)
	time.Sleep(500 * time.Millisecond)
	b.open()
	if s := b.status(ends); s.ExitCode != 6 || b.log(ends) != "stdout F last\n" {
		t.Errorf("%v %q", s, b.log(ends))
	}
	if out, _, err := b.ExecSync(ctx, reads, []string{"echo", "hi"}, 0); err != nil || string(out) != "hi\n" {
		t.Errorf("exec: %q %v", out, err)
	}
	moved := b.status(reads).LogPath + ".1"
	if err := os.Rename(b.status(reads).LogPath, moved); err != nil {
		t.Fatal(err)
	}
	if err := b.ReopenContainerLog(ctx, reads); err != nil {
		t.Error(err)
	}
	var out buffer
	if err := b.Streaming().Attach(ctx, reads, strings.NewReader("1\n2\n"), &out, nil, false, nil); err != nil || out.String() != "got 1\ngot 2\n" {
		t.Errorf("attach: %q %v", out.String(), err)
	}
	if s := b.ended(reads); s.ExitCode != 4 || b.log(reads) != "stdout F got 1\nstdout F got 2\n" {
		t.Errorf("%v %q", s, b.log(reads))
	}
	more := b.start(pod, containerConfig("more", "sleep", "1000"))
	if err := b.StopContainer(ctx, more, 1); err != nil {
		t.Error(err)
	}
	if err := b.RemovePodSandbox(ctx, pod); err != nil {
		t.Error(err)
	}
}

// TestShimOfOtherVersion holds that a Pod whose shim cannot be spoken to ends, and that its containers say why.
func TestShimOfOtherVersion(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	source, err := os.ReadFile("shim/wire/frame.go")
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Replace(source, []byte("const Version = 1\n"), []byte("const Version = 77\n"), 1)
	dir := t.TempDir()
	overlay := filepath.Join(dir, "overlay.json")
	here, err := filepath.Abs("shim/wire/frame.go")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/frame.go", other, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, []byte(`{"Replace":{"`+here+`":"`+dir+`/frame.go"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-overlay", overlay, "-o", dir+"/carob-shim", "../../cmd/carob-shim").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pod := b.pod(b.podConfig("other"))
	id := b.start(pod, containerConfig("c", "sleep", "1000"))
	pid := b.containers[id].rec.PID
	b.Close(ctx)
	replaceShim(t, b, pod, dir+"/carob-shim")
	b.open()
	s := b.ended(id)
	if s.Reason != "ShimVersion" || !strings.Contains(s.Message, "version 77") || s.ExitCode != unknownExit {
		t.Error(s)
	}
	if ps, err := b.PodSandboxStatus(ctx, pod, false); err != nil || ps.Status.State != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("%v %v", ps, err)
	}
	gone(t, pid)
	if err := b.RemovePodSandbox(ctx, pod); err != nil {
		t.Error(err)
	}
}

// replaceShim has another program answer at a sandbox's socket.
func replaceShim(t *testing.T, b *bench, pod, program string) {
	t.Helper()
	dir, socket := t.TempDir(), b.cfg.shimSocket(pod)
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	fake := exec.Command(program, dir, socket, "boot")
	ours, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fake.ExtraFiles = []*os.File{theirs}
	if err := fake.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fake.Process.Kill(); fake.Wait(); ours.Close(); theirs.Close() })
	for range 200 {
		if _, err := os.Stat(socket); err == nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("no socket")
}

// gone holds that a process ends soon.
func gone(t *testing.T, pid int) {
	t.Helper()
	for range 200 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("process %d lives on", pid)
}
