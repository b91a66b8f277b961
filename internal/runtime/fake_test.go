package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/network"
	"carob.dev/carob/internal/runtime/image"
	"carob.dev/carob/internal/runtime/shimbin"
	"carob.dev/carob/internal/sys"
)

// fakeImages has one image: a static busybox with its applets.
type fakeImages struct{ layer string }

func (f fakeImages) Resolve(_ context.Context, ref string) (*image.Image, error) {
	if ref != "busybox" {
		return nil, errors.New("no such image")
	}
	return &image.Image{ID: "sha256:busybox", Layers: []string{f.layer}, Config: ocispec.ImageConfig{Cmd: []string{"sh"}}}, nil
}

// fakeNetwork remembers who is attached.
type fakeNetwork struct {
	mu       sync.Mutex
	attached map[string]bool
}

func (f *fakeNetwork) Attach(_ context.Context, req network.Request) (network.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attached[req.SandboxID] = true
	h, err := netlink.NewHandleAt(netns.NsHandle(req.NetNS.Fd()))
	if err != nil {
		return network.Result{}, err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.LinkSetUp(lo)
	}
	if err != nil {
		return network.Result{}, err
	}
	return network.Result{IPs: []netip.Addr{netip.MustParseAddr("10.0.0.9")}}, nil
}

func (f *fakeNetwork) Detach(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.attached, id)
	return nil
}

func (f *fakeNetwork) Reconcile(context.Context, []string) error { return nil }

// bench is a runtime on real processes, in folders and cgroups of its own.
type bench struct {
	*Runtime
	t   testing.TB
	cfg Config
}

func newBench(t testing.TB) *bench {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := shimbin.Shim(); err != nil {
		t.Skip(err)
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs the Debian package busybox-static: ", err)
	}
	top, err := os.MkdirTemp("", "carob-rt-")
	if err != nil {
		t.Fatal(err)
	}
	layer := filepath.Join(top, "layer")
	for _, d := range []string{"bin", "etc", "tmp", "proc", "sys", "dev"} {
		if err := os.MkdirAll(filepath.Join(layer, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string, data []byte, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(layer, name), data, mode); err != nil {
			t.Fatal(err)
		}
	}
	write("bin/busybox", busybox, 0o755)
	write("etc/passwd", []byte("root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n"), 0o644)
	write("etc/group", []byte("root:x:0:\nann:x:1000:\nstaff:x:50:ann\n"), 0o644)
	write("plain", []byte("no program"), 0o644)
	for _, applet := range strings.Fields("grep sh cat echo sleep id hostname ls kill true false head yes nc printf test readlink stty wc dd ps mount od") {
		if err := os.Symlink("busybox", filepath.Join(layer, "bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Base(top)
	b := &bench{t: t, cfg: Config{Root: filepath.Join(top, "root"), RunDir: "/run/" + name, CgroupRoot: name, Images: fakeImages{layer},
		Network: &fakeNetwork{attached: map[string]bool{}}, OCIRuntimes: ociRuntimes(),
		Log: slog.New(slog.NewTextHandler(testWriter{t}, nil))}}
	t.Cleanup(func() { b.clean(top) })
	b.open()
	return b
}

// ociRuntimes are crun, and runc by its handler. CAROB_TEST_OCI_RUNTIME is another program in the place of crun, CAROB_TEST_RUNC in that of
// runc.
func ociRuntimes() map[string]string {
	or := func(name, program string) string {
		if v := os.Getenv(name); v != "" {
			return v
		}
		return program
	}
	return map[string]string{"": or("CAROB_TEST_OCI_RUNTIME", "crun"), "runc": or("CAROB_TEST_RUNC", "runc")}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	fmt.Fprint(os.Stderr, string(p))
	return len(p), nil
}

func (b *bench) open() {
	b.t.Helper()
	r, err := New(context.Background(), b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Runtime = r
}

// clean removes everything and fails the test if something had to be left.
func (b *bench) clean(top string) {
	ctx := context.Background()
	if b.Runtime != nil {
		list, _ := b.ListPodSandbox(ctx, nil)
		for _, s := range list {
			if err := b.RemovePodSandbox(ctx, s.Id); err != nil {
				b.t.Error(err)
			}
		}
		b.Close(ctx)
	}
	for _, dir := range []string{"bundles", "oci", "reach", "s", "shims"} {
		entries, _ := os.ReadDir(filepath.Join(b.cfg.RunDir, dir))
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") {
				b.t.Errorf("left behind: %s/%s", dir, e.Name())
			}
		}
	}
	for _, dir := range []string{"containers", "sandboxes"} {
		if entries, _ := os.ReadDir(filepath.Join(b.cfg.Root, dir)); len(entries) > 0 {
			b.t.Errorf("left behind: %s/%s", dir, entries[0].Name())
		}
	}
	if mounts, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(mounts), filepath.Base(top)) {
		b.t.Error("left behind: mounts")
	}
	if pids, _ := sys.CgroupProcs("/" + b.cfg.CgroupRoot); len(pids) > 0 {
		b.t.Errorf("left behind: processes %v", pids)
		sys.CgroupKillAll("/" + b.cfg.CgroupRoot)
	}
	if err := sys.CgroupRemove("/" + b.cfg.CgroupRoot); err != nil {
		b.t.Error(err)
	}
	os.RemoveAll(b.cfg.RunDir)
	os.RemoveAll(top)
}

func (b *bench) podConfig(name string) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Uid: "uid-" + name, Namespace: "default"},
		LogDirectory: filepath.Join(b.cfg.Root, "logs", name),
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: "/" + b.cfg.CgroupRoot + "/kubepods/pod" + name,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}}}}
}

