package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// tally is what the guest's lines added up to. The guest writes "PASS name", "FAIL name: why", and at its end "DONE".
type tally struct {
	passed int
	failed []string
	done   bool
}

// see takes one line of the console and tells whether it is worth showing.
func (t *tally) see(line string) bool {
	switch {
	case strings.HasPrefix(line, "PASS "):
		t.passed++
	case strings.HasPrefix(line, "FAIL "):
		t.failed = append(t.failed, strings.TrimPrefix(line, "FAIL "))
	case line == "DONE":
		t.done = true
		return false
	default:
		return strings.HasPrefix(line, "  | ")
	}
	return true
}

func (t *tally) verdict(mode string) error {
	switch {
	case len(t.failed) > 0:
		return fmt.Errorf("%s: %d of %d checks failed: %s", mode, len(t.failed), t.passed+len(t.failed), strings.Join(t.failed, "; "))
	case !t.done:
		return fmt.Errorf("%s: the machine ended or hung before its checks were through", mode)
	case t.passed == 0:
		return fmt.Errorf("%s: nothing was checked", mode)
	}
	return nil
}

// boot starts the machine, reads its console and waits for it to turn itself off.
func boot(ctx context.Context, o options, m machine, mode string) error {
	init := map[string]string{"plain": "/load/guest/init.sh", "systemd": "/load/guest/init-systemd.sh", "slices": "/load/guest/init-systemd.sh",
		"critest": "/load/guest/init.sh", "nfs": "/load/guest/init.sh", "shutdown": "/load/guest/init-systemd.sh", "memory": "/load/guest/init.sh", "conformance": "/load/guest/init.sh"}[mode]
	if init == "" {
		return fmt.Errorf("%q is no mode: plain, systemd, slices, critest, nfs, shutdown, memory, conformance", mode)
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	began := time.Now()
	fmt.Printf("booting: %s\n", mode)
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", o.memory,
		"-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", m.kernel, "-initrd", m.initrd,
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off cgroup_no_v1=all guest.init="+init+" guest.mode="+mode,
		"-drive", "file="+m.root+",if=virtio,format=raw,snapshot=on", "-drive", "file="+m.load+",if=virtio,format=raw,readonly=on",
		"-nic", "user,restrict=on,model=virtio-net-pci")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "TMPDIR="+o.dir) // where qemu keeps what the guest writes
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(o.dir, mode+".log"))
	if err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	defer log.Close()
	var t tally
	lines := bufio.NewScanner(io.TeeReader(out, log))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r\n")
		if t.see(line) || o.verbose {
			fmt.Printf("%6.1f  %s\n", time.Since(began).Seconds(), line)
		}
	}
	if err := errors.Join(lines.Err(), cmd.Wait()); err != nil && !t.done {
		return errors.Join(fmt.Errorf("%s: %w (its console: %s)", mode, err, log.Name()), t.verdict(mode))
	}
	fmt.Printf("%s: %d passed, %d failed in %.0f s\n", mode, t.passed, len(t.failed), time.Since(began).Seconds())
	return t.verdict(mode)
}
