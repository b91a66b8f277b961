package runtime

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/sys"
)

// firstID is where the range of the Pods in these tests begins.
const firstID = 20 << 16

func users(first, length uint32) *runtimeapi.UserNamespace {
	ids := []*runtimeapi.IDMapping{{HostId: first, Length: length}}
	return &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}
}

func TestCheckUsers(t *testing.T) {
	with := func(change func(*runtimeapi.NamespaceOption)) *runtimeapi.NamespaceOption {
		o := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER, UsernsOptions: users(firstID, 65536)}
		change(o)
		return o
	}
	for name, c := range map[string]struct {
		opt  *runtimeapi.NamespaceOption
		want string
	}{
		"none": {&runtimeapi.NamespaceOption{}, ""},
		"own":  {with(func(*runtimeapi.NamespaceOption) {}), ""},
		"node": {with(func(o *runtimeapi.NamespaceOption) {
			o.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_NODE}
		}), ""},
		"no map": {with(func(o *runtimeapi.NamespaceOption) { o.UsernsOptions.Uids = nil }), "uids: one range is needed, there are 0"},
		"two": {with(func(o *runtimeapi.NamespaceOption) {
			o.UsernsOptions.Gids = append(o.UsernsOptions.Gids, o.UsernsOptions.Gids...)
		}), "gids: one range is needed, there are 2"},
		"empty":   {with(func(o *runtimeapi.NamespaceOption) { o.UsernsOptions = users(firstID, 0) }), "the range is empty"},
		"beyond":  {with(func(o *runtimeapi.NamespaceOption) { o.UsernsOptions = users(1<<32-2, 65536) }), "beyond the last ID"},
		"no root": {with(func(o *runtimeapi.NamespaceOption) { o.UsernsOptions.Uids[0].ContainerId = 1 }), "0 is not in the range"},
		"node with a map": {with(func(o *runtimeapi.NamespaceOption) { o.UsernsOptions.Mode = runtimeapi.NamespaceMode_NODE }),
			"mappings in mode NODE"},
		"container":    {with(func(o *runtimeapi.NamespaceOption) { o.UsernsOptions.Mode = runtimeapi.NamespaceMode_CONTAINER }), "mode CONTAINER is not supported"},
		"host network": {with(func(o *runtimeapi.NamespaceOption) { o.Network = runtimeapi.NamespaceMode_NODE }), "goes with none of the machine's"},
		"host pid":     {with(func(o *runtimeapi.NamespaceOption) { o.Pid = runtimeapi.NamespaceMode_NODE }), "goes with none of the machine's"},
	} {
		err := checkUsers(c.opt)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// usersPod is a Pod with a user namespace of its own, and a container for it.
func (b *bench) usersPod(name, handler string, change func(*runtimeapi.PodSandboxConfig)) (string, func(name string, command ...string) *runtimeapi.ContainerConfig) {
	b.t.Helper()
	cfg := b.podConfig(name)
	cfg.Linux.SecurityContext.NamespaceOptions.UsernsOptions = users(firstID, 65536)
	if change != nil {
		change(cfg)
	}
	return b.podOf(cfg, handler), func(name string, command ...string) *runtimeapi.ContainerConfig {
		c := containerConfig(name, command...)
		c.Linux.SecurityContext.NamespaceOptions = cfg.Linux.SecurityContext.NamespaceOptions
		return c
	}
}

func TestUserNamespace(t *testing.T) {
	for _, handler := range []string{"", "runc"} {
		t.Run("handler "+handler, func(t *testing.T) { testUserNamespace(t, handler) })
	}
}

func testUserNamespace(t *testing.T, handler string) {
	b := newBench(t)
	pod, container := b.usersPod("users", handler, func(c *runtimeapi.PodSandboxConfig) {
		c.Hostname = "called"
		c.Linux.Sysctls = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"}
	})
	dir := filepath.Join(filepath.Dir(b.cfg.Root), "vol")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(filepath.Dir(b.cfg.Root), "file")
	for path, text := range map[string]string{dir + "/roots": "of root\n", file: ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mapped := func(from, to string) *runtimeapi.Mount {
		u := users(firstID, 65536)
		return &runtimeapi.Mount{HostPath: from, ContainerPath: to, UidMappings: u.Uids, GidMappings: u.Gids}
	}
	c := container("a", "sh", "-c", `cat /proc/self/uid_map; id -u; cat /v/roots; echo mine >/v/mine; echo last >/last; echo own >/own; ls -n /etc/passwd /v/roots /own | while read a b c d e; do echo $c $d; done
hostname; hostname other && echo renamed; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced; echo shm >/dev/shm/x && cat /dev/shm/x; echo written >/dev/stdout
echo "1.2.3.4 x" >>/etc/hosts && echo hosts; mount -t tmpfs x /tmp && echo mounted; kill -0 1 && echo one; ls /sys/class/net; (mknod /n b 8 0) 2>&1 || true`)
	c.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"SYS_ADMIN"}}
	c.Linux.Resources = &runtimeapi.LinuxContainerResources{OomScoreAdj: 500, MemoryLimitInBytes: 64 << 20}
	c.Mounts = []*runtimeapi.Mount{mapped(dir, "/v"), mapped(file, "/last")}
	id := b.start(pod, c)
	st := b.ended(id)
	want := `         0    1310720      65536
0
of root
0 0
0 0
0 0
called
renamed
1
1
shm
written
hosts
mounted
one
lo
mknod: /n: Operation not permitted
`
	out := b.log(id)
	got := strings.NewReplacer("stdout F ", "", "stderr F ", "").Replace(out)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s\n%s\n%s", d, st.Message, out)
	}
	for path, owner := range map[string]uint32{dir + "/mine": 0, filepath.Join(b.cfg.containerDir(id), "upper/own"): firstID} {
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if s := info.Sys().(*syscall.Stat_t); s.Uid != owner || s.Gid != owner {
			t.Errorf("%s belongs to %d:%d, want %d", path, s.Uid, s.Gid, owner)
		}
	}
	if raw, err := os.ReadFile(file); string(raw) != "last\n" {
		t.Errorf("the mapped file holds %q: %v", raw, err)
	}

	// A process of the container is nobody on the machine, and so is one that is started later; it may be kept, restarted and removed.
	id = b.create(pod, container("b", "sleep", "1000"))
	reach := b.Runtime.cfg.reachDir(id)
	if info, err := os.Stat(reach); err != nil || info.Mode().Perm() != 0o710 || info.Sys().(*syscall.Stat_t).Gid != firstID {
		t.Errorf("others get to what the container is made of: %v %v", info, err)
	}
	if err := b.StartContainer(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	b.beside.Wait()
	if left, err := sys.MountsBelow(reach); err != nil || len(left) != 0 {
		t.Errorf("after the start there is still mounted %v: %v", left, err)
	}
	b.Close(context.Background())
	b.open()
	b.mu.Lock()
	pid := b.containers[id].rec.PID
	b.mu.Unlock()
	if s, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); !strings.Contains(string(s), fmt.Sprintf("Uid:\t%d\t%d", firstID, firstID)) {
		t.Errorf("%s %v", s, err)
	}
	stdout, stderr, err := b.ExecSync(context.Background(), id, []string{"sh", "-c", "id -u; echo x >/dev/stdout; echo y >/dev/stderr; cat /proc/self/uid_map"}, 0)
	if err != nil || string(stdout) != "0\nx\n         0    1310720      65536\n" || string(stderr) != "y\n" {
		t.Errorf("%q %q %v", stdout, stderr, err)
	}
}

