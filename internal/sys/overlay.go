package sys

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// MountOverlay mounts an overlay of the read-only folders lower (topmost first) below upper at target. work is overlay's scratch folder on
// upper's file system. Each folder is passed on its own, so that any number of layers fit; kernels before 6.5 get them in one option.
// The file system is mounted volatile: what is written is not synced when it is unmounted, which suits files that end with a container.
func MountOverlay(target string, lower []string, upper, work string) error {
	if len(lower) == 0 {
		return fmt.Errorf("mount overlay at %s: no layers", target)
	}
	err := overlayByParts(target, lower, upper, work)
	if err == unix.EINVAL || err == unix.ENOSYS {
		err = overlayInOne(target, lower, upper, work)
	}
	if err != nil {
		return fmt.Errorf("mount overlay at %s: %w", target, err)
	}
	return nil
}

func overlayByParts(target string, lower []string, upper, work string) error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, dir := range lower {
		if err := unix.FsconfigSetString(fd, "lowerdir+", dir); err != nil {
			return err
		}
	}
	for _, o := range [][2]string{{"upperdir", upper}, {"workdir", work}, {"source", "overlay"}} {
		if err := unix.FsconfigSetString(fd, o[0], o[1]); err != nil {
			return err
		}
	}
	unix.FsconfigSetFlag(fd, "volatile")
	if err := unix.FsconfigCreate(fd); err != nil {
		return err
	}
	mnt, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(mnt)
	return unix.MoveMount(mnt, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

func overlayInOne(target string, lower []string, upper, work string) error {
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`)
	parts := make([]string, len(lower))
	for i, l := range lower {
		parts[i] = escape.Replace(l)
	}
	opts := "lowerdir=" + strings.Join(parts, ":") + ",upperdir=" + escape.Replace(upper) + ",workdir=" + escape.Replace(work)
	if len(opts) >= os.Getpagesize() {
		return fmt.Errorf("%d layers do not fit into one mount option, and this kernel takes no more", len(lower))
	}
	return unix.Mount("overlay", target, "overlay", 0, opts)
}

// Unmount detaches whatever is mounted at the path, as often as something is. Nothing mounted is no error.
func Unmount(path string) error {
	for {
		switch err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err {
		case nil:
		case unix.EINVAL, unix.ENOENT:
			return nil
		default:
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}

// MountTmpfs mounts a tmpfs of at most size bytes with the given mode at target, which must exist.
func MountTmpfs(target string, size int64, mode os.FileMode) error {
	opts := fmt.Sprintf("mode=%o,size=%d", mode, size)
	if err := unix.Mount("shm", target, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, opts); err != nil {
		return fmt.Errorf("mount tmpfs at %s: %w", target, err)
	}
	return nil
}

// OpenInRoot opens a file below root as a process whose root folder it is would: absolute links and .. stay inside.
func OpenInRoot(root, path string, flags int) (*os.File, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Join(root, path), Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}
