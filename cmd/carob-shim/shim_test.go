package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	client "carob.dev/carob/internal/runtime/shim"
	"carob.dev/carob/internal/runtime/shim/wire"
)

// binary is the shim's program, which TestMain builds.
var binary string

// TestMain lets the test binary play an OCI runtime: it is what the shims of these tests are told to run.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "--root" {
		if err := ociRuntime(os.Args[1:]); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	dir, err := os.MkdirTemp("", "carob-shim-")
	if err != nil {
		panic(err)
	}
	binary = dir + "/carob-shim"
	if out, err := exec.Command("go", "build", "-ldflags", "-s -w", "-o", binary, ".").CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// ociRuntime starts the shell script that is the bundle, or the process of an exec, as a detached process.
func ociRuntime(args []string) error {
	flags := map[string]string{}
	for i, a := range args {
		if strings.HasPrefix(a, "--") && i+1 < len(args) {
			flags[a] = args[i+1]
		}
	}
	script, err := os.ReadFile(flags["--bundle"] + flags["--process"])
	if err != nil {
		return errors.Join(err, os.WriteFile(flags["--log"], []byte(`{"level":"error","msg":"no such bundle"}`), 0o600))
	}
	cmd := exec.Command("/bin/sh", "-c", string(script))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if path := flags["--console-socket"]; path != "" {
		tty, err := sendTerminal(path)
		if err != nil {
			return err
		}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	return os.WriteFile(flags["--pid-file"], []byte(strconv.Itoa(cmd.Process.Pid)), 0o600)
}

// sendTerminal makes a terminal, sends its master side to a socket, and returns the other.
func sendTerminal(path string) (*os.File, error) {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(s, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, err
	}
	return tty, unix.Sendmsg(s, []byte("tty"), unix.UnixRights(master), nil, 0)
}

// bench is a shim with containers that are shell scripts.
type bench struct {
	*client.Client
	t   testing.TB
	dir string
	pid int

	mu      sync.Mutex // guards what follows
	reports []wire.Frame
	more    chan struct{}
}

func newBench(t testing.TB) *bench {
	t.Helper()
	dir, err := os.MkdirTemp("", "carob-s-") // sockets' paths are short
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, dir: dir, more: make(chan struct{})}
	t.Cleanup(b.clean)
	spec := client.Spec{Binary: binary, Dir: dir, Socket: dir + "/s", Boot: "boot", Within: func(start func() error) error { return start() }}
	if b.Client, b.pid, err = client.Start(spec, b.heard, func() {}); err != nil {
		t.Fatal(err)
	}
	b.ask(wire.Frame{Op: wire.OpHello})
	return b
}

func (b *bench) clean() {
	if b.Client != nil {
		b.Client.Close()
		syscall.Kill(b.pid, syscall.SIGKILL)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.reports {
		if f.Pid > 0 && f.Exited == 0 && !slices.ContainsFunc(b.reports, func(o wire.Frame) bool { return o.ID == f.ID && o.Exited != 0 }) {
			syscall.Kill(f.Pid, syscall.SIGKILL)
		}
	}
	if b.t.Failed() {
		log, _ := os.ReadFile(b.dir + "/shim.log")
		b.t.Logf("the shim says: %s", log)
	}
	os.RemoveAll(b.dir)
}

func (b *bench) heard(f wire.Frame) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reports = append(b.reports, f)
	close(b.more)
	b.more = make(chan struct{})
}

// wait returns the first report that fits.
func (b *bench) wait(fits func(wire.Frame) bool) wire.Frame {
	b.t.Helper()
	late := time.After(20 * time.Second)
	for {
		b.mu.Lock()
		i, more := slices.IndexFunc(b.reports, fits), b.more
		var f wire.Frame
		if i >= 0 {
			f = b.reports[i]
		}
		b.mu.Unlock()
		if i >= 0 {
			return f
		}
		select {
		case <-more:
		case <-late:
			b.t.Fatalf("no such report among %+v", b.reports)
		}
	}
}

func (b *bench) ended(id string) wire.Frame {
	b.t.Helper()
	return b.wait(func(f wire.Frame) bool { return f.Op == wire.OpExit && f.ID == id })
}

func (b *bench) ask(f wire.Frame, fds ...int) wire.Frame {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := b.Ask(ctx, f, fds...)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// frame is the request for a container that is a shell script.
func (b *bench) frame(id, script string) wire.Frame {
	b.t.Helper()
	bundle := b.dir + "/b-" + id
	if err := os.WriteFile(bundle, []byte(script), 0o600); err != nil {
		b.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	return wire.Frame{Op: wire.OpRun, ID: id, Bin: self, Root: "/", Bundle: bundle, Log: b.log(id)}
}

func (b *bench) log(id string) string { return b.dir + "/log-" + id }

// run starts a container.
func (b *bench) run(id, script string) int {
	b.t.Helper()
	return b.ask(b.frame(id, script)).Pid
}

// exec is the request for a process in a container.
func (b *bench) exec(id, of, script string) wire.Frame {
	b.t.Helper()
	f := b.frame(id, script)
	f.Op, f.Of, f.Process, f.Bundle = wire.OpExec, of, f.Bundle, ""
	return f
}

// entries are those of a log, without times.
func (b *bench) entries(file string) string {
	b.t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		b.t.Fatal(err)
	}
	var out bytes.Buffer
	for line := range bytes.Lines(raw) {
		at, rest, _ := bytes.Cut(line, []byte{' '})
		if _, err := time.Parse(time.RFC3339Nano, string(at)); err != nil {
			b.t.Errorf("log entry %q: %v", line, err)
		}
		out.Write(rest)
	}
	return out.String()
}

func (b *bench) files() int {
	b.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.pid))
	if err != nil {
		b.t.Fatal(err)
	}
	return len(list)
}