func (b *bench) pod(cfg *runtimeapi.PodSandboxConfig) string { return b.podOf(cfg, "") }

func (b *bench) podOf(cfg *runtimeapi.PodSandboxConfig, handler string) string {
	b.t.Helper()
	if err := sys.CgroupCreate(cfg.Linux.CgroupParent, sys.Resources{}); err != nil {
		b.t.Fatal(err)
	}
	id, err := b.RunPodSandbox(context.Background(), cfg, handler)
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

func containerConfig(name string, command ...string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: "busybox"},
		Command: command, LogPath: name + ".log",
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
			Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}}}}
}

func (b *bench) create(pod string, c *runtimeapi.ContainerConfig) string {
	b.t.Helper()
	id, err := b.CreateContainer(context.Background(), pod, c, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

func (b *bench) start(pod string, c *runtimeapi.ContainerConfig) string {
	b.t.Helper()
	id := b.create(pod, c)
	if err := b.StartContainer(context.Background(), id); err != nil {
		b.t.Fatal(err)
	}
	return id
}

func (b *bench) status(id string) *runtimeapi.ContainerStatus {
	b.t.Helper()
	s, err := b.ContainerStatus(context.Background(), id, false)
	if err != nil {
		b.t.Fatal(err)
	}
	return s.Status
}

// ended waits for a container's end.
func (b *bench) ended(id string) *runtimeapi.ContainerStatus {
	b.t.Helper()
	c, err := b.findContainer(id)
	if err != nil {
		b.t.Fatal(err)
	}
	select {
	case <-c.exited:
	case <-time.After(10 * time.Second):
		b.t.Fatalf("container %s does not end", id)
	}
	return b.status(id)
}

// log returns what a container wrote, without times.
func (b *bench) log(id string) string {
	b.t.Helper()
	raw, err := os.ReadFile(b.status(id).LogPath)
	if err != nil {
		b.t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(raw)) {
		at, rest, _ := strings.Cut(line, " ")
		if _, err := time.Parse(time.RFC3339Nano, at); err != nil {
			b.t.Errorf("log line %q: %v", line, err)
		}
		out.WriteString(rest)
	}
	return out.String()
}