// TestUserNamespaceRefused: what cannot be had is refused and leaves nothing.
func TestUserNamespaceRefused(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	pod, container := b.usersPod("users", "", nil)
	other := container("other", "true")
	other.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	proc := container("proc", "true")
	u := users(firstID, 65536)
	proc.Mounts = []*runtimeapi.Mount{{HostPath: "/proc", ContainerPath: "/p", UidMappings: u.Uids, GidMappings: u.Gids}}
	strange := container("strange", "true")
	u = users(firstID+65536, 65536)
	strange.Mounts = []*runtimeapi.Mount{{HostPath: "/tmp", ContainerPath: "/p", UidMappings: u.Uids, GidMappings: u.Gids}}
	for _, c := range []struct {
		config *runtimeapi.ContainerConfig
		code   codes.Code
		text   string
	}{
		{other, codes.InvalidArgument, "userns_options are not those of the sandbox"},
		{proc, codes.Unknown, "map the owners of /proc: the kernel cannot map the owners of this file system's files"},
		{strange, codes.InvalidArgument, "mount /p: the mappings are not those of the Pod's user namespace"},
	} {
		if _, err := b.CreateContainer(ctx, pod, c.config, nil); status.Code(err) != c.code || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.config.Metadata.Name, err)
		}
	}
}

