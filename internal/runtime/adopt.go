package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/runtime/shim"
	"carob.dev/carob/internal/runtime/shim/wire"
	"carob.dev/carob/internal/sys"
)

// adopt takes up what an earlier process left: it reads the records, finds the shims, hears what happened, and removes what was never
// finished or belongs to nothing.
func (r *Runtime) adopt(ctx context.Context) error {
	sandboxes, torn, err := load(filepath.Join(r.cfg.Root, "sandboxes"), "sandbox.json", func(s *sandboxRecord) int { return s.Version })
	if err != nil {
		return err
	}
	for _, rec := range sandboxes {
		sb := &sandbox{turn: newTurn(), name: sandboxName(rec.Config), rec: rec}
		r.sandboxes[rec.ID] = sb
		if rec.Made {
			r.names[sb.name] = rec.ID
		}
	}
	for _, id := range torn {
		if err := os.RemoveAll(filepath.Join(r.cfg.Root, "sandboxes", id)); err != nil {
			return err
		}
	}
	if err := r.loadContainers(); err != nil {
		return err
	}
	for _, sb := range r.sandboxes {
		if err := r.adoptSandbox(ctx, sb); err != nil {
			return err
		}
	}
	for id, c := range r.containers {
		if c.rec.State != runtimeapi.ContainerState_CONTAINER_CREATED {
			if err := r.unmount(id); err != nil {
				return err
			}
		}
	}
	if err := r.removeUnfinished(ctx); err != nil {
		return err
	}
	if err := r.removeStrangers(); err != nil {
		return err
	}
	var live []string
	for id, sb := range r.sandboxes {
		if !sb.rec.Stopped {
			live = append(live, id)
		}
	}
	return r.cfg.Network.Reconcile(ctx, live)
}

