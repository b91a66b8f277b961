package sys

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestMountsBelow(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	top := t.TempDir()
	want := []string{filepath.Join(top, "a b"), filepath.Join(top, "a b", `c\d`)}
	for _, dir := range want {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(dir, unix.MNT_DETACH)
	}
	got, err := MountsBelow(top)
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%s %v", d, err)
	}
	if got, err := MountsBelow(filepath.Join(top, "a")); len(got) > 0 || err != nil {
		t.Errorf("%v %v", got, err)
	}
}
