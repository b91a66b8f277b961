package csi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/apimachinery/pkg/types"

	"carob.dev/carob/internal/agent/volume/mountpoint"
	"carob.dev/carob/internal/failpoint"
)

// Unpublish has the drivers take away all volumes of a Pod, and unstage those that no other Pod has. It goes by the records, and may be repeated.
func (n *Node) Unpublish(ctx context.Context, uid types.UID) error {
	top := filepath.Join(n.cfg.Root, "pods", string(uid), "volumes", pluginDir)
	entries, err := os.ReadDir(top)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		dir := filepath.Join(top, e.Name())
		r, err := readRecord(filepath.Join(dir, recordName))
		if errors.Is(err, fs.ErrNotExist) {
			os.Remove(dir) // no driver has been asked, or the last life was about to do this
			continue
		}
		if err == nil {
			err = n.unpublish(ctx, uid, dir, r)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("volume %q: %w", e.Name(), err))
		}
	}
	return errors.Join(errs...)
}

func (n *Node) unpublish(ctx context.Context, uid types.UID, dir string, r record) error {
	d, err := n.driver(r.Driver)
	if err != nil {
		return err
	}
	n.mu.Lock()
	v := n.volume(r.key())
	n.mu.Unlock()
	v.turn.Lock()
	defer v.turn.Unlock()
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := d.node.NodeUnpublishVolume(call, &spec.NodeUnpublishVolumeRequest{VolumeId: r.Handle, TargetPath: filepath.Join(n.cfg.Shown, r.Path)}); err != nil {
		return unwrapStatus(err)
	}
	failpoint.Hit("volume/csi/unpublished")
	if err := clear(filepath.Join(n.cfg.Root, r.Path)); err != nil {
		return err
	}
	if err := forget(dir); err != nil {
		return err
	}
	n.mu.Lock()
	delete(v.pods, uid)
	delete(v.published, uid)
	last := len(v.pods) == 0
	n.mu.Unlock()
	if !last {
		return nil
	}
	return n.unstage(ctx, d, v, r.key())
}

// clear removes an empty mount point, or the file that stands for a device; a mount that the driver forgot goes first.
func clear(path string) error {
	there, err := mountpoint.Is(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && there {
		err = mountpoint.Unmount(path)
	}
	if err == nil {
		err = os.Remove(path)
	}
	return err
}

// forget removes a record with its folder, in which nothing else is.
func forget(dir string) error {
	if err := os.Remove(filepath.Join(dir, recordName)); err != nil {
		return err
	}
	return os.Remove(dir)
}

// unstage has the driver unstage a volume that no Pod has, if it was staged, and forgets it. v.turn is held.
func (n *Node) unstage(ctx context.Context, d *driver, v *volume, key volumeKey) error {
	dir := filepath.Join(n.cfg.Root, stageRecordDir(key))
	r, err := readRecord(filepath.Join(dir, recordName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		if _, err := d.node.NodeUnstageVolume(ctx, &spec.NodeUnstageVolumeRequest{VolumeId: key.handle, StagingTargetPath: filepath.Join(n.cfg.Shown, r.Path)}); err != nil {
			return unwrapStatus(err)
		}
		failpoint.Hit("volume/csi/unstaged")
		if err := clear(filepath.Join(n.cfg.Root, r.Path)); err != nil {
			return err
		}
		if err := forget(dir); err != nil {
			return err
		}
	}
	err = n.note(ctx, v, func() {
		v.staged, v.attached = false, false
		delete(n.volumes, key)
	})
	if err != nil { // the node's next status says it
		n.cfg.Log.Warn("a volume is not in use any more", "driver", key.driver, "volume", key.handle, "error", err)
	}
	return nil
}

// unstageOrphans takes away what an earlier life of the agent staged with the driver and no Pod has.
func (n *Node) unstageOrphans(ctx context.Context, d *driver) {
	n.mu.Lock()
	orphans := map[volumeKey]*volume{}
	for key, v := range n.volumes {
		if key.driver == d.name && len(v.pods) == 0 {
			orphans[key] = v
		}
	}
	n.mu.Unlock()
	for key, v := range orphans {
		v.turn.Lock()
		n.mu.Lock()
		idle := len(v.pods) == 0 && n.volumes[key] == v
		n.mu.Unlock()
		if idle {
			if err := n.unstage(ctx, d, v, key); err != nil {
				n.cfg.Log.Warn("unstage a volume that no Pod has", "driver", d.name, "volume", key.handle, "error", err)
			}
		}
		v.turn.Unlock()
	}
}
