package runtime

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/sys"
)

// output runs one container to its end and returns its log.
func (b *bench) output(pod string, c *runtimeapi.ContainerConfig) string {
	b.t.Helper()
	id := b.start(pod, c)
	b.ended(id)
	return strings.ReplaceAll(b.log(id), "stdout F ", "")
}

func TestWhoAndWhat(t *testing.T) {
	b := newBench(t)
	cfg := b.podConfig("who")
	cfg.Hostname = "called"
	cfg.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"10.43.0.10"}, Searches: []string{"a.b"}, Options: []string{"ndots:5"}}
	cfg.Linux.Sysctls = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"}
	pod := b.pod(cfg)
	c := containerConfig("ann", "sh", "-c", "id; cat /etc/resolv.conf /etc/hostname; hostname; echo $HOME $X; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced; ls -d /dev/shm; (echo >/x) 2>&1 || echo refused")
	c.Linux.SecurityContext.RunAsUsername = "ann"
	c.Linux.SecurityContext.SupplementalGroups = []int64{77}
	c.Envs = []*runtimeapi.KeyValue{{Key: "X", Value: []byte("y=z")}}
	want := "uid=1000(ann) gid=1000(ann) groups=50(staff),77,1000(ann)\nsearch a.b\nnameserver 10.43.0.10\noptions ndots:5\ncalled\ncalled\n/home/ann y=z\n1\n1\n/dev/shm\n" +
		"sh: can't create /x: Permission denied\nrefused\n"
	if d := cmp.Diff(want, b.output(pod, c)); d != "" {
		t.Error(d)
	}
	c = containerConfig("caps", "sh", "-c", "cat /proc/self/status; echo >/x; mount -t tmpfs x /tmp || echo no mount; cat /proc/kcore; true")
	c.Linux.SecurityContext.ReadonlyRootfs = true
	c.Linux.SecurityContext.NoNewPrivs = true
	c.Linux.SecurityContext.MaskedPaths = []string{"/proc/kcore"}
	c.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"NET_BIND_SERVICE"}}
	out := b.output(pod, c)
	for _, want := range []string{"CapBnd:\t0000000000000400", "CapEff:\t0000000000000400", "NoNewPrivs:\t1", "Seccomp:\t2", "can't create /x: Read-only", "no mount"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	c = containerConfig("priv", "sh", "-c", "mount -t tmpfs x /tmp && echo mounted; ls /dev/null; cat /proc/self/status")
	c.Linux.SecurityContext.Privileged = true
	if out := b.output(pod, c); !strings.Contains(out, "mounted") || !strings.Contains(out, "Seccomp:\t0") {
		t.Error(out)
	}
}

func TestLogs(t *testing.T) {
	b := newBench(t)
	pod := b.pod(b.podConfig("logs"))
	id := b.start(pod, containerConfig("long", "sh", "-c", "head -c 40000 /dev/zero; echo end"))
	b.ended(id)
	raw, err := os.ReadFile(b.status(id).LogPath)
	if err != nil {
		t.Fatal(err)
	}
	var tags []string
	var sizes []int
	for line := range bytes.Lines(raw) {
		f := bytes.SplitN(line, []byte(" "), 4)
		tags = append(tags, string(f[2]))
		sizes = append(sizes, len(f[3])-1)
	}
	if d := cmp.Diff([]string{"P", "P", "F"}, tags); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]int{16384, 16384, 40000 + 3 - 2*16384}, sizes); d != "" {
		t.Error(d)
	}
	id = b.start(pod, containerConfig("rotated", "sh", "-c", "i=0; while test $i -lt 300; do echo $i; i=$((i+1)); sleep 0.002; done"))
	path := b.status(id).LogPath
	for i := range 3 {
		time.Sleep(100 * time.Millisecond)
		if err := os.Rename(path, path+string(rune('a'+i))); err != nil {
			t.Fatal(err)
		}
		if err := b.ReopenContainerLog(context.Background(), id); err != nil {
			t.Fatal(err)
		}
	}
	b.ended(id)
	var all []byte
	for _, suffix := range []string{"a", "b", "c", ""} {
		part, _ := os.ReadFile(path + suffix)
		all = append(all, part...)
	}
	n := 0
	for line := range strings.Lines(string(all)) {
		if f := strings.Fields(line); len(f) != 4 || f[3] != itoa(n) {
			t.Fatalf("line %d is %q", n, line)
		}
		n++
	}
	if n != 300 {
		t.Errorf("%d lines", n)
	}
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}