func (r *Runtime) loadContainers() error {
	records, torn, err := load(filepath.Join(r.cfg.Root, "containers"), "container.json", func(c *containerRecord) int { return c.Version })
	if err != nil {
		return err
	}
	for _, rec := range records {
		sb := r.sandboxes[rec.SandboxID]
		if sb == nil {
			torn = append(torn, rec.ID)
			if err := sys.CgroupKillAll(rec.Cgroup); err != nil {
				return err
			}
			if err := sys.CgroupRemove(rec.Cgroup); err != nil {
				return err
			}
			continue
		}
		c := &container{turn: newTurn(), name: containerName(sb.rec.ID, rec.Config), sb: sb, rec: rec, exited: make(chan struct{})}
		if rec.State == runtimeapi.ContainerState_CONTAINER_EXITED {
			close(c.exited)
		}
		r.enlist(c)
		r.names[c.name] = rec.ID
		if err := r.undoCheckpoint(sb, &rec); err != nil { // the next start tries again; no Pod must wait for that
			r.cfg.Log.Error("clear away a checkpoint that was cut off", "container", rec.ID, "error", err)
		}
	}
	for _, id := range torn {
		dir := filepath.Join(r.cfg.Root, "containers", id)
		if err := unmountIn(dir); err != nil {
			return err
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// adoptSandbox connects to a sandbox's shim and waits until it has told everything. Without a shim the sandbox is over.
func (r *Runtime) adoptSandbox(ctx context.Context, sb *sandbox) error {
	if !sb.rec.Made {
		return nil
	}
	if sb.rec.Stopped {
		for _, c := range r.containersOf(sb) {
			if c.rec.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
				r.endUnseen(c, reasonUnknown, "the sandbox was stopped")
			}
		}
		return nil
	}
	if sb.rec.Boot != r.boot {
		for _, c := range r.containersOf(sb) {
			if c.rec.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
				r.endUnseen(c, reasonUnknown, "the machine was restarted")
			}
		}
		r.pauseEnded(sb)
		return nil
	}
	synced, ended := make(chan int, 1), make(chan struct{})
	client, err := shim.Connect(r.cfg.shimSocket(sb.rec.ID), func(f wire.Frame) {
		if f.Op == wire.OpSynced {
			select {
			case synced <- f.Pid:
			default:
			}
			return
		}
		r.heard(sb, f)
	}, func() {
		close(ended)
		r.lost(sb)
	})
	if err != nil {
		r.mourn(sb, reasonShimDied, "the process that holds the Pod (carob-shim) had died; what was left of the Pod was killed")
		return nil
	}
	r.mu.Lock()
	sb.client = client
	r.mu.Unlock()
	patient, cancel := context.WithTimeout(ctx, shimPatience)
	defer cancel()
	reply, err := client.Ask(patient, wire.Frame{Op: wire.OpHello})
	var refusal *shim.Refusal
	switch {
	case errors.As(err, &refusal):
		r.disown(sb, client, reply.V)
		return nil
	case err != nil && patient.Err() == nil:
		return nil // lost sees to it
	}
	select {
	case pause := <-synced:
		if pause <= 0 {
			r.pauseEnded(sb)
		}
	case <-ended:
	case <-patient.Done():
		if err := ctx.Err(); err != nil {
			return err
		}
		r.cfg.Log.Warn("the shim of a Pod does not answer; the Pod is ended", "sandbox", sb.rec.ID)
		client.Close()
		r.mourn(sb, reasonShimDied, fmt.Sprintf("the process that holds the Pod (carob-shim) did not answer within %v; what ran in the Pod was killed", shimPatience))
	}
	return nil
}

// shimPatience is how long a shim that an earlier carob left is given to tell what happened. One that is stopped, or stuck, must not hold all
// other Pods up, and its own would be out of control.
const shimPatience = 10 * time.Second

// readFacts takes up what a dead shim had noted.
func (r *Runtime) readFacts(sb *sandbox) {
	files, _ := filepath.Glob(filepath.Join(r.cfg.shimDir(sb.rec.ID), "c-*"))
	for _, file := range files {
		raw, err := os.ReadFile(file)
		var f wire.Frame
		if err == nil && f.Parse(raw) == nil && f.Boot == r.boot && f.Exited != 0 {
			r.heard(sb, f)
		}
	}
}

// removeUnfinished takes apart sandboxes and containers whose making was cut off. A container that the shim does not know was not
// started, whatever the caller was about to do.
func (r *Runtime) removeUnfinished(ctx context.Context) error {
	for _, c := range r.containers {
		if c.rec.Made && c.sb.rec.Made {
			continue
		}
		if err := r.destroyContainer(ctx, c); err != nil {
			return err
		}
	}
	for _, sb := range r.sandboxes {
		if sb.rec.Made {
			continue
		}
		if client, err := shim.Connect(r.cfg.shimSocket(sb.rec.ID), func(wire.Frame) {}, func() {}); err == nil {
			sb.client = client
		}
		if err := r.destroySandbox(ctx, sb); err != nil {
			return err
		}
	}
	return nil
}

// removeStrangers ends shims and removes folders and shims' cgroups that no sandbox owns.
func (r *Runtime) removeStrangers() error {
	known, bundles := map[string]bool{}, map[string]bool{}
	for id, sb := range r.sandboxes {
		known[short(id)] = !sb.rec.Stopped
	}
	for id := range r.containers {
		bundles[id] = true
	}
	entries, err := os.ReadDir(filepath.Join(r.cfg.RunDir, "shims"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if known[e.Name()] || len(e.Name()) != 12 {
			continue
		}
		cgroup := "/" + r.cfg.CgroupRoot + "/shims/" + e.Name()
		if err := sys.CgroupKillAll(cgroup); err != nil {
			return err
		}
		if err := sys.CgroupRemove(cgroup); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(r.cfg.RunDir, "shims", e.Name())); err != nil {
			return err
		}
		if err := remove(filepath.Join(r.cfg.RunDir, "s", e.Name())); err != nil {
			return err
		}
	}
	reached, err := os.ReadDir(filepath.Join(r.cfg.RunDir, "reach"))
	if err != nil {
		return err
	}
	for _, e := range reached {
		if !bundles[e.Name()] {
			if err := r.unreach(e.Name()); err != nil {
				return err
			}
		}
	}
	for _, sub := range []string{"bundles", "oci"} {
		entries, err := os.ReadDir(filepath.Join(r.cfg.RunDir, sub))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") || bundles[e.Name()] || len(e.Name()) != 64 {
				continue
			}
			path := filepath.Join(r.cfg.RunDir, sub, e.Name())
			if err := unmountIn(path); err != nil {
				return err
			}
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}
