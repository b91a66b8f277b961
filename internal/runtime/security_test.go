package runtime

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/runtime/oci"
)

func TestSysctlNames(t *testing.T) {
	host := &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}
	for _, c := range []struct {
		name, path, err string
		opt             *runtimeapi.NamespaceOption
	}{
		{name: "net.ipv4.ip_forward", path: "net/ipv4/ip_forward"},
		{name: "net/ipv4/ip_forward", path: "net/ipv4/ip_forward"},
		{name: "net.ipv4.conf.eth0/100.rp_filter", path: "net/ipv4/conf/eth0.100/rp_filter"},
		{name: "net/ipv4/conf/eth0.100/rp_filter", path: "net/ipv4/conf/eth0.100/rp_filter"},
		{name: "kernel.sem", path: "kernel/sem"},
		{name: "fs.mqueue.msg_max", path: "fs/mqueue/msg_max"},
		{name: "net.ipv4.ip_forward", path: "net/ipv4/ip_forward", opt: host, err: "cannot be set in the host's network"},
		{name: "net/ipv4/ip_forward", path: "net/ipv4/ip_forward", opt: host, err: "cannot be set in the host's network"},
		{name: "kernel.panic", path: "kernel/panic", err: "belongs to no namespace"},
		{name: "kernel/panic", path: "kernel/panic", err: "belongs to no namespace"},
		{name: "user.max_net_namespaces", path: "user/max_net_namespaces", err: "belongs to no namespace"},
		{name: "net/../kernel/panic", path: "net/../kernel/panic", err: `sysctl "net/../kernel/panic"`},
		{name: "net.//.kernel.panic", path: "net/../kernel/panic", err: `sysctl "net.//.kernel.panic"`},
		{name: "/net/ipv4", path: "/net/ipv4", err: "belongs to no namespace"},
		{name: "net/ipv4/", path: "net/ipv4/", err: `sysctl "net/ipv4/"`},
	} {
		if got := sysctlPath(c.name); got != c.path {
			t.Errorf("%s is %s, want %s", c.name, got, c.path)
		}
		err := checkSandbox(&runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "a", Uid: "u"},
			Linux: &runtimeapi.LinuxPodSandboxConfig{Sysctls: map[string]string{c.name: "1"}, SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: c.opt}}}, oci.Node{}, false)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestUserFilesStayInside: whatever an image has in place of /etc/passwd and /etc/group, no file of the machine is read, and nobody waits.
func TestUserFilesStayInside(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	outside := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(outside, []byte("evil:x:4242:4242::/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	inside := []byte("ann:x:1000:1000::/home/ann:/bin/sh\n")
	link := func(target string) func(string) error {
		return func(path string) error { return os.Symlink(target, path) }
	}
	for name, c := range map[string]struct {
		make func(path string) error
		user string
		ok   bool
	}{
		"a file":               {func(p string) error { return os.WriteFile(p, inside, 0o644) }, "ann", true},
		"absolute link":        {link("/real/passwd"), "ann", true},
		"climbing link":        {link("../../../../../real/passwd"), "ann", true},
		"absolute link out":    {link(outside), "evil", false},
		"climbing link out":    {link("../../../../../../../../../.." + outside), "evil", false},
		"link through proc":    {link("/proc/1/root" + outside), "evil", false},
		"loop":                 {link("passwd"), "evil", false},
		"fifo":                 {func(p string) error { return unix.Mkfifo(p, 0o644) }, "evil", false},
		"folder":               {func(p string) error { return os.Mkdir(p, 0o755) }, "evil", false},
		"device without end":   {func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5))) }, "evil", false},
		"nothing":              {func(string) error { return nil }, "evil", false},
		"one line without end": {func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("x", 5<<20)), 0o644) }, "evil", false},
	} {
		root := t.TempDir()
		for _, d := range []string{"etc", "real"} {
			if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(root, "real/passwd"), inside, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := c.make(filepath.Join(root, "etc/passwd")); err != nil {
			t.Fatal(err)
		}
		u, err := resolveUser(&runtimeapi.LinuxContainerSecurityContext{RunAsUsername: c.user}, "", root)
		if c.ok != (err == nil) || c.ok && u.UID != 1000 {
			t.Errorf("%s: %+v %v", name, u, err)
		}
	}
}

