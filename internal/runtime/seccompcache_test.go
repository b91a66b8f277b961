package runtime

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestSeccompCache(t *testing.T) {
	var c seccompCache
	state := t.TempDir()
	profile := func(name string) *specs.Spec {
		return &specs.Spec{Linux: &specs.Linux{Seccomp: &specs.LinuxSeccomp{DefaultAction: specs.ActErrno,
			Syscalls: []specs.LinuxSyscall{{Names: []string{name}, Action: specs.ActAllow}}}}}
	}
	if key := c.offer(&specs.Spec{Linux: &specs.Linux{}}); key != nil {
		t.Error("a specification without seccomp has something to learn")
	}
	first := profile("read")
	key := c.offer(first)
	if key == nil || first.Annotations != nil {
		t.Fatalf("an unknown profile: key %v, annotations %v", key, first.Annotations)
	}
	c.learn(key, state) // crun left nothing
	for _, bad := range []string{"", "1234567", strings.Repeat("12345678", 4097)} {
		if err := os.WriteFile(filepath.Join(state, "seccomp.bpf"), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		c.learn(key, state)
		if c.offer(profile("read")) == nil {
			t.Errorf("a program of %d bytes was learnt", len(bad))
		}
	}
	if err := os.WriteFile(filepath.Join(state, "seccomp.bpf"), []byte("12345678"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.learn(key, state)
	again := profile("read")
	if key := c.offer(again); key != nil || again.Annotations[seccompAnnotation] != "MTIzNDU2Nzg=" {
		t.Errorf("a known profile: key %v, annotations %v", key, again.Annotations)
	}
	if c.offer(profile("write")) == nil {
		t.Error("another profile is known")
	}
	flags := profile("read")
	flags.Linux.Seccomp.Flags = []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_LOG"}
	if key := c.offer(flags); key != nil || flags.Annotations != nil {
		t.Error("a profile with flags is more than its program")
	}
}

// TestSeccompIsTheSame compares containers whose profile crun compiled with ones whose program it was given.
func TestSeccompIsTheSame(t *testing.T) {
	b := newBench(t)
	if bin, _, err := b.binary(""); err != nil || filepath.Base(bin) != "crun" {
		t.Skipf("programs are kept for crun alone, not for %s", bin)
	}
	ctx := context.Background()
	pod := b.pod(b.podConfig("seccomp"))
	for i, given := range []bool{false, true} {
		id := b.create(pod, containerConfig(fmt.Sprintf("c%d", i), "sleep", "1000"))
		spec, err := readSpec(filepath.Join(b.cfg.bundleDir(id), "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		if has := spec.Annotations[seccompAnnotation] != ""; has != given {
			t.Fatalf("container %d: the program is given: %v", i, has)
		}
		if err := b.StartContainer(ctx, id); err != nil {
			t.Fatal(err)
		}
		c, err := b.findContainer(id)
		if err != nil {
			t.Fatal(err)
		}
		b.mu.Lock()
		pid := c.rec.PID
		b.mu.Unlock()
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(raw), "Seccomp:\t2\n") {
			t.Errorf("container %d runs without a filter", i)
		}
		program, err := os.ReadFile(filepath.Join(b.cfg.ociRoot(), id, "seccomp.bpf"))
		if err != nil || len(program) == 0 {
			t.Errorf("container %d: program of %d bytes: %v", i, len(program), err)
		}
	}
}
