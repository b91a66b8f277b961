package sys

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestEmptyMounts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	scratch := t.TempDir()
	ns, err := EmptyMounts(scratch, "place")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var names []string
	err = onNewThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return err
		}
		entries, err := os.ReadDir("/")
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return err
	})
	if err != nil || strings.Join(names, " ") != "place" {
		t.Errorf("the root holds %v: %v", names, err)
	}
	// Only what is made there: other packages' tests mount at the same time.
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), scratch) {
		t.Errorf("the machine has a mount at %s: %v", scratch, err)
	}
}