// TestUserNamespaceKinds combines a user namespace with what else a container may be.
func TestUserNamespaceKinds(t *testing.T) {
	for _, handler := range []string{"", "runc"} {
		b := newBench(t)
		pod, container := b.usersPod("kinds", handler, func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
		})
		dir := filepath.Join(filepath.Dir(b.cfg.Root), "vol")
		for _, d := range []string{dir, dir + "/below"} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Mount("tmpfs", dir+"/below", "tmpfs", 0, "mode=755"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/below/roots", []byte("below\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		u := users(firstID, 65536)
		for name, c := range map[string]struct {
			script, want string
			change       func(*runtimeapi.ContainerConfig)
		}{
			"shared pid": {"head -c 5 /proc/1/comm", "pause", func(*runtimeapi.ContainerConfig) {}},
			"privileged": {"mount -t tmpfs x /tmp && echo mounted; echo x >/dev/null && echo null; hostname x && echo renamed",
				"mounted\nnull\nrenamed\n", func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.Privileged = true }},
			"read-only": {"(echo x >/x) 2>/dev/null || echo refused; (echo x >/v/below/x) 2>/dev/null || echo refused; cat /v/below/roots", "refused\nrefused\nbelow\n", func(c *runtimeapi.ContainerConfig) {
				c.Linux.SecurityContext.ReadonlyRootfs = true
				c.Mounts = []*runtimeapi.Mount{{HostPath: dir, ContainerPath: "/v", Readonly: true, RecursiveReadOnly: true, UidMappings: u.Uids, GidMappings: u.Gids}}
			}},
			"not mapped": {"(cat /v/below/roots) 2>&1", "cat: can't open '/v/below/roots': Permission denied\n", func(c *runtimeapi.ContainerConfig) {
				c.Mounts = []*runtimeapi.Mount{{HostPath: dir, ContainerPath: "/v"}}
			}},
			"user": {"id -u; id -G; (cat /v/below/roots) 2>&1", "1000\n1000 50 77\ncat: can't open '/v/below/roots': Permission denied\n", func(c *runtimeapi.ContainerConfig) {
				c.Linux.SecurityContext.RunAsUsername, c.Linux.SecurityContext.SupplementalGroups = "ann", []int64{77}
				c.Mounts = []*runtimeapi.Mount{{HostPath: dir, ContainerPath: "/v", UidMappings: u.Uids, GidMappings: u.Gids}}
			}},
			"terminal": {"stty -onlcr; test -t 1 && echo terminal; sleep 0.3", "terminal\n", func(c *runtimeapi.ContainerConfig) { c.Tty = true }},
			"unmasked": {"head -c 1 /proc/keys >/dev/null && echo seen", "seen\n", func(*runtimeapi.ContainerConfig) {}},
		} {
			config := container(strings.ReplaceAll(name, " ", "-"), "sh", "-c", c.script)
			c.change(config)
			if got := b.output(pod, config); got != c.want && !(name == "shared pid" && strings.Contains(got, c.want)) {
				t.Errorf("handler %q, %s: %q, want %q", handler, name, got, c.want)
			}
		}
		if err := sys.Unmount(dir + "/below"); err != nil {
			t.Error(err)
		}
	}
}

// TestReachAfterCrash: whatever a crash leaves of a container's mounts is unmounted, and what they showed is untouched.
func TestReachAfterCrash(t *testing.T) {
	for name, cut := range map[string]func(b *bench, id string){
		"container half made": func(b *bench, id string) {
			b.mu.Lock()
			rec := b.containers[id].rec
			b.mu.Unlock()
			rec.Made = false
			if err := b.saveContainer(rec); err != nil {
				b.t.Fatal(err)
			}
		},
		"container unknown": func(b *bench, id string) {
			if err := os.Remove(filepath.Join(b.Runtime.cfg.containerDir(id), "container.json")); err != nil {
				b.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			pod, container := b.usersPod("crash", "", nil)
			dir := filepath.Join(filepath.Dir(b.cfg.Root), "vol")
			if err := os.MkdirAll(dir+"/folder", 0o755); err != nil {
				t.Fatal(err)
			}
			for _, f := range []string{dir + "/file", dir + "/folder/file"} {
				if err := os.WriteFile(f, []byte("kept\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			u := users(firstID, 65536)
			c := container("a", "sleep", "1000")
			c.Mounts = []*runtimeapi.Mount{{HostPath: dir, ContainerPath: "/v", UidMappings: u.Uids, GidMappings: u.Gids}, {HostPath: dir + "/file", ContainerPath: "/f"}}
			id := b.create(pod, c)
			reach := b.Runtime.cfg.reachDir(id)
			if mounts, err := sys.MountsBelow(reach); err != nil || len(mounts) < 6 {
				t.Fatalf("%v %v", mounts, err)
			}
			b.Close(context.Background())
			cut(b, id)
			b.open()
			if mounts, err := sys.MountsBelow(filepath.Dir(reach)); err != nil || len(mounts) > 0 {
				t.Errorf("left: %v %v", mounts, err)
			}
			if _, err := os.Stat(reach); !os.IsNotExist(err) {
				t.Errorf("left: %s %v", reach, err)
			}
			for _, f := range []string{dir + "/file", dir + "/folder/file"} {
				if got, err := os.ReadFile(f); string(got) != "kept\n" {
					t.Errorf("%s holds %q: %v", f, got, err)
				}
			}
		})
	}
}
