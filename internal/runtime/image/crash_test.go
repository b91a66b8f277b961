package image

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// crash is one request whose every crash is tried.
type crash struct {
	name string
	// before is done in peace, request is what is interrupted and then repeated.
	before, request func(t *testing.T, s *Store, top string)
	// names are the names of all images in the end.
	names []string
}

func importFile(name string) func(*testing.T, *Store, string) {
	return func(t *testing.T, s *Store, top string) {
		data, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		load(t, s, data)
	}
}

func pullApp(t *testing.T, s *Store, _ string) {
	if _, err := s.Pull(t.Context(), "app", PullOptions{}); err != nil {
		t.Fatal(err)
	}
}

func removeNamed(ref string) func(*testing.T, *Store, string) {
	return func(t *testing.T, s *Store, _ string) {
		if err := s.RemoveImage(t.Context(), &runtimeapi.ImageSpec{Image: ref}); err != nil {
			t.Fatal(err)
		}
	}
}

func crashes() []crash {
	nothing := func(*testing.T, *Store, string) {}
	return []crash{
		{"import", nothing, importFile("one.tar"), []string{"docker.io/library/one:1"}},
		{"import-over", importFile("one.tar"), importFile("two.tar"), []string{"docker.io/library/one:1", "docker.io/library/two:1"}},
		{"pull", nothing, pullApp, []string{"docker.io/library/app:latest"}},
		{"pull-over", importFile("one.tar"), pullApp, []string{"docker.io/library/app:latest", "docker.io/library/one:1"}},
		{"remove", importFile("one.tar"), removeNamed("one:1"), nil},
		{"remove-one", func(t *testing.T, s *Store, top string) {
			importFile("one.tar")(t, s, top)
			importFile("two.tar")(t, s, top)
		},
			removeNamed("two:1"), []string{"docker.io/library/one:1"}},
	}
}

// TestCrash kills a process that pulls, imports or removes at each fail point that it comes by, opens the store again, and repeats the
// request. Nothing may be in pieces after the crash, and nothing may be left over after the repetition.
func TestCrash(t *testing.T) {
	requireRoot(t)
	if top := os.Getenv("CAROB_CRASH_DIR"); top != "" {
		crashChild(t, top)
		return
	}
	top := t.TempDir()
	w := newWeb(t, nil)
	one := newImage(t, noConfig, layerTar(t, entry{name: "base", text: "base"}), layerTar(t, entry{name: "d/own", text: strings.Repeat("1", 70_000)}))
	two := newImage(t, noConfig, layerTar(t, entry{name: "base", text: "base"}), layerTar(t, entry{name: "d/own", text: "2"}, entry{name: ".wh.base"}))
	w.add(t, simple(t), "docker.io/library/app:latest")
	w.hosts(t, filepath.Join(top, "hosts"), "docker.io", fmt.Sprintf("server = %q\n", w.URL))
	for name, data := range map[string][]byte{"one.tar": one.archive(t, "one:1"), "two.tar": two.archive(t, "two:1")} {
		if err := os.WriteFile(filepath.Join(top, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	points, rounds := map[string]bool{}, 0
	for _, c := range crashes() {
		t.Run(c.name, func(t *testing.T) {
			seen := discover(t, top, c)
			for name, count := range seen {
				points[name] = true
				times := []int{1}
				if !testing.Short() {
					times = append(times, (count+1)/2, count)
				}
				slices.Sort(times)
				for _, n := range slices.Compact(times) {
					rounds++
					c.kill(t, top, fmt.Sprintf("%s@%d", name, n))
				}
			}
		})
	}
	t.Logf("%d points, %d crashes", len(points), rounds)
	if len(points) < 15 {
		t.Errorf("only %d fail points were seen: %v", len(points), points)
	}
}

func crashStore(t *testing.T, top, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Dir: dir, RegistryConfigDir: filepath.Join(top, "hosts")})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func crashChild(t *testing.T, top string) {
	for _, c := range crashes() {
		if c.name == os.Getenv("CAROB_CRASH_CASE") {
			s := crashStore(t, top, filepath.Join(top, "store"))
			c.request(t, s, top)
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// prepare makes a store in which the request is still to come.
func (c crash) prepare(t *testing.T, top string) string {
	t.Helper()
	dir := filepath.Join(top, "store")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	s := crashStore(t, top, dir)
	c.before(t, s, top)
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (c crash) run(top string, env ...string) ([]byte, syscall.WaitStatus) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrash$")
	cmd.Env = append(append(os.Environ(), "CAROB_CRASH_DIR="+top, "CAROB_CRASH_CASE="+c.name), env...)
	out, _ := cmd.CombinedOutput()
	st, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return out, st
}

// discover runs the request in peace and counts the points on its way.
func discover(t *testing.T, top string, c crash) map[string]int {
	t.Helper()
	c.prepare(t, top)
	list := filepath.Join(t.TempDir(), "list")
	if out, st := c.run(top, "CAROB_FAILPOINT_LIST="+list); st.ExitStatus() != 0 {
		t.Fatalf("%s", out)
	}
	f, err := os.Open(list)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := map[string]int{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		seen[lines.Text()]++
	}
	return seen
}

func (c crash) kill(t *testing.T, top, point string) {
	t.Helper()
	dir := c.prepare(t, top)
	out, st := c.run(top, "CAROB_FAILPOINT="+point)
	if !st.Signaled() || st.Signal() != syscall.SIGKILL {
		if st.ExitStatus() == 0 && !strings.HasSuffix(point, "@1") {
			return // what happens at the same time may hit a point less often than before
		}
		t.Errorf("%s: the process was not killed: %v\n%s", point, st, out)
		return
	}
	s := crashStore(t, top, dir)
	whole(t, s, true)
	c.request(t, s, top)
	consistent(t, s)
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = crashStore(t, top, dir)
	consistent(t, s)
	var names []string
	for _, r := range s.current.Load().Images {
		names = append(names, r.Tags...)
	}
	slices.Sort(names)
	if d := cmp.Diff(c.names, names); d != "" {
		t.Errorf("%s: names of images: %s", point, d)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if t.Failed() {
		t.Fatalf("after a crash at %s", point)
	}
}
