package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"carob.dev/carob/internal/agent/localpath"
	"carob.dev/carob/internal/agent/volume/mountpoint"
)

// setupLocal binds a folder of the node, which a persistent volume names, to a place below the Pod.
func (v *Volumes) setupLocal(pod *corev1.Pod, p persistent) (Mounted, error) {
	src := p.pv.Spec.Local
	if err := checkPath(src.Path); err != nil {
		return Mounted{}, err
	}
	dir, err := v.volumeDir(pod.UID, localPlugin, p.pv.Name)
	if err != nil {
		return Mounted{}, err
	}
	if err := localpath.Make(localpath.Folder(filepath.Dir(v.cfg.Dir)), p.pv); err != nil {
		return Mounted{}, err
	}
	info, err := os.Stat(src.Path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return Mounted{}, fmt.Errorf("path %q does not exist", src.Path)
	case err != nil:
		return Mounted{}, err
	case !info.IsDir():
		return Mounted{}, fmt.Errorf("path %q is no folder: a file system on a device must be mounted on the node first", src.Path)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return Mounted{}, err
	}
	if there, err := mountpoint.Is(dir); err != nil || there {
		return Mounted{Path: dir}, err
	}
	if err := bindWith(src.Path, dir, p.pv.Spec.MountOptions); err != nil {
		unix.Rmdir(dir)
		return Mounted{}, err
	}
	group := fsGroup(pod)
	if group == nil || p.readOnly {
		return Mounted{Path: dir}, nil
	}
	shared, err := v.othersMount(localPlugin, p.pv.Name, dir)
	if err == nil && shared {
		// Those who have it keep what they have.
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil || int64(st.Gid) == *group {
			return Mounted{Path: dir}, err
		}
		v.event(pod, "AlreadyMountedVolume", fmt.Sprintf("The requested fsGroup is %d, but the volume %s has GID %d. The volume may not be shareable.", *group, p.pv.Name, st.Gid))
		return Mounted{Path: dir}, nil
	}
	if err == nil {
		err = setOwnership(dir, *group, changePolicy(pod), readWrite)
	}
	return Mounted{Path: dir}, err
}

const localPlugin = "local-volume"

// othersMount says whether another Pod has the volume mounted.
func (v *Volumes) othersMount(plugin, name, own string) (bool, error) {
	mounts, err := mountpoint.Below(v.cfg.Dir)
	return slices.ContainsFunc(mounts, func(m string) bool {
		return m != own && strings.HasSuffix(m, filepath.Join("/volumes", "kubernetes.io~"+plugin, name))
	}), err
}

// checkPath wants an absolute path without "..".
func checkPath(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("invalid path %q: must be absolute", path)
	}
	if slices.Contains(strings.Split(path, "/"), "..") {
		return fmt.Errorf("invalid path: %s must not contain '..'", path)
	}
	return nil
}

// blockDevice is a volume that is a device of the node.
func blockDevice(path string) (Mounted, error) {
	if err := checkPath(path); err != nil {
		return Mounted{}, err
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Mounted{}, fmt.Errorf("look at %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return Mounted{}, fmt.Errorf("%s is not a block device", path)
	}
	return Mounted{Device: path}, nil
}

// bindAttributes are the mount options that a bind mount can have.
var bindAttributes = map[string]uint64{
	"bind": 0, "rw": 0, "exec": 0, "suid": 0, "dev": 0, "defaults": 0, "relatime": 0,
	"ro": unix.MOUNT_ATTR_RDONLY, "noexec": unix.MOUNT_ATTR_NOEXEC, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV,
	"nodiratime": unix.MOUNT_ATTR_NODIRATIME,
}

// bindWith mounts source on dir with the options, in one step: it is there as it should be or not at all.
func bindWith(source, dir string, options []string) error {
	var set uint64
	for _, o := range options {
		a, ok := bindAttributes[o]
		if !ok {
			return fmt.Errorf("mount option %q: a folder of the node cannot be mounted with it", o)
		}
		set |= a
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("bind %s: %w", source, err)
	}
	defer unix.Close(tree)
	if set != 0 {
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: set}); err != nil {
			return fmt.Errorf("bind %s with %s: %w", source, strings.Join(options, ","), err)
		}
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("bind %s on %s: %w", source, dir, err)
	}
	return nil
}
