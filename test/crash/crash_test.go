//go:build crash

package crash

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"carob.dev/carob/internal/config"
	"carob.dev/carob/test/host"
	"carob.dev/carob/test/leak"
)

var (
	rounds = flag.Int("rounds", 50, "how often a node that has many Pods is killed at random")
	only   = flag.String("point", "", "the one point to die at")
	from   = flag.String("from", "", "the first point of the agent's to die at")
)

// world is a test host with a life in it.
type world struct {
	*testing.T
	host *host.Host
	bin  string
	args []string
}

func newWorld(t *testing.T, args ...string) *world {
	t.Helper()
	w := &world{T: t, host: host.New(t), args: args}
	w.bin = filepath.Join(w.host.Dir, "life")
	build := exec.Command("go", "build", "-o", w.bin, "./life")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build life: %v\n%s", err, out)
	}
	if out, err := w.life("prepare").CombinedOutput(); err != nil {
		t.Fatalf("prepare: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if t.Failed() { // what is left must not disturb others
			cfg := config.Default(w.host.Root)
			for _, controller := range []string{"", "freezer", "memory", "pids"} {
				kill(filepath.Join("/sys/fs/cgroup", controller, cfg.CgroupRoot()))
			}
			w.host.Command("sh", "-c", `for m in $(grep -o " \($0\|$1\)[^ ]*" /proc/self/mounts | sort -r); do umount -l "$m"; done; rm -rf "$1"`,
				cfg.Root, cfg.RunDir()).Run()
			exec.Command("sh", "-c", `find /sys/fs/cgroup -depth -type d -path "*/$0*" -exec rmdir {} +`, cfg.CgroupRoot()).Run()
		}
	})
	return w
}

// kill kills what stands in a cgroup and below.
func kill(dir string) {
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			raw, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			for f := range strings.FieldsSeq(string(raw)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
					syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}
		return nil
	})
}

// life is the program, to be run in the host.
func (w *world) life(what string, env ...string) *exec.Cmd {
	args := append([]string{"-root", w.host.Root, "-images", "../../build/images"}, w.args...)
	cmd := w.host.Command(w.bin, append(args, what)...)
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// finish runs the life to its end and holds that nothing is left.
func (w *world) finish(what, after string) {
	w.Helper()
	if out, err := w.life(what).CombinedOutput(); err != nil {
		w.Fatalf("%s: %v\n%s", after, err, out)
	}
	leaks, err := leak.Find(leak.Scope{Root: w.host.Root, HolderPID: w.host.HolderPID(), KeepRoot: true})
	if err != nil {
		w.Fatal(err)
	}
	for _, l := range leaks {
		w.Errorf("%s: left behind: %v", after, l)
	}
	if w.Failed() {
		w.FailNow()
	}
}

// point is the nth time that a place is come to.
type point struct {
	name string
	n    int
}

func (p point) String() string { return p.name + "@" + strconv.Itoa(p.n) }

// points are those of one life, in order.
func (w *world) points() (list []point) {
	w.Helper()
	file := filepath.Join(w.host.Dir, "points")
	if out, err := w.life("pod", "CAROB_FAILPOINT_LIST="+file).CombinedOutput(); err != nil {
		w.Fatalf("a life without a crash: %v\n%s", err, out)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		w.Fatal(err)
	}
	count := map[string]int{}
	for name := range strings.FieldsSeq(string(raw)) {
		count[name]++
		list = append(list, point{name, count[name]})
	}
	return list
}

func killed(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && (exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL || exit.ExitCode() == 128+int(syscall.SIGKILL))
}

// TestEveryPoint has the node die at each point of a Pod's life, the second time too where there is one, and live on.
func TestEveryPoint(t *testing.T) {
	for name, args := range map[string][]string{"Plain": nil, "HostPortAndCheckpoint": {"-port", "-checkpoint"}, "Warm": {"-warm", "1"}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, args...)
			died, missed := 0, 0
			for _, p := range w.points() {
				if *only != "" && *only != p.String() {
					continue
				}
				var out bytes.Buffer
				cmd := w.life("pod", "CAROB_FAILPOINT="+p.String())
				cmd.Stdout, cmd.Stderr = &out, &out
				err := cmd.Run()
				switch {
				case killed(err):
					died++
				case err != nil:
					t.Fatalf("on the way to %v: %v\n%s", p, err, &out)
				default:
					missed++ // what happens beside the life does not always happen as often
				}
				w.finish("pod", "died at "+p.String())
			}
			t.Logf("%d points died at, %d not met again", died, missed)
			if died == 0 || missed > died/10 {
				t.Errorf("%d of %d points were not met again", missed, died+missed)
			}
		})
	}
}

// TestTwice has the node die at a point, and at another one while it comes back.
func TestTwice(t *testing.T) {
	w := newWorld(t)
	list := w.points()
	for i := range min(*rounds, 200) {
		first, second := list[rand.IntN(len(list))], list[rand.IntN(len(list)/2)]
		for _, p := range []point{first, second} {
			out, err := w.life("pod", "CAROB_FAILPOINT="+p.String()).CombinedOutput()
			if err != nil && !killed(err) {
				t.Fatalf("round %d, %v then %v: %v\n%s", i, first, second, err, out)
			}
		}
		w.finish("pod", fmt.Sprintf("died at %v, then at %v", first, second))
	}
}

// TestStorm kills a node with several Pods at random, again and again.
func TestStorm(t *testing.T) {
	for name, args := range map[string][]string{"Cold": nil, "Warm": {"-warm", "3"}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, args...)
			for i := range *rounds / 2 {
				var out bytes.Buffer
				cmd := w.life("storm")
				cmd.Stdout, cmd.Stderr = &out, &out
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(20*time.Millisecond+rand.N(800*time.Millisecond), func() { cmd.Process.Kill() })
				if err := cmd.Wait(); !killed(err) {
					t.Fatalf("round %d: %v\n%s", i, err, &out)
				}
			}
			w.finish("end", fmt.Sprintf("killed %d times", *rounds/2))
		})
	}
}

// TestWrecks kills shims and pauses at random while their Pods live.
func TestWrecks(t *testing.T) {
	w := newWorld(t, "-lives", strconv.Itoa(*rounds))
	var out bytes.Buffer
	cmd := w.life("wrecks")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	kills := map[string]int{}
	for done := false; !done; {
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%v\n%s", err, &out)
			}
			done = true
		case <-time.After(rand.N(120 * time.Millisecond)):
			if pids := w.victims(); len(pids) > 0 {
				pid := pids[rand.IntN(len(pids))]
				kills[comm(pid)]++
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	w.finish("end", "shims and pauses were killed")
	t.Logf("killed %v; %s", kills, out.String()[strings.LastIndex(strings.TrimSpace(out.String()), "\n")+1:])
}

func comm(pid int) string {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(raw))
}

// victims are the shims and pauses there are.
func (w *world) victims() (pids []int) {
	root := config.Default(w.host.Root).CgroupRoot()
	files, _ := filepath.Glob("/sys/fs/cgroup/pids/" + root + "/shims/*/cgroup.procs")
	if len(files) == 0 {
		files, _ = filepath.Glob("/sys/fs/cgroup/" + root + "/shims/*/cgroup.procs")
	}
	for _, f := range files {
		raw, _ := os.ReadFile(f)
		for s := range strings.FieldsSeq(string(raw)) {
			if pid, err := strconv.Atoi(s); err == nil && (comm(pid) == "carob-shim" || comm(pid) == "pause") {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
