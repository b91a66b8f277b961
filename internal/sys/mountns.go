package sys

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Tmpfs is what a tmpfs is made with.
type Tmpfs struct {
	// Size is in bytes.
	Size int64
	// Mode is the root folder's, in the form of chmod(2); UID and GID own it.
	Mode     uint32
	UID, GID uint32
}

// MountTmpfsOver mounts a tmpfs over the root of the mount namespace of a process. The process itself goes on to see what it saw: who enters
// the namespace sees the tmpfs, and CopyRootMount brings it elsewhere. It ends with the namespace.
func MountTmpfsOver(pid int, o Tmpfs) error {
	fail := func(err error) error {
		return fmt.Errorf("mount a tmpfs in the mount namespace of process %d: %w", pid, err)
	}
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fs)
	for _, s := range [][2]string{{"source", "shm"}, {"size", strconv.FormatInt(o.Size, 10)}, {"mode", strconv.FormatUint(uint64(o.Mode), 8)},
		{"uid", strconv.FormatUint(uint64(o.UID), 10)}, {"gid", strconv.FormatUint(uint64(o.GID), 10)}} {
		if err := unix.FsconfigSetString(fs, s[0], s[1]); err != nil {
			return fail(fmt.Errorf("%s=%s: %w", s[0], s[1], err))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fail(err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(mount)
	err = inMounts(pid, func() error { return unix.MoveMount(mount, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH) })
	if err != nil {
		return fail(err)
	}
	return nil
}

// CopyRootMount mounts at target, which must exist, a copy of what is mounted at the root of the mount namespace of a process.
func CopyRootMount(pid int, target string) error {
	fail := func(err error) error { return fmt.Errorf("mount the root of process %d at %s: %w", pid, target, err) }
	var tree int
	err := inMounts(pid, func() (err error) {
		tree, err = unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		return err
	})
	if err != nil {
		return fail(err)
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fail(err)
	}
	return nil
}

// inMounts runs f on a thread that has entered the mount namespace of a process, and discards the thread.
func inMounts(pid int, f func() error) error {
	return onNewThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil { // or the kernel refuses
			return err
		}
		if err := enter(fmt.Sprintf("/proc/%d/ns/mnt", pid)); err != nil {
			return err
		}
		return f()
	})
}

// HideUnified hides the v2 tree of a hybrid machine from the calling thread and what it starts, in a mount namespace of its own. Only
// /sys/fs/cgroup is made private there: what is mounted elsewhere still comes and goes. It is for a thread that is about to end, as BornInCgroup's.
func HideUnified() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("hide the v2 cgroups: %w", err)
	}
	if err := unix.Mount("", cgroupMount, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("hide the v2 cgroups: %w", err)
	}
	if err := unix.Unmount(cgroupMount+"/unified", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("hide the v2 cgroups: %w", err)
	}
	return nil
}
