package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/runtime/oci"
	"carob.dev/carob/internal/runtime/shim/pause"
)

func binarySize(_ context.Context, b *bench) ([]Result, error) {
	st, err := os.Stat(b.binary)
	if err != nil {
		return nil, err
	}
	return []Result{summary("binary", "MB", 100, float64(st.Size())/1e6)}, nil
}

// staticProgram writes a program that only waits.
func (b *bench) staticProgram() (string, error) {
	path := filepath.Join(b.dir, "pause")
	return path, os.WriteFile(path, pause.ELF(), 0o755)
}

// kernelFloor is what any Pod costs: clone with new namespaces, a veth into them with address and route, exec.
func kernelFloor(_ context.Context, b *bench) ([]Result, error) {
	prog, err := b.staticProgram()
	if err != nil {
		return nil, err
	}
	var took []time.Duration
	for range b.runs {
		d, err := floorOnce(prog)
		if err != nil {
			return nil, err
		}
		took = append(took, d)
	}
	return []Result{millis("kernel floor: namespaces + veth + exec", 0, took)}, nil
}

func floorOnce(prog string) (time.Duration, error) {
	runtime.LockOSThread()
	began := time.Now()
	pid, err := syscall.ForkExec(prog, []string{"pause"}, &syscall.ProcAttr{Dir: "/", Sys: &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID}})
	if err != nil {
		return 0, err
	}
	defer func() {
		syscall.Kill(pid, syscall.SIGKILL)
		syscall.Wait4(pid, nil, 0, nil)
	}()
	name := fmt.Sprintf("fl%d", pid)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsPid(pid)}
	if err := netlink.LinkAdd(veth); err != nil {
		return 0, err
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		return 0, err
	}
	dst := &net.IPNet{IP: net.IPv4(192, 0, 2, 77), Mask: net.CIDRMask(32, 32)}
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: veth.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK}); err != nil {
		return 0, err
	}
	return time.Since(began), nil
}

const crunChild = "crun-floor"

// crunAlone runs crun in a mount namespace of its own, where a second cgroup tree, which crun refuses, can be hidden.
func crunAlone(ctx context.Context, b *bench) ([]Result, error) {
	prog, err := b.staticProgram()
	if err != nil {
		return nil, err
	}
	var results []Result
	for _, profile := range []string{"no seccomp", "default seccomp"} {
		bundle := filepath.Join(b.dir, "bundle")
		if err := writeBundle(bundle, prog, profile == "default seccomp"); err != nil {
			return nil, err
		}
		var took []time.Duration
		for range b.runs {
			self, err := os.Executable()
			if err != nil {
				return nil, err
			}
			cmd := exec.CommandContext(ctx, self, crunChild, bundle)
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				return nil, err
			}
			d, err := time.ParseDuration(strings.TrimSpace(string(out)))
			if err != nil {
				return nil, err
			}
			took = append(took, d)
		}
		results = append(results, millis("crun run alone, "+profile, 0, took))
		os.RemoveAll(bundle)
	}
	return results, nil
}

func writeBundle(dir, prog string, seccomp bool) error {
	for _, d := range []string{"proc", "dev", "sys"} {
		if err := os.MkdirAll(filepath.Join(dir, "rootfs", d), 0o755); err != nil {
			return err
		}
	}
	raw, err := os.ReadFile(prog)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "rootfs", "pause"), raw, 0o755); err != nil {
		return err
	}
	spec := specs.Spec{Version: "1.0.2", Root: &specs.Root{Path: "rootfs"}, Process: &specs.Process{Args: []string{"/pause"}, Cwd: "/", Capabilities: &specs.LinuxCapabilities{}},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}}},
		Linux: &specs.Linux{CgroupsPath: "/carob-bench-floor", Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace},
			{Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.PIDNamespace}}}}
	if seccomp {
		spec.Linux.Seccomp = oci.DefaultSeccomp(runtime.GOARCH, nil)
	}
	if raw, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o644)
}

// crunFloor runs in the child: it prints how long one run took.
func crunFloor(bundle string) error {
	unix.Mount("", "/sys/fs/cgroup", "", unix.MS_PRIVATE, "")
	unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH)
	root := []string{"--root", bundle + ".state"}
	defer os.RemoveAll(bundle + ".state")
	began := time.Now()
	cmd := exec.Command("crun", append(root, "run", "--detach", "--bundle", bundle, "carob-bench-floor")...)
	cmd.Stderr = os.Stderr
	err := cmd.Run()
	took := time.Since(began)
	if gone := exec.Command("crun", append(root, "delete", "--force", "carob-bench-floor")...).Run(); err == nil {
		err = gone
	}
	fmt.Println(took)
	return err
}

// fsyncTime appends 4 KiB and waits for the disk, again and again.
func fsyncTime(_ context.Context, b *bench) ([]Result, error) {
	f, err := os.Create(filepath.Join(b.dir, "fsync"))
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var took []time.Duration
	page := make([]byte, 4096)
	for range 200 {
		began := time.Now()
		if _, err := f.Write(page); err != nil {
			return nil, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	return []Result{millis("disk floor: write and fdatasync of 4 KiB", 0, took)}, nil
}