// TestVolumes mounts a folder of the host twice, and sees mounts pass in both directions where that was asked for.
func TestVolumes(t *testing.T) {
	b := newBench(t)
	pod := b.pod(b.podConfig("volumes"))
	dir := filepath.Join(filepath.Dir(b.cfg.Root), "vol")
	for _, d := range []string{"", "/in", "/out"} {
		if err := os.MkdirAll(dir+d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer sys.Unmount(dir)
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	c := containerConfig("a", "sh", "-c", "echo hi >/data/f; echo no >/ro/f; mount -t tmpfs x /data/out && echo there >/data/out/f; while ! test -e /data/in/f; do sleep 0.02; done; cat /data/in/f /missing/../ro/f; sleep 0.5")
	c.Linux.SecurityContext.Privileged = true
	c.Mounts = []*runtimeapi.Mount{{HostPath: dir, ContainerPath: "/data", Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL},
		{HostPath: dir, ContainerPath: "/ro", Readonly: true}, {HostPath: dir + "/made", ContainerPath: "/missing"}}
	id := b.start(pod, c)
	time.Sleep(200 * time.Millisecond)
	if got, err := os.ReadFile(dir + "/out/f"); string(got) != "there\n" {
		t.Errorf("a mount made inside is not seen outside: %q %v", got, err)
	}
	if err := unix.Mount("tmpfs", dir+"/in", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/in/f", []byte("inside\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.ended(id)
	if d := cmp.Diff("stderr F sh: can't create /ro/f: Read-only file system\nstdout F inside\nstdout F hi\n", b.log(id)); d != "" {
		t.Error(d)
	}
	for _, m := range []string{"/in", "/out"} {
		if err := sys.Unmount(dir + m); err != nil {
			t.Error(err)
		}
	}
}

func TestStats(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	pod := b.pod(b.podConfig("stats"))
	c := containerConfig("a", "sh", "-c", "x=$(head -c 3000000 /dev/zero | od); echo $x | head -c 1000000 >/f; sleep 1000")
	c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 100 << 20}
	id := b.start(pod, c)
	time.Sleep(300 * time.Millisecond)
	s, err := b.ContainerStats(ctx, id)
	if err != nil || s.Cpu.UsageCoreNanoSeconds.Value == 0 || s.Memory.WorkingSetBytes.Value == 0 || s.Memory.AvailableBytes.Value == 0 || s.WritableLayer.UsedBytes.Value == 0 {
		t.Errorf("%v %v", s, err)
	}
	ps, err := b.PodSandboxStats(ctx, pod)
	if err != nil || ps.Linux.Cpu.UsageCoreNanoSeconds.Value == 0 || len(ps.Linux.Containers) != 1 || ps.Linux.Process.ProcessCount.Value == 0 {
		t.Errorf("%v %v", ps, err)
	}
	err = b.UpdateContainerResources(ctx, id, &runtimeapi.ContainerResources{Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 50 << 20, CpuShares: 100}})
	if err != nil {
		t.Fatal(err)
	}
	if u, err := sys.CgroupStats(b.containers[id].rec.Cgroup); err != nil || u.Limit != 50<<20 {
		t.Errorf("%v %v", u, err)
	}
	shimStats, err := sys.CgroupStats(b.cfg.shimCgroup(pod))
	t.Logf("shim and pause: %d KiB charged, %d KiB anonymous (%v)", shimStats.Memory>>10, shimStats.RSS>>10, err)
}

// TestOtherBoot shows records of a boot that is over.
func TestOtherBoot(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	pod := b.pod(b.podConfig("boot"))
	id := b.start(pod, containerConfig("a", "sleep", "1000"))
	sb := b.sandboxes[pod]
	b.StopContainer(ctx, id, 0)
	b.endShim(ctx, sb)
	rec, c := sb.rec, b.containers[id].rec
	rec.Boot, rec.Ready = "another", true
	c.State = runtimeapi.ContainerState_CONTAINER_RUNNING
	b.saveSandbox(rec)
	b.saveContainer(c)
	b.Close(ctx)
	b.open()
	if s := b.status(id); s.State != runtimeapi.ContainerState_CONTAINER_EXITED || s.ExitCode != 255 || s.Message != "the machine was restarted" {
		t.Error(s)
	}
	if s, err := b.PodSandboxStatus(ctx, pod, false); err != nil || s.Status.State != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Error(s, err)
	}
}
