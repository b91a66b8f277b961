// Package host makes test hosts: a network and a mount namespace of their own, pinned by a holder process, so that a Carob
// which runs in one changes nothing of the machine. A Carob that is killed and started again enters the same host.
//
// It may be used by tests only, as root.
package host

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"carob.dev/carob/internal/config"
)

// prepare makes the mount namespace receive from the machine but not send to it, share with its own children as / does
// on a real machine, and brings loopback up.
const prepare = `mount --make-rshared / && ip link set lo up && echo ready && exec sleep infinity`

// Host is one test host. Its Root is the state folder that the Carob in it is to use.
type Host struct {
	// Root is an absolute folder that does not exist yet.
	Root string
	// Dir is a folder for the test's own files, outside Root.
	Dir    string
	holder *exec.Cmd
}

// New starts a host that ends with the test. It fails the test if it is not root.
func New(t testing.TB) *Host {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("test hosts need root: run the tests as root")
	}
	dir, err := os.MkdirTemp("", "carob-host-")
	if err != nil {
		t.Fatal(err)
	}
	h := &Host{Root: filepath.Join(dir, "root"), Dir: dir}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the test host's folder: %v", err)
		}
	})
	if err := h.start(); err != nil {
		t.Fatalf("start a test host: %v", err)
	}
	t.Cleanup(h.stop)
	return h
}

func (h *Host) start() error {
	h.holder = exec.Command("unshare", "--net", "--mount", "--propagation", "slave", "sh", "-c", prepare)
	h.holder.Stderr = os.Stderr
	h.holder.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := h.holder.StdoutPipe()
	if err != nil {
		return err
	}
	if err := h.holder.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		h.stop()
		return fmt.Errorf("the holder said %q: %v", line, err)
	}
	return nil
}

func (h *Host) stop() {
	syscall.Kill(-h.holder.Process.Pid, syscall.SIGKILL)
	h.holder.Wait()
}

// HolderPID is the process that pins the host's namespaces.
func (h *Host) HolderPID() int { return h.holder.Process.Pid }

// ID is the id that a Carob with this host's Root has.
func (h *Host) ID() string { return config.Default(h.Root).ID() }

// Command is a command that will run inside the host.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", h.enter(name, args)...)
}

// CommandContext is Command, ended with ctx.
func (h *Host) CommandContext(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "nsenter", h.enter(name, args)...)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	return c
}

// enter keeps the working folder; nsenter rather than "ip netns exec", which mounts /sys anew and hides the cgroups.
func (h *Host) enter(name string, args []string) []string {
	wd, err := os.Getwd()
	if err != nil {
		wd = "/"
	}
	return append([]string{"--target", strconv.Itoa(h.HolderPID()), "--net", "--mount", "--wdns=" + wd, name}, args...)
}
