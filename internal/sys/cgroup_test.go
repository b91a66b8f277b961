package sys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseCgroupMounts(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want Cgroups
	}{
		"v2": {"31 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n", Cgroups{Unified: true, V1: map[string]string{}}},
		"hybrid": {"1 2 0:1 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n3 1 0:2 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
			"4 1 0:3 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n5 1 0:4 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			Cgroups{Hybrid: true, V1: map[string]string{"cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
				"name=systemd": "/sys/fs/cgroup/systemd"}}},
		"elsewhere": {"31 24 0:26 / /mnt/cgroup rw - cgroup2 cgroup2 rw\nnonsense\n", Cgroups{V1: map[string]string{}}},
	} {
		if d := cmp.Diff(c.want, parseCgroupMounts(c.in)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestSettings(t *testing.T) {
	r := Resources{CPUShares: 1024, CPUQuota: 50000, Memory: 1 << 20, PIDs: -1}
	v1, err := r.settings(false)
	if err != nil {
		t.Fatal(err)
	}
	opt := cmp.AllowUnexported(setting{})
	if d := cmp.Diff([]setting{{"cpu", "cpu.shares", "1024"}, {"cpu", "cpu.cfs_period_us", "100000"}, {"cpu", "cpu.cfs_quota_us", "50000"},
		{"memory", "memory.limit_in_bytes", "1048576"}, {"pids", "pids.max", "max"}}, v1, opt); d != "" {
		t.Error(d)
	}
	r.CPUQuota, r.Memory = -1, -1
	v2, err := r.settings(true)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]setting{{"cpu", "cpu.weight", "39"}, {"cpu", "cpu.max", "max 100000"}, {"memory", "memory.max", "max"}, {"pids", "pids.max", "max"}}, v2, opt); d != "" {
		t.Error(d)
	}
	if _, err := (Resources{Unified: map[string]string{"memory.high": "1"}}).settings(false); err == nil {
		t.Error("a file of v2 was taken on v1")
	}
}

func TestCgroupLife(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	top := "/carob-test-" + time.Now().Format("150405.000000")
	path := top + "/kubepods/burstable/podx"
	if err := CgroupCreate(path, Resources{CPUShares: 512, Memory: 64 << 20, PIDs: 100}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "sleep 1000 & sleep 1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := CgroupEnter(path, cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	if pids, err := CgroupProcs(top); err != nil || len(pids) == 0 {
		t.Errorf("%v %v", pids, err)
	}
	if u, err := CgroupStats(path); err != nil || u.Limit != 64<<20 {
		t.Errorf("%+v %v", u, err)
	}
	if err := CgroupKillAll(top); err != nil {
		t.Error(err)
	}
	cmd.Wait()
	for range 2 {
		if err := CgroupRemove(top); err != nil {
			t.Error(err)
		}
	}
	if _, err := CgroupStats(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after removal: %v", err)
	}
	if err := CgroupCreate("/", Resources{}); err == nil {
		t.Error("the root cgroup was taken")
	}
}

func TestInNamespacesKeepsTheFirstThread(t *testing.T) {
	before, _ := os.Readlink("/proc/self/ns/net")
	for range 20 {
		if err := InNamespaces(os.Getpid(), []string{"uts"}, func() error { return nil }); err != nil && !errors.Is(err, fs.ErrPermission) {
			t.Fatal(err)
		}
	}
	if after, _ := os.Readlink("/proc/self/ns/net"); after != before {
		t.Error("the process changed its namespace")
	}
}

func TestBornInCgroup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	c, err := CgroupLayout()
	if err != nil {
		t.Fatal(err)
	}
	if len(c.V1) == 0 {
		t.Skip("no cgroup v1 here")
	}
	path := "/carob-test-" + time.Now().Format("150405.000000")
	if err := CgroupCreate(path, Resources{}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := BornInCgroup(path, cmd.Start); err != nil {
		t.Fatal(err)
	}
	for _, dir := range c.Folders(path) {
		raw, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			t.Error(err)
		}
		if d := cmp.Diff(fmt.Sprintf("%d\n", cmd.Process.Pid), string(raw)); d != "" {
			t.Errorf("%s: %s", dir, d)
		}
	}
	if err := CgroupKillAll(path); err != nil {
		t.Error(err)
	}
	cmd.Wait()
	if err := CgroupRemove(path); err != nil {
		t.Error(err)
	}
}

func TestKillSparesOneself(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	path := "/carob-test-" + time.Now().Format("150405.000000")
	if err := CgroupCreate(path, Resources{}); err != nil {
		t.Fatal(err)
	}
	inside, killed := make(chan struct{}), make(chan error, 1)
	go func() {
		<-inside
		killed <- CgroupKillAll(path)
	}()
	// The thread inside may be frozen for a moment, so it is another that kills.
	if err := BornInCgroup(path, func() error { close(inside); return <-killed }); err != nil {
		t.Error(err)
	}
	if err := CgroupRemove(path); err != nil {
		t.Error(err)
	}
}

// TestMemoryLimitMovesWithSwap: v1 limits memory and swap together too, and takes no limit of memory above that one.
func TestMemoryLimitMovesWithSwap(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	c, err := CgroupLayout()
	if err != nil {
		t.Fatal(err)
	}
	path := "/carob-test-" + time.Now().Format("150405.000000")
	if err := CgroupCreate(path, Resources{Memory: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { CgroupRemove(path) })
	both := filepath.Join(c.Folder("memory", path), "memory.memsw.limit_in_bytes")
	limited := !c.Unified && os.WriteFile(both, []byte("67108864"), 0) == nil
	for _, limit := range []int64{128 << 20, 32 << 20, 256 << 20} {
		if err := CgroupUpdate(path, Resources{Memory: limit}); err != nil {
			t.Fatal(err)
		}
		if u, err := CgroupStats(path); err != nil || u.Limit != uint64(limit) {
			t.Errorf("%+v %v", u, err)
		}
		if raw, _ := os.ReadFile(both); limited && strings.TrimSpace(string(raw)) != strconv.FormatInt(limit, 10) {
			t.Errorf("with %d of memory, both have %s", limit, raw)
		}
	}
}