func TestLocalSeccomp(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	if err := os.MkdirAll(filepath.Join(b.Runtime.cfg.SeccompDir, "profiles"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"profiles/no-mkdir.json": `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_AARCH64"],"syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}`,
		"broken.json":            `{"defaultAction":`,
	} {
		if err := os.WriteFile(filepath.Join(b.Runtime.cfg.SeccompDir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pod := b.pod(b.podConfig("seccomp"))
	config := func(name, ref string) *runtimeapi.ContainerConfig {
		c := containerConfig(name, "sh", "-c", "busybox mkdir /new || echo refused; grep Seccomp: /proc/self/status")
		c.Linux.SecurityContext.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: ref}
		return c
	}
	for i, ref := range []string{"profiles/no-mkdir.json", filepath.Join(b.Runtime.cfg.SeccompDir, "profiles/no-mkdir.json"), "localhost/profiles/no-mkdir.json"} {
		out := b.output(pod, config(fmt.Sprintf("c%d", i), ref))
		if !strings.Contains(out, "refused\n") || !strings.Contains(out, "Seccomp:\t2\n") {
			t.Errorf("%s: %s", ref, out)
		}
	}
	for ref, want := range map[string]string{"none.json": "no such file", "": "names no profile", "../../etc/passwd": "no such file", "broken.json": "broken.json", "profiles": "profiles"} {
		if _, err := b.CreateContainer(ctx, pod, config("bad", ref), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", ref, err)
		}
	}
	c := config("unconfined", "")
	c.Linux.SecurityContext.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	if out := b.output(pod, c); !strings.Contains(out, "Seccomp:\t0\n") {
		t.Error(out)
	}
}

// TestCapabilitiesOfUsers: an ambient capability stays with a user who is not root; others go, and with no_new_privs nothing brings them back.
func TestCapabilitiesOfUsers(t *testing.T) {
	b := newBench(t)
	for _, handler := range []string{"", "runc"} {
		pod := b.podOf(b.podConfig("caps"+handler), handler)
		c := containerConfig("a", "sh", "-c", "grep Cap /proc/self/status; id -u")
		sc := c.Linux.SecurityContext
		sc.RunAsUser = &runtimeapi.Int64Value{Value: 1000}
		sc.NoNewPrivs = true
		sc.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"NET_ADMIN"}, AddAmbientCapabilities: []string{"NET_BIND_SERVICE"}, DropCapabilities: []string{"ALL"}}
		want := "CapInh:\t0000000000000400\nCapPrm:\t0000000000000400\nCapEff:\t0000000000000400\nCapBnd:\t0000000000001400\nCapAmb:\t0000000000000400\n1000\n"
		if got := b.output(pod, c); got != want {
			t.Errorf("handler %q: %s", handler, got)
		}
	}
}

// TestProc: which of /proc and /sys a container sees and may write is what its configuration says.
func TestProc(t *testing.T) {
	b := newBench(t)
	for _, handler := range []string{"", "runc"} {
		pod := b.podOf(b.podConfig("proc"+handler), handler)
		const look = "head -c 1 /proc/keys | wc -c; (echo 1 >/proc/sys/kernel/domainname) 2>/dev/null && echo written || echo refused"
		c := containerConfig("masked", "sh", "-c", look)
		c.Linux.SecurityContext.MaskedPaths, c.Linux.SecurityContext.ReadonlyPaths = []string{"/proc/keys"}, []string{"/proc/sys"}
		if got := b.output(pod, c); got != "0\nrefused\n" {
			t.Errorf("handler %q: masked: %q", handler, got)
		}
		if got := b.output(pod, containerConfig("unmasked", "sh", "-c", look)); !strings.HasSuffix(got, "written\n") {
			t.Errorf("handler %q: unmasked: %q", handler, got)
		}
	}
}

// TestDevices: a container has the devices that it names, with the permissions that it asks for, and no others.
func TestDevices(t *testing.T) {
	b := newBench(t)
	folder := filepath.Join(filepath.Dir(b.cfg.Root), "devices")
	if err := os.MkdirAll(filepath.Join(folder, "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, device := range map[string]uint64{folder + "/deep/full": unix.Mkdev(1, 7), folder + "/deep/fuse": unix.Mkdev(10, 229)} { // none opens fuse unasked
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(device)); err != nil {
			t.Fatal(err)
		}
		os.Chmod(path, 0o666)
	}
	if err := os.Symlink("deep/fuse", folder+"/link"); err != nil {
		t.Fatal(err)
	}
	const try = "(: <%[1]s) 2>/dev/null && echo read; (: >%[1]s) 2>/dev/null && echo written; test -e /dev/kmsg || echo none other; ls /d 2>/dev/null; true"
	for _, handler := range []string{"", "runc"} {
		pod := b.podOf(b.podConfig("devices"+handler), handler)
		for name, c := range map[string]struct {
			path, want string
			device     *runtimeapi.Device
		}{
			"read":   {"/dev/mine", "read\nnone other\n", &runtimeapi.Device{HostPath: folder + "/link", ContainerPath: "/dev/mine", Permissions: "r"}},
			"all":    {"/dev/mine", "read\nwritten\nnone other\n", &runtimeapi.Device{HostPath: folder + "/deep/fuse", ContainerPath: "/dev/mine", Permissions: "rwm"}},
			"make":   {"/dev/mine", "none other\n", &runtimeapi.Device{HostPath: folder + "/deep/fuse", ContainerPath: "/dev/mine", Permissions: "m"}},
			"folder": {"/d/deep/fuse", "read\nwritten\nnone other\ndeep\n", &runtimeapi.Device{HostPath: folder, ContainerPath: "/d", Permissions: "rw"}},
		} {
			config := containerConfig(name, "sh", "-c", fmt.Sprintf(try, c.path))
			config.Devices = []*runtimeapi.Device{c.device}
			if got := b.output(pod, config); got != c.want {
				t.Errorf("handler %q, %s: %q, want %q", handler, name, got, c.want)
			}
		}
	}
}

func TestUnknownHandlers(t *testing.T) {
	b := newBench(t)
	b.Runtime.cfg.OCIRuntimes["gone"] = "/no/such/runtime"
	for handler, want := range map[string]string{"gone": `the OCI runtime for handler "gone", /no/such/runtime, is not installed`, "strange": `no OCI runtime for handler "strange" is configured`} {
		if _, err := b.RunPodSandbox(context.Background(), b.podConfig("p"), handler); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", handler, err)
		}
	}
}
