package runtime

import (
	"errors"
	"os"
	"path/filepath"

	"carob.dev/carob/internal/sys"
)

// shmCopy is where the Pod's /dev/shm is mounted for a container to be made of it.
func (c *Config) shmCopy(containerID string) string {
	return filepath.Join(c.bundleDir(containerID), "shm")
}

// unmount takes off the machine what was mounted for a container to be made of it: its root, images, /dev/shm. It has copies once it has
// started, and the kernel copies each mount of the machine whenever a container starts. The folders stay: runc goes to the root's for each
// command that it starts. Nothing mounted is no error.
func (r *Runtime) unmount(id string) error {
	return errors.Join(unmountIn(r.cfg.reachDir(id)), unmountIn(r.cfg.containerDir(id)), unmountIn(r.cfg.bundleDir(id)))
}

// started is unmount beside the caller, for a container that has started or never will.
func (r *Runtime) started(id string) {
	r.beside.Go(func() {
		if err := r.unmount(id); err != nil {
			r.cfg.Log.Error("unmount what a container has copies of", "container", id, "error", err)
		}
	})
}

// unmountIn unmounts whatever is mounted on the entries of a folder.
func unmountIn(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := sys.Unmount(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
