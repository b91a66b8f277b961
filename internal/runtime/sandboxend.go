package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/failpoint"
	"carob.dev/carob/internal/runtime/shim"
	"carob.dev/carob/internal/runtime/shim/wire"
	"carob.dev/carob/internal/sys"
)

// patience is how long a killed process is waited for.
const patience = 10 * time.Second

// StopPodSandbox kills what runs in the sandbox, ends its shim and takes its network back. Stopping a stopped one does nothing.
func (r *Runtime) StopPodSandbox(ctx context.Context, id string) error {
	sb, err := r.findSandbox(id)
	if status.Code(err) == codes.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if err := sb.turn.take(ctx); err != nil {
		return err
	}
	defer sb.turn.pass()
	return r.stopSandbox(ctx, sb)
}

func (r *Runtime) stopSandbox(ctx context.Context, sb *sandbox) error {
	r.mu.Lock()
	done := sb.rec.Stopped
	was := sb.rec.Ready
	sb.stopping = true
	containers := r.containersOf(sb)
	r.mu.Unlock()
	if done {
		return nil
	}
	for _, c := range containers {
		if err := r.killContainer(ctx, c); err != nil {
			return err
		}
	}
	failpoint.Hit("runtime/stop/containers-killed")
	if err := r.endShim(ctx, sb); err != nil {
		return err
	}
	failpoint.Hit("runtime/stop/shim-ended")
	if err := r.disconnect(ctx, sb); err != nil {
		return err
	}
	failpoint.Hit("runtime/stop/disconnected")
	r.mu.Lock()
	sb.rec.Stopped, sb.rec.Ready = true, false
	rec := sb.rec
	r.mu.Unlock()
	if err := r.keepSandbox(sb); err != nil {
		return err
	}
	failpoint.Hit("runtime/stop/recorded")
	if was {
		r.tell(runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, rec.ID, sb)
	}
	return nil
}

// endShim kills pause and the shim and removes what they had. A shim that is gone already is fine.
func (r *Runtime) endShim(ctx context.Context, sb *sandbox) error {
	r.mu.Lock()
	client, id := sb.client, sb.rec.ID
	sb.client, sb.ending = nil, true
	r.mu.Unlock()
	if client != nil {
		if _, err := client.Ask(ctx, wire.Frame{Op: wire.OpShutdown}); err != nil && !errors.Is(err, shim.ErrGone) {
			return fmt.Errorf("end the shim: %w", err)
		}
		client.Close()
	}
	failpoint.Hit("runtime/shim/told-to-end")
	if err := sys.CgroupKillAll(r.cfg.shimCgroup(id)); err != nil {
		return err
	}
	failpoint.Hit("runtime/shim/killed")
	if err := sys.CgroupRemove(r.cfg.shimCgroup(id)); err != nil {
		return err
	}
	failpoint.Hit("runtime/shim/cgroup-removed")
	for _, path := range []string{r.cfg.shimDir(id), r.cfg.shimSocket(id)} {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		failpoint.Hit("runtime/shim/path-removed")
	}
	return nil
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (r *Runtime) disconnect(ctx context.Context, sb *sandbox) error {
	if sb.rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE {
		return nil
	}
	return r.cfg.Network.Detach(ctx, sb.rec.ID)
}

// RemovePodSandbox stops the sandbox, removes its containers and forgets it. Removing what is not there does nothing.
func (r *Runtime) RemovePodSandbox(ctx context.Context, id string) error {
	sb, err := r.findSandbox(id)
	if status.Code(err) == codes.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if err := sb.turn.take(ctx); err != nil {
		return err
	}
	defer sb.turn.pass()
	if err := r.stopSandbox(ctx, sb); err != nil {
		return err
	}
	r.mu.Lock()
	containers := r.containersOf(sb)
	r.mu.Unlock()
	for _, c := range containers {
		if err := r.RemoveContainer(ctx, c.rec.ID); err != nil {
			return err
		}
	}
	failpoint.Hit("runtime/remove/containers-removed")
	if err := r.destroySandbox(ctx, sb); err != nil {
		return err
	}
	failpoint.Hit("runtime/remove/done")
	r.tell(runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT, sb.rec.ID, sb)
	return nil
}

// destroySandbox takes apart whatever there is of a sandbox, however far its making came, its record last.
func (r *Runtime) destroySandbox(ctx context.Context, sb *sandbox) error {
	r.mu.Lock()
	sb.stopping = true
	stopped := sb.rec.Stopped
	r.mu.Unlock()
	if !stopped {
		if err := r.endShim(ctx, sb); err != nil {
			return err
		}
		if err := r.disconnect(ctx, sb); err != nil {
			return err
		}
	}
	failpoint.Hit("runtime/remove/disconnected")
	if err := os.RemoveAll(r.cfg.sandboxDir(sb.rec.ID)); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sandboxes, sb.rec.ID)
	r.free(sb.name, sb.rec.ID)
	return nil
}
