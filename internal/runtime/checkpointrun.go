package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"carob.dev/carob/internal/failpoint"
	"carob.dev/carob/internal/runtime/checkpoint"
	"carob.dev/carob/internal/sys"
)

// runCheckpoint has the OCI runtime write a container's processes below the work folder, and waits for it. When ctx ends first, all that it
// has started is killed; undoCheckpoint lets the container go on then.
func (r *Runtime) runCheckpoint(ctx context.Context, rec *containerRecord, work, bin string, hide bool) error {
	cgroup := r.cfg.checkpointCgroup(rec.ID)
	if err := sys.CgroupCreate(cgroup, sys.Resources{}); err != nil {
		return err
	}
	failpoint.Hit("runtime/checkpoint/cgroup")
	log := filepath.Join(work, "oci.log")
	args := append([]string{"--root", r.cfg.ociRoot(), "--log", log, "--log-format", "json"}, ociArgs(rec.Cgroup)...)
	cmd := exec.Command(bin, append(args, "checkpoint", "--image-path", filepath.Join(work, checkpoint.Images), "--work-path", work, "--leave-running", rec.ID)...)
	var out bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = "/", &out, &out, time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if r.cgroups.Unified {
		folder, err := os.Open(r.cgroups.Folder("", cgroup))
		if err != nil {
			return err
		}
		defer folder.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(folder.Fd())
	}
	err := sys.BornInCgroup(cgroup, func() error {
		if hide {
			if err := sys.HideUnified(); err != nil {
				return err
			}
		}
		return cmd.Start()
	})
	if err != nil {
		return err
	}
	failpoint.Hit("runtime/checkpoint/begun")
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		// The OCI runtime's own child, criu, would go on without it.
		if err := sys.CgroupKillAll(cgroup); err != nil {
			return err
		}
		<-ended
		return ctx.Err()
	}
	if err == nil {
		return nil
	}
	said, _ := os.ReadFile(log)
	cause := strings.TrimSpace(explain(string(said)+out.String(), nil))
	cause, _, _ = strings.Cut(cause, "\nlog file: ") // runc's pointer to what is read here, and will be gone
	dump, _ := os.ReadFile(filepath.Join(work, "dump.log"))
	if list := checkpoint.LastErrors(string(dump), 3); len(list) > 0 {
		cause = strings.Join(append([]string{cause}, list...), "; ")
	}
	if cause == "" {
		return fmt.Errorf("OCI runtime checkpoint failed: %w", err)
	}
	return errors.New("OCI runtime checkpoint failed: " + cause)
}
