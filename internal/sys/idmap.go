package sys

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrNotIDMapped is returned for a file system that cannot show its owners through a user namespace.
var ErrNotIDMapped = errors.New("the kernel cannot map the owners of this file system's files")

// Submounts says what a copy of a mount has of the mounts below it.
type Submounts int

const (
	// NoSubmounts leaves them out.
	NoSubmounts Submounts = iota
	// CopySubmounts has those that are there now.
	CopySubmounts
	// FollowSubmounts has those that come later, too.
	FollowSubmounts
)

// MountCopy mounts a copy of source onto target. If users is a process and not 0, the copy's files belong to whom they belong to seen through
// that one's user namespace: what is root's on disk is the namespace's root's. Submounts that cannot be shown so stay as they are.
func MountCopy(source, target string, below Submounts, users int) error {
	fail := func(err error) error { return fmt.Errorf("mount a copy of %s: %w", source, err) }
	clone, all := uint(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC), uint(unix.AT_EMPTY_PATH)
	if below != NoSubmounts {
		clone |= unix.AT_RECURSIVE
		all |= unix.AT_RECURSIVE
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, clone)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(tree)
	attr := &unix.MountAttr{Propagation: unix.MS_PRIVATE} // or what is unmounted in the copy is unmounted in the original
	if below == FollowSubmounts {
		attr.Propagation = unix.MS_SLAVE
	}
	if err := unix.MountSetattr(tree, "", all, attr); err != nil {
		return fail(err)
	}
	if users != 0 {
		if err := mapOwners(tree, all, users); err != nil {
			return fmt.Errorf("map the owners of %s: %w", source, err)
		}
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fail(err)
	}
	return nil
}

func mapOwners(tree int, flags uint, pid int) error {
	users, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
	if err != nil {
		return err
	}
	defer users.Close()
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())}
	err = unix.MountSetattr(tree, "", flags, attr)
	if err == unix.EINVAL && flags&unix.AT_RECURSIVE != 0 {
		err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, attr)
	}
	if err == unix.EINVAL {
		return ErrNotIDMapped
	}
	return err
}

// CanIDMap says whether the kernel has user namespaces, and mounts that are seen through them: Linux 5.12 and later.
var CanIDMap = sync.OnceValue(func() bool {
	if _, err := os.Stat("/proc/self/ns/user"); err != nil {
		return false
	}
	if raw, err := os.ReadFile("/proc/sys/user/max_user_namespaces"); err == nil && string(raw) == "0\n" {
		return false
	}
	// A kernel without the call says so; another complains about the descriptor.
	return unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}) != unix.ENOSYS
})
