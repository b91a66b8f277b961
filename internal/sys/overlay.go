package sys

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// MountOverlay mounts an overlay of the read-only folders lower (topmost first) below upper at target. work is overlay's scratch folder on
// upper's file system; without an upper the mount is read-only, and two layers are needed. Each folder is passed on its own, so that any number of layers fit; kernels before 6.7 get them in one option.
// The file system is mounted volatile: what is written is not synced when it is unmounted, which suits files that end with a container.
func MountOverlay(target string, lower []string, upper, work string) error {
	if len(lower) == 0 {
		return fmt.Errorf("mount overlay at %s: no layers", target)
	}
	err := error(unix.EINVAL)
	if overlayTakesParts() {
		err = overlayByParts(target, lower, upper, work)
	}
	if err == unix.EINVAL {
		err = overlayInOne(target, lower, upper, work)
	}
	if err != nil {
		return fmt.Errorf("mount overlay at %s: %w", target, err)
	}
	return nil
}

// overlayTakesParts asks the kernel once: one that does not know the option complains in its log at each mount. Kernels before 6.5 take
// any option until they mount, so one that takes nonsense is one of them.
var overlayTakesParts = sync.OnceValue(func() bool {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.FsconfigSetString(fd, "no-such-option", "/") != nil && unix.FsconfigSetString(fd, "lowerdir+", "/") == nil
})

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
		if o[1] == "" {
			continue
		}
		if err := unix.FsconfigSetString(fd, o[0], o[1]); err != nil {
			return err
		}
	}
	if upper != "" {
		unix.FsconfigSetFlag(fd, "volatile")
	}
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

// overlayInOne passes all folders in the one page that mount(2) takes. Layers are named from their common folder, by a thread that stands
// there, so that as many fit as overlay itself takes.
func overlayInOne(target string, lower []string, upper, work string) error {
	base := filepath.Dir(lower[0])
	for _, l := range lower {
		for base != "/" && !strings.HasPrefix(l, base+"/") {
			base = filepath.Dir(base)
		}
	}
	opts, err := overlayOptions(base, lower, upper, work)
	if err != nil {
		return err
	}
	return onNewThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Chdir(base); err != nil {
			return &os.PathError{Op: "chdir", Path: base, Err: err}
		}
		err := error(unix.EINVAL)
		if upper != "" {
			err = unix.Mount("overlay", target, "overlay", 0, opts+",volatile")
		}
		if err == unix.EINVAL { // kernels before 5.10
			err = unix.Mount("overlay", target, "overlay", 0, opts)
		}
		return err
	})
}

func overlayOptions(base string, lower []string, upper, work string) (string, error) {
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`)
	parts := make([]string, len(lower))
	for i, l := range lower {
		rel, err := filepath.Rel(base, l)
		if err != nil {
			return "", err
		}
		parts[i] = escape.Replace(rel)
	}
	opts := "lowerdir=" + strings.Join(parts, ":")
	if upper != "" {
		opts += ",upperdir=" + escape.Replace(upper) + ",workdir=" + escape.Replace(work)
	}
	if len(opts)+len(",volatile") >= os.Getpagesize() {
		return "", fmt.Errorf("%d layers do not fit into one mount option, and this kernel takes no more", len(lower))
	}
	return opts, nil
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

// OpenInRoot opens a file below root as a process whose root folder it is would: absolute links and .. stay inside.
func OpenInRoot(root, path string, flags int) (*os.File, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(dir)
	how := &unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(dir, path, how)
	for err == unix.EAGAIN || err == unix.EINTR { // something on the machine was renamed or mounted while .. was followed
		fd, err = unix.Openat2(dir, path, how)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Join(root, path), Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}
