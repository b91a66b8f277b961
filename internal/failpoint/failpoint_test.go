package failpoint

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestHit walks a child over three points, and has it die at one of them.
func TestHit(t *testing.T) {
	if os.Getenv("FAILPOINT_CHILD") != "" {
		for _, name := range []string{"a", "b", "a", "c"} {
			Hit(name)
		}
		os.Exit(0)
	}
	for _, c := range []struct {
		point  string
		listed string
		killed bool
	}{
		{"", "a\nb\na\nc\n", false},
		{"a", "a\n", true},
		{"b", "a\nb\n", true},
		{"a@2", "a\nb\na\n", true},
		{"a@3", "a\nb\na\nc\n", false},
		{"other", "a\nb\na\nc\n", false},
	} {
		t.Run(c.point, func(t *testing.T) {
			list := filepath.Join(t.TempDir(), "list")
			cmd := exec.Command(os.Args[0], "-test.run=^TestHit$")
			cmd.Env = append(os.Environ(), "FAILPOINT_CHILD=1", "CAROB_FAILPOINT="+c.point, "CAROB_FAILPOINT_LIST="+list)
			_ = cmd.Run()
			status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if killed := ok && status.Signaled() && status.Signal() == syscall.SIGKILL; killed != c.killed {
				t.Errorf("ended with %v", cmd.ProcessState)
			}
			if got, err := os.ReadFile(list); err != nil || string(got) != c.listed {
				t.Errorf("listed %q (%v), want %q", got, err, c.listed)
			}
		})
	}
}

func TestRead(t *testing.T) {
	if p, err := read("", ""); p != nil || err != nil {
		t.Errorf("%v %v", p, err)
	}
	for _, bad := range []string{"a@", "a@0", "a@-1", "a@x"} {
		if _, err := read(bad, ""); err == nil {
			t.Errorf("%s was understood", bad)
		}
	}
}

func BenchmarkHitOff(b *testing.B) {
	for b.Loop() {
		Hit("off")
	}
}
