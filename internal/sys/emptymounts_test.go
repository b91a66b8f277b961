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
	before, _ := os.ReadFile("/proc/self/mountinfo")
	ns, err := EmptyMounts(t.TempDir(), "place")
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
	if after, _ := os.ReadFile("/proc/self/mountinfo"); string(after) != string(before) {
		t.Error("mounts of the machine have changed")
	}
}