// TestSignals holds that a shim ends by none but SIGKILL, and that its children ignore none.
func TestSignals(t *testing.T) {
	b := newBench(t)
	pid := b.run("c", "exec sleep 1000")
	signals := []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGUSR1}
	for _, sig := range signals {
		if err := syscall.Kill(b.pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(50 * time.Millisecond)
	b.ask(wire.Frame{Op: wire.OpHello})
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"SigIgn", "SigBlk"} {
		_, rest, _ := strings.Cut(string(raw), "\n"+name+":\t")
		mask, err := strconv.ParseUint(rest[:min(16, len(rest))], 16, 64)
		for _, sig := range signals { // others may be ignored where the tests were started
			if err != nil || mask&(1<<(sig-1)) != 0 {
				t.Errorf("%s of a container: %x holds %v, %v", name, mask, sig, err)
			}
		}
	}
	b.ask(wire.Frame{Op: wire.OpKill, ID: "c", Sig: int(syscall.SIGTERM)})
	if f := b.ended("c"); f.Sig != int(syscall.SIGTERM) || f.Code != 143 {
		t.Errorf("%+v", f)
	}
}

// TestOutOfMemory holds that an OOM kill is noted with the exit, in both versions' files.
func TestOutOfMemory(t *testing.T) {
	b := newBench(t)
	for i, c := range []struct {
		file, text string
		oom        int
	}{
		{"memory.events", "low 0\noom 1\noom_kill 1\n", 1},
		{"memory.events", "low 0\noom 1\noom_kill 0\n", 0},
		{"memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", 1},
	} {
		cgroup := fmt.Sprintf("%s/cg%d", b.dir, i)
		if err := errors.Join(os.Mkdir(cgroup, 0o700), os.WriteFile(filepath.Join(cgroup, c.file), []byte(c.text), 0o600)); err != nil {
			t.Fatal(err)
		}
		f := b.frame(fmt.Sprint("c", i), "exit 4")
		f.Cgroup = cgroup
		b.ask(f)
		if got := b.ended(f.ID); got.OOM != c.oom || got.Code != 4 {
			t.Errorf("%s %q: %+v", c.file, c.text, got)
		}
	}
}

// TestExecs runs many at once, in a container that lives, in one that ends meanwhile, and in one that is not there.
func TestExecs(t *testing.T) {
	b := newBench(t)
	b.run("c", "exec sleep 1000")
	b.ask(wire.Frame{Op: wire.OpHello}) // it has done what it does after its answer
	before := b.files()
	var wg sync.WaitGroup
	for i := range 100 {
		f := b.exec(fmt.Sprint("x", i), "c", fmt.Sprint("exit ", i))
		wg.Go(func() {
			if _, err := b.Ask(context.Background(), f); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range 100 {
		if f := b.ended(fmt.Sprint("x", i)); f.Code != i || f.Of != "c" {
			t.Errorf("exec %d: %+v", i, f)
		}
	}
	now := b.files()
	for range 100 {
		if now == before {
			break
		}
		time.Sleep(5 * time.Millisecond)
		now = b.files()
	}
	if now != before {
		t.Errorf("%d descriptors became %d", before, now)
	}
	b.ask(wire.Frame{Op: wire.OpKill, ID: "c", Sig: 9})
	b.ended("c")
	var refusal *client.Refusal
	for _, of := range []string{"c", "none"} {
		if _, err := b.Ask(context.Background(), b.exec("y", of, "true")); !errors.As(err, &refusal) {
			t.Errorf("exec in %s: %v", of, err)
		}
	}
}

// TestExecEndsWithItsCarob holds that a process whose streams led to a carob that is gone does not stay.
func TestExecEndsWithItsCarob(t *testing.T) {
	b := newBench(t)
	b.run("c", "exec sleep 1000")
	other, err := client.Connect(b.dir+"/s", func(wire.Frame) {}, func() {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Ask(context.Background(), b.exec("theirs", "c", "exec sleep 1000")); err != nil {
		t.Fatal(err)
	}
	b.ask(b.exec("ours", "c", "exec sleep 1000"))
	other.Close()
	if f := b.ended("theirs"); f.Sig != int(syscall.SIGKILL) {
		t.Errorf("%+v", f)
	}
	b.ask(wire.Frame{Op: wire.OpKill, ID: "ours", Sig: int(syscall.SIGTERM)})
	if f := b.ended("ours"); f.Sig != int(syscall.SIGTERM) {
		t.Errorf("%+v", f)
	}
}

// TestOrphans inherits thousands of processes while a container starts.
func TestOrphans(t *testing.T) {
	b := newBench(t)
	b.run("parent", "i=0; while test $i -lt 3000; do (true &); i=$((i+1)); done; exit 6")
	b.run("quick", "exit 5")
	if f := b.ended("quick"); f.Code != 5 {
		t.Errorf("%+v", f)
	}
	if f := b.ended("parent"); f.Code != 6 {
		t.Errorf("%+v", f)
	}
	var children []byte
	for range 100 {
		var err error
		if children, err = os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", b.pid, b.pid)); err != nil {
			t.Fatal(err)
		}
		if len(children) == 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("children that nobody reaped: %q", children)
}
