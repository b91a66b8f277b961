package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/failpoint"
	"carob.dev/carob/internal/runtime/shim"
	"carob.dev/carob/internal/runtime/shim/wire"
	"carob.dev/carob/internal/sys"
)

// startErrorExit is the exit code of a container that could not be started, as Kubernetes knows it from other runtimes.
const startErrorExit = 128

// StartContainer has the container created and started by the OCI runtime. When that fails the container has exited, with the reason
// StartError and code 128.
func (r *Runtime) StartContainer(ctx context.Context, id string) error {
	defer r.warm.starting()()
	c, err := r.findContainer(id)
	if err != nil {
		return err
	}
	if err := c.turn.take(ctx); err != nil {
		return err
	}
	defer c.turn.pass()
	r.mu.Lock()
	state, client, ready, handler := c.rec.State, c.sb.client, c.sb.rec.Ready && !c.sb.stopping, c.sb.rec.Handler
	r.mu.Unlock()
	if state != runtimeapi.ContainerState_CONTAINER_CREATED {
		return status.Errorf(codes.FailedPrecondition, "container %q is in state %v", id, state)
	}
	if !ready || client == nil {
		return status.Errorf(codes.FailedPrecondition, "sandbox of container %q is not ready", id)
	}
	bin, hide, err := r.binary(handler)
	if err != nil {
		return err
	}
	failpoint.Hit("runtime/container/to-start")
	// What was begun is finished: a container half started when the caller leaves would be nobody's.
	reply, err := client.Ask(context.WithoutCancel(ctx), wire.Frame{Op: wire.OpRun, ID: c.rec.ID, Bin: bin, Root: r.cfg.ociRoot(), Bundle: r.cfg.bundleDir(c.rec.ID),
		Log: c.rec.LogPath, Cgroup: r.cgroups.Folder("memory", c.rec.Cgroup), TTY: flag(c.rec.Config.GetTty()), Stdin: flag(c.rec.Config.GetStdin()),
		Once: flag(c.rec.Config.GetStdinOnce()), Hide: hide, Args: ociArgs(c.rec.Cgroup)})
	if err != nil {
		r.started(c.rec.ID)
		return r.startFailed(c, err)
	}
	failpoint.Hit("runtime/container/started")
	r.seccomp.learn(c.seccomp, filepath.Join(r.cfg.ociRoot(), c.rec.ID))
	r.containerIs(c, wire.Frame{Op: wire.OpState, ID: c.rec.ID, Pid: reply.Pid, Started: int(r.cfg.Clock.Now().UnixNano())})
	return nil
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (r *Runtime) startFailed(c *container, err error) error {
	var refusal *shim.Refusal
	if errors.As(err, &refusal) {
		err = fmt.Errorf("OCI runtime create failed: %s", explain(refusal.Text, r.args(c)))
	}
	r.mu.Lock()
	if c.rec.State == runtimeapi.ContainerState_CONTAINER_EXITED {
		r.mu.Unlock()
		return err
	}
	c.rec.finish(r.cfg.Clock.Now().UnixNano(), startErrorExit, "StartError", err.Error())
	rec := c.rec
	r.mu.Unlock()
	if err := r.keepContainer(c); err != nil {
		r.cfg.Log.Error("keep the state of a container", "container", rec.ID, "error", err)
	}
	close(c.exited)
	if kill := sys.CgroupKillAll(rec.Cgroup); kill != nil {
		r.cfg.Log.Error("kill what a failed start left", "container", rec.ID, "error", kill)
	}
	r.tell(runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, rec.ID, c.sb)
	return err
}

// args is what the container was to run.
func (r *Runtime) args(c *container) []string {
	spec, err := readSpec(filepath.Join(r.cfg.bundleDir(c.rec.ID), "config.json"))
	if err != nil {
		return nil
	}
	return spec.Process.Args
}

var notInPath = regexp.MustCompile("executable file [`\"']([^`\"']*)[`\"'] not found")

// explain turns what an OCI runtime logged into one message, worded as Kubernetes' users know it.
func explain(log string, args []string) string {
	message := strings.TrimSpace(log)
	for line := range strings.Lines(log) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg != "" && entry.Level != "warning" {
			message = entry.Msg
		}
	}
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	const prefix = "unable to start container process: error during container init: exec: "
	if m := notInPath.FindStringSubmatch(message); m != nil {
		if strings.Contains(m[1], "/") {
			return fmt.Sprintf("%s%q: stat %s: no such file or directory", prefix, m[1], m[1])
		}
		return fmt.Sprintf("%s%q: executable file not found in $PATH", prefix, m[1])
	}
	if strings.HasPrefix(message, "open executable") || strings.HasPrefix(message, "exec failed") || strings.HasPrefix(message, "exec container process") ||
		strings.HasPrefix(message, "executable path") || strings.Contains(message, "cannot find") && strings.Contains(message, name) {
		switch {
		case strings.Contains(message, "Permission denied") || strings.Contains(message, "permission denied"):
			return fmt.Sprintf("%s%q: permission denied", prefix, name)
		case strings.Contains(message, "No such file"):
			return fmt.Sprintf("%s%q: stat %s: no such file or directory", prefix, name, name)
		}
	}
	return message
}
