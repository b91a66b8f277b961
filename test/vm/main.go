// Command vm tries a Carob on a kernel of its own, one that has cgroup v2 alone: it makes a small Debian, boots it in qemu and runs
// guest/checks.sh there, once with a plain init and once with systemd as the first process. In mode slices systemd makes
// the cgroups (guest/slices.sh), in mode shutdown the machine is shut down under it (guest/shutdown.sh); in mode memory it swaps and has huge pages (guest/memory.sh), in mode nfs it serves NFS and mounts it (guest/nfs.sh). Mode critest runs the CRI's validation suite there
// instead: that kernel has AppArmor too. Mode conformance runs specs of upstream's e2e suite there.
//
// It may import nothing of the project: what it tries is bin/carob. It writes below -dir only, sends nothing to any network (the machine's
// only link is closed by qemu), and ends with exit code 0 only if every check passed in every mode.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

type options struct {
	// dir is where everything is made, images has the archives to import, carob is the program under test.
	dir, images, carob string
	// critest is the folder with what test/critest/build.sh made, list the file of specs that must pass; for mode critest.
	critest, list string
	// judge is the folder with what test/conformance/build.sh made, specs the file of specs that must pass, source the folder that the suite's images
	// are made of, focus the expression that names of specs match; for mode conformance.
	judge, specs, source, focus string
	// guest is the folder of scripts, examples that of manifests, unit the file that systemd runs a Carob by.
	guest, examples, unit string
	modes                 []string
	memory                string
	timeout               time.Duration
	verbose               bool
}

func main() {
	runtime.LockOSThread() // the machine ends with the thread that started it
	var o options
	var modes string
	flag.StringVar(&o.dir, "dir", "build/vm", "folder to build in")
	flag.StringVar(&o.images, "images", "build/images", "folder of image archives")
	flag.StringVar(&o.carob, "carob", "bin/carob", "the program to try")
	flag.StringVar(&o.guest, "guest", "test/vm/guest", "folder of the guest's scripts")
	flag.StringVar(&o.examples, "examples", "examples", "folder of manifests")
	flag.StringVar(&o.unit, "unit", "docs/carob.service", "the unit for systemd")
	flag.StringVar(&o.critest, "critest", "build", "folder with what test/critest/build.sh made, for mode critest")
	flag.StringVar(&o.list, "list", "test/critest/vm.txt", "file of specs that must pass, for mode critest")
	flag.StringVar(&o.judge, "conformance", "build/conformance", "folder with what test/conformance/build.sh made, for mode conformance")
	flag.StringVar(&o.specs, "conformance-list", "test/conformance/vm.txt", "file of specs that must pass, for mode conformance")
	flag.StringVar(&o.source, "conformance-source", "", "folder of the sources of the suite's images, for mode conformance")
	flag.StringVar(&o.focus, "focus", "", "run only specs whose name matches this expression, in mode conformance")
	flag.StringVar(&modes, "modes", "plain,systemd,slices,shutdown,memory,nfs", "what to boot: plain, systemd, slices, shutdown, memory, critest, nfs, conformance")
	flag.StringVar(&o.memory, "memory", "2G", "the machine's memory")
	flag.DurationVar(&o.timeout, "timeout", 12*time.Minute, "for one boot with its checks")
	flag.BoolVar(&o.verbose, "v", false, "show all that the machine says")
	flag.Parse()
	o.modes = strings.Split(modes, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if os.Geteuid() != 0 {
		return errors.New("needs root, to make a Debian with its owners")
	}
	if _, err := os.Stat(o.carob); err != nil {
		return fmt.Errorf("%w (make build)", err)
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	if err := install(ctx, "mmdebstrap", "mmdebstrap"); err != nil {
		return err
	}
	if err := install(ctx, "qemu-system-x86_64", "qemu-system-x86"); err != nil {
		return err
	}
	m, err := makeMachine(ctx, o)
	if err != nil {
		return err
	}
	var errs []error
	for _, mode := range o.modes {
		errs = append(errs, boot(ctx, o, m, mode))
	}
	return errors.Join(errs...)
}

// install brings a program from its Debian package, if it is not there.
func install(ctx context.Context, program, pkg string) error {
	if _, err := exec.LookPath(program); err == nil {
		return nil
	}
	fmt.Println("installing", pkg)
	args := []string{"install", "-y", "-qq", "--no-install-recommends", pkg}
	if command(ctx, "apt-get", args...) == nil {
		return nil
	}
	if err := command(ctx, "apt-get", "update", "-qq"); err != nil {
		return err
	}
	return command(ctx, "apt-get", args...)
}

// command runs a program and tells what it said only if it failed.
func command(ctx context.Context, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// made tells whether a step's result is there for the given description of it, and otherwise forgets the old result.
func made(dir, step, description string) bool {
	old, err := os.ReadFile(filepath.Join(dir, step+".made"))
	if err == nil && string(old) == description {
		return true
	}
	os.Remove(filepath.Join(dir, step+".made"))
	return false
}

func markMade(dir, step, description string) error {
	return os.WriteFile(filepath.Join(dir, step+".made"), []byte(description), 0o644)
}
