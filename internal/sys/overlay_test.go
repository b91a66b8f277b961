package sys

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestOverlayOptions(t *testing.T) {
	got, err := overlayOptions("/r/layers", []string{"/r/layers/2", "/r/layers/1:a,b"}, "/r/c/upper", "/r/c/work")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(`lowerdir=2:1\:a\,b,upperdir=/r/c/upper,workdir=/r/c/work`, got); d != "" {
		t.Error(d)
	}
}

// Both ways must show the same files, with as many layers as images have at most.
func TestMountOverlay(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	const layers = 127
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for name, mount := range map[string]func(string, []string, string, string) error{"chosen": MountOverlay, "in one": overlayInOne} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			var fs unix.Statfs_t
			if err := unix.Statfs(top, &fs); err != nil || fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
				t.Skip("the temporary folder is on an overlay")
			}
			dirs := map[string]string{}
			for _, d := range []string{"upper", "work", "merged"} {
				dirs[d] = filepath.Join(top, d)
				if err := os.Mkdir(dirs[d], 0o755); err != nil {
					t.Fatal(err)
				}
			}
			var lower []string
			for i := range layers {
				dir := filepath.Join(top, "layers", fmt.Sprint(layers-i))
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, "top"), fmt.Append(nil, layers-i), 0o644); err != nil {
					t.Fatal(err)
				}
				lower = append(lower, dir)
			}
			if err := mount(dirs["merged"], lower, dirs["upper"], dirs["work"]); err != nil {
				t.Fatal(err)
			}
			defer Unmount(dirs["merged"])
			got, err := os.ReadFile(filepath.Join(dirs["merged"], "top"))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(fmt.Sprint(layers), string(got)); d != "" {
				t.Error(d)
			}
		})
	}
	if now, err := os.Getwd(); err != nil || now != here {
		t.Errorf("the working folder became %s: %v", now, err)
	}
}

// What the kernel was asked must hold when it mounts.
func TestOverlayTakesParts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	if want := major > 6 || major == 6 && minor >= 7; overlayTakesParts() != want {
		t.Errorf("kernel %d.%d: got %t", major, minor, !want)
	}
}
