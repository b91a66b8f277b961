package sys

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// EmptyMounts makes a mount namespace with nothing in it but an empty read-only root, which has one empty folder, place, to mount something at.
// The file keeps it. Who makes a mount namespace from there has nothing to copy, while a copy of the machine's takes the kernel the longer
// the more is mounted. scratch is any folder.
func EmptyMounts(scratch, place string) (ns *os.File, err error) {
	err = onNewThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
		// Opened at once: there is no /proc later.
		fd, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		ns = os.NewFile(uintptr(fd), "empty mount namespace")
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			return err
		}
		if err := unix.Mount("empty", scratch, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=4k,nr_inodes=4,mode=755"); err != nil {
			return err
		}
		if err := unix.Chdir(scratch); err != nil {
			return err
		}
		if err := unix.Mkdir(place, 0o755); err != nil {
			return err
		}
		if err := unix.PivotRoot(".", "."); err != nil {
			return err
		}
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return err
		}
		return unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	})
	if err != nil {
		if ns != nil {
			ns.Close()
		}
		return nil, fmt.Errorf("make an empty mount namespace: %w", err)
	}
	return ns, nil
}
