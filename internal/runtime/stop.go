package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/failpoint"
	"carob.dev/carob/internal/runtime/shim"
	"carob.dev/carob/internal/runtime/shim/wire"
	"carob.dev/carob/internal/sys"
)

// StopContainer sends the stop signal, waits timeout seconds, then kills all that is left of the container. Stopping what does not run,
// or is not there, does nothing.
func (r *Runtime) StopContainer(ctx context.Context, id string, timeout int64) error {
	c, err := r.findContainer(id)
	if status.Code(err) == codes.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	running, client := c.rec.State == runtimeapi.ContainerState_CONTAINER_RUNNING, c.sb.client
	rec := c.rec
	r.mu.Unlock()
	if !running {
		return nil
	}
	if timeout > 0 && client != nil {
		_, err := client.Ask(ctx, wire.Frame{Op: wire.OpKill, ID: rec.ID, Sig: int(stopSignal(rec))})
		var refusal *shim.Refusal
		if err != nil && !errors.As(err, &refusal) && !errors.Is(err, shim.ErrGone) {
			return fmt.Errorf("stop container %s: %w", id, err)
		}
		failpoint.Hit("runtime/container/signalled")
		if r.within(c.exited, time.Duration(timeout)*time.Second, ctx.Done()) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return status.FromContextError(err).Err()
		}
	}
	return r.killContainer(ctx, c)
}

// killContainer kills all of a container's processes and waits until its end is known.
func (r *Runtime) killContainer(ctx context.Context, c *container) error {
	defer r.noCheckpoint(c)()
	if err := c.turn.take(ctx); err != nil {
		return err
	}
	defer c.turn.pass()
	r.mu.Lock()
	running, client, rec := c.rec.State == runtimeapi.ContainerState_CONTAINER_RUNNING, c.sb.client, c.rec
	r.mu.Unlock()
	if !running {
		return nil
	}
	if client != nil {
		_, err := client.Ask(ctx, wire.Frame{Op: wire.OpKillAll, ID: rec.ID})
		var refusal *shim.Refusal
		if err != nil && !errors.As(err, &refusal) && !errors.Is(err, shim.ErrGone) {
			return fmt.Errorf("kill container %s: %w", rec.ID, err)
		}
	} else if err := sys.CgroupKillAll(rec.Cgroup); err != nil {
		return err
	}
	failpoint.Hit("runtime/container/killed")
	if r.within(c.exited, patience, ctx.Done()) {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	return status.Errorf(codes.DeadlineExceeded, "container %s was killed but has not ended in %v: is a process of it stuck in the kernel?", rec.ID, patience)
}

// stopSignal is the one that the Pod names, else the image, else SIGTERM.
func stopSignal(rec containerRecord) unix.Signal {
	name := rec.StopSignal
	if s := rec.Config.GetStopSignal(); s != runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		name = strings.TrimPrefix(s.String(), "SIGNAL_")
	}
	return parseSignal(name)
}

// parseSignal reads TERM, SIGTERM, 15 and SIGRTMIN+3 (also as SIGRTMINPLUS3); anything else is SIGTERM.
func parseSignal(name string) unix.Signal {
	name = strings.ToUpper(strings.TrimSpace(name))
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n <= 64 {
		return unix.Signal(n)
	}
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if s := unix.SignalNum(name); s != 0 {
		return s
	}
	name = strings.NewReplacer("PLUS", "+", "MINUS", "-").Replace(name)
	for prefix, base := range map[string]int{"SIGRTMIN": 34, "SIGRTMAX": 64} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			n, err := strconv.Atoi(rest)
			if rest == "" || err == nil && base+n >= 34 && base+n <= 64 {
				return unix.Signal(base + n)
			}
		}
	}
	return unix.SIGTERM
}

// RemoveContainer kills the container if need be and removes all of it but its log. Removing what is not there does nothing.
func (r *Runtime) RemoveContainer(ctx context.Context, id string) error {
	c, err := r.findContainer(id)
	if status.Code(err) == codes.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if err := r.killContainer(ctx, c); err != nil {
		return err
	}
	if err := c.turn.take(ctx); err != nil {
		return err
	}
	defer c.turn.pass()
	if err := r.destroyContainer(ctx, c); err != nil {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	r.tell(runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT, c.rec.ID, c.sb)
	return nil
}

// destroyContainer takes apart whatever there is of a container that does not run, its record last.
func (r *Runtime) destroyContainer(ctx context.Context, c *container) error {
	r.mu.Lock()
	client, rec := c.sb.client, c.rec
	r.mu.Unlock()
	if client != nil && rec.Made {
		_, err := client.Ask(ctx, wire.Frame{Op: wire.OpForget, ID: rec.ID})
		if err != nil && !errors.Is(err, shim.ErrGone) {
			return err
		}
	}
	failpoint.Hit("runtime/container/forgotten")
	if err := sys.CgroupKillAll(rec.Cgroup); err != nil {
		return err
	}
	if err := sys.CgroupRemove(rec.Cgroup); err != nil {
		return err
	}
	failpoint.Hit("runtime/container/cgroup-removed")
	if err := errors.Join(r.unmount(rec.ID), r.unreach(rec.ID)); err != nil {
		return err
	}
	for _, d := range []string{filepath.Join(r.cfg.ociRoot(), rec.ID), r.cfg.bundleDir(rec.ID), r.cfg.containerDir(rec.ID)} {
		failpoint.Hit("runtime/container/path-to-remove")
		if err := os.RemoveAll(d); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delist(c)
	return nil
}
