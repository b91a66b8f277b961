package image

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBuiltImages imports what `make test-images` builds, where that was done, mounts it and runs programs in it.
func TestBuiltImages(t *testing.T) {
	requireRoot(t)
	ctx := context.Background()
	s := open(t, Config{Dir: t.TempDir()})
	for _, c := range []struct {
		name  string
		names []string
		runs  [][]string
	}{
		{"busybox", []string{"busybox:latest"}, [][]string{{"sh", "-c", "tar --help 2>&1 >/dev/null; nc --help 2>&1; wget --help 2>&1; httpd --help 2>&1; echo ok"}}},
		{"debian", []string{"debian:latest"}, [][]string{
			{"bash", "-c", "ps ax >/dev/null; echo ok"}, {"sh", "-c", "ip link >/dev/null && echo ok"}, {"sh", "-c", "curl --version >/dev/null && echo ok"},
			{"sh", "-c", "tar --version | grep -q tar && hostname >/dev/null && ping -V >/dev/null && nc -h 2>/dev/null; awk 'BEGIN{print \"ok\"}'"},
		}},
		{"nginx", []string{"nginx:1.8", "nginx:1.9", "nginx:latest"}, [][]string{{"sh", "-c", "nginx -t && tar --version >/dev/null && curl -V >/dev/null && echo ok"}}},
	} {
		path := filepath.Join("..", "..", "..", "build", "images", c.name+".tar")
		f, err := os.Open(path)
		if err != nil {
			t.Skip("not built:", err)
		}
		got, err := s.Import(ctx, f, nil)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, n := range c.names {
			want = append(want, "docker.io/library/"+n)
		}
		if a, b := strings.Join(union(got, nil), " "), strings.Join(want, " "); a != b {
			t.Errorf("names %q, want %q", a, b)
		}
		img, err := s.Resolve(ctx, c.name)
		if err != nil {
			t.Fatal(err)
		}
		root := mountOverlay(t, img.Layers)
		_ = os.WriteFile(filepath.Join(root, "dev", "null"), nil, 0o666)
		for _, args := range c.runs {
			cmd := exec.Command("/bin/"+args[0], args[1:]...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
			cmd.Dir, cmd.Env = "/", img.Config.Env
			if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "ok\n") {
				t.Errorf("%s: %v: %v\n%s", c.name, args, err, out)
			}
		}
	}
}

func requireRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
}

func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(context.Background()) })
	return s
}

// mountOverlay mounts layers as a container would see them, until the test ends.
func mountOverlay(t testing.TB, layers []string) string {
	t.Helper()
	dir := t.TempDir()
	var paths []string
	for _, d := range []string{"upper", "work", "merged"} {
		p := filepath.Join(dir, d)
		if err := os.Mkdir(p, 0o755); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, p)
	}
	// The default temporary folder may be on an overlay itself, which takes no upper folder: then read-only will do.
	lower := strings.Join(layers, ":")
	err := unix.Mount("overlay", paths[2], "overlay", 0, "lowerdir="+lower+",upperdir="+paths[0]+",workdir="+paths[1])
	if err != nil {
		err = unix.Mount("overlay", paths[2], "overlay", unix.MS_RDONLY, "lowerdir="+lower+":"+paths[0])
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(paths[2], 0); err != nil {
			t.Error(err)
		}
	})
	return paths[2]
}
