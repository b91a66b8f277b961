package leak_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"carob.dev/carob/internal/config"
	"carob.dev/carob/test/host"
	"carob.dev/carob/test/leak"
)

// Each kind of leak is planted as a Carob would leave it, must be found, and must be gone once it was cleaned up.
func TestEachKindOfLeakIsFound(t *testing.T) {
	if testing.Short() {
		t.Skip("makes real namespaces")
	}
	h := host.New(t)
	cfg := config.Default(h.Root)
	scope := leak.Scope{Root: h.Root, HolderPID: h.HolderPID()}
	sh := func(script string) func() error {
		return func() error {
			out, err := h.Command("sh", "-ec", script).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %w: %s", script, err, out)
			}
			return nil
		}
	}
	var stray *exec.Cmd
	cgroup := firstCgroup(t)
	plants := []struct {
		kind         string
		plant, clean func() error
	}{
		{"process", func() error {
			stray = h.Command("sleep", "1000")
			stray.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if err := stray.Start(); err != nil {
				return err
			}
			for !inHost(h, stray.Process.Pid) {
			}
			return nil
		}, func() error { stray.Process.Kill(); stray.Wait(); return nil }},
		{"mount", sh("mkdir -p " + h.Root + "/m && mount -t tmpfs x " + h.Root + "/m"), sh("umount " + h.Root + "/m && rm -r " + h.Root)},
		{"namespace", sh("mkdir -p " + h.Root + " && touch " + h.Root + "/ns && mount --bind /proc/self/ns/uts " + h.Root + "/ns"),
			sh("umount " + h.Root + "/ns && rm -r " + h.Root)},
		{"link", sh("ip link add cb0123456789ab type veth peer name cbpeer"), sh("ip link del cb0123456789ab")},
		{"nft", sh("nft add table inet " + cfg.NFTable()), sh("nft delete table inet " + cfg.NFTable())},
		{"cgroup", func() error { return os.MkdirAll(filepath.Join(cgroup, cfg.CgroupRoot(), "kubepods"), 0o755) }, func() error {
			os.Remove(filepath.Join(cgroup, cfg.CgroupRoot(), "kubepods"))
			return os.Remove(filepath.Join(cgroup, cfg.CgroupRoot()))
		}},
		{"file", func() error { return os.MkdirAll(cfg.RunDir(), 0o755) }, func() error { return os.RemoveAll(cfg.RunDir()) }},
	}
	for _, p := range plants {
		t.Run(p.kind, func(t *testing.T) {
			none(t, scope)
			if err := p.plant(); err != nil {
				t.Fatal(err)
			}
			found, err := leak.Find(scope)
			if cerr := p.clean(); cerr != nil {
				t.Error(cerr)
			}
			if err != nil {
				t.Fatal(err)
			}
			kinds := ""
			for _, l := range found {
				kinds += l.Kind + " "
			}
			if !strings.Contains(kinds, p.kind+" ") {
				t.Errorf("planted a %s, found only %v", p.kind, found)
			}
			none(t, scope)
		})
	}
}

func none(t *testing.T, s leak.Scope) {
	t.Helper()
	found, err := leak.Find(s)
	if err != nil || len(found) != 0 {
		t.Errorf("a clean host shows %v, %v", found, err)
	}
}

func inHost(h *host.Host, pid int) bool {
	a, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	b, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", h.HolderPID()))
	return a == b
}

// firstCgroup is a hierarchy that groups can be made in: any v1 controller, or the v2 tree.
func firstCgroup(t *testing.T) string {
	for _, dir := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			return dir
		}
	}
	t.Fatal("this machine has no cgroups mounted at /sys/fs/cgroup")
	return ""
}
