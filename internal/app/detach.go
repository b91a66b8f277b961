package app

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"carob.dev/carob/internal/cli/check"
	"carob.dev/carob/internal/config"
	"carob.dev/carob/internal/health"
)

// detach starts `carob server` with the same settings in a session of its own, and repeats what it says until it is usable or fails.
func detach(ctx context.Context, cfg config.Config, out io.Writer) error {
	if problems := check.Decide(cfg, check.Facts{UID: os.Geteuid()}); os.Geteuid() != 0 && len(problems) > 0 {
		return &problems[0] // before the folder for the log is tried
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	if err := os.MkdirAll(cfg.Root, 0o711); err != nil {
		return &health.Problem{Code: "RootUnusable", Severity: health.Error, What: "the state folder cannot be made", Why: err.Error(), Fix: "choose another with --root"}
	}
	logFile := filepath.Join(cfg.Root, "carob.log")
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(self, append([]string{"server"}, cfg.Args()...)...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{w}
	cmd.Env = append(os.Environ(), notifyEnv+"=3")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	stopWaiting := context.AfterFunc(ctx, func() { r.Close() })
	defer stopWaiting()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var n notice
		if err := json.Unmarshal(lines.Bytes(), &n); err != nil {
			continue
		}
		switch {
		case n.Error != nil:
			cmd.Wait()
			return n.Error
		case n.Ready:
			fmt.Fprintf(out, "\nThe cluster is ready: process %d, log %s\n  export KUBECONFIG=%s\n", cmd.Process.Pid, logFile, cfg.Kubeconfig)
			return cmd.Process.Release()
		default:
			fmt.Fprintln(out, n.Message)
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	state := cmd.Wait()
	return &health.Problem{Code: "StartFailed", Severity: health.Error, What: "the daemon ended or hung before it was usable",
		Why: fmt.Sprint(state), Fix: "read its log: " + logFile}
}
