package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"carob.dev/carob/internal/agent/volume/mountpoint"
)

// Teardown unmounts and removes all volumes of the Pod, and the Pod's folder if nothing else is in it. It may be repeated, and
// knows nothing of the Pod but its folder, so it also takes away what an earlier process made. The Pod's containers must be gone.
func (v *Volumes) Teardown(ctx context.Context, uid types.UID) error {
	state := v.lock(uid)
	defer state.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	dir, err := v.podDir(uid)
	if err != nil {
		return fmt.Errorf("tear down volumes: %w", err)
	}
	if err := v.remove(ctx, uid, dir); err != nil {
		return fmt.Errorf("tear down volumes of Pod %s: %w", uid, err)
	}
	v.left(uid)
	return nil
}

func (v *Volumes) remove(ctx context.Context, uid types.UID, dir string) error {
	dir, err := realPath(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// What is bound from a volume goes before the volume: a driver may want nothing of it in use.
	if err := removeFolder(filepath.Join(dir, "volume-subpaths")); err != nil {
		return err
	}
	if v.cfg.CSI != nil {
		if err := v.cfg.CSI.Unpublish(ctx, uid); err != nil {
			return err
		}
	}
	volumes := filepath.Join(dir, "volumes")
	if err := v.removeMounted(ctx, volumes); err != nil {
		return err
	}
	if err := removeFolder(volumes); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return nil
}

// removeFolder unmounts what is mounted in dir and removes it.
func removeFolder(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil // to look through all that the machine has mounted takes a while
	}
	if err := mountpoint.UnmountBelow(dir); err != nil {
		return err
	}
	return removeTree(dir)
}

// removeMounted removes the volumes that are mounts of their own, and all that is mounted in them. Where a Pod has no others, nobody needs to
// look through what all Pods have mounted.
func (v *Volumes) removeMounted(ctx context.Context, volumes string) error {
	plugins, err := os.ReadDir(volumes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, p := range plugins {
		kind := filepath.Join(volumes, p.Name())
		entries, err := os.ReadDir(kind)
		if err != nil {
			return err
		}
		for _, e := range entries {
			vol := filepath.Join(kind, e.Name())
			for range 16 { // on top of one another, of which there is seldom more than one
				there, err := mountpoint.Is(vol)
				if err != nil {
					return err
				}
				if !there {
					break
				}
				if p.Name() == "kubernetes.io~"+nfsPlugin {
					err = v.unmountNFS(ctx, vol)
				} else {
					err = mountpoint.Unmount(vol)
				}
				if err != nil {
					return err
				}
			}
			unix.Rmdir(vol) // one that holds something is on the disk, and stays for now
		}
		unix.Rmdir(kind)
	}
	unix.Rmdir(volumes)
	return nil
}

// realPath resolves the links in the path of the folder that holds dir, as mountinfo shows it; dir itself must be no link.
func realPath(dir string) (string, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%s is not a folder", dir)
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		return "", err
	}
	return filepath.Join(parent, filepath.Base(dir)), nil
}

// Pods lists the UIDs of Pods that have a folder, to find those to tear down after a restart.
func (v *Volumes) Pods() ([]types.UID, error) {
	entries, err := os.ReadDir(v.cfg.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the Pods' folders: %w", err)
	}
	var uids []types.UID
	for _, e := range entries {
		if e.IsDir() {
			uids = append(uids, types.UID(e.Name()))
		}
	}
	slices.Sort(uids)
	return uids, nil
}
