package volume

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// What a Pod's group may do with a volume's files, at least.
const (
	readOnly  = 0o440
	readWrite = 0o660
	// onFolders is added for folders: new files belong to the group too.
	onFolders = unix.S_ISGID | 0o110
)

// setGroup gives dir and all in it to group, which may read it. A nil group changes nothing.
func setGroup(dir string, group *int64) error {
	if group == nil {
		return nil
	}
	return setOwnership(dir, *group, corev1.FSGroupChangeAlways, readOnly)
}

// changePolicy says when a volume's files are given to the Pod's group.
func changePolicy(pod *corev1.Pod) corev1.PodFSGroupChangePolicy {
	if sc := pod.Spec.SecurityContext; sc != nil && sc.FSGroupChangePolicy != nil {
		return *sc.FSGroupChangePolicy
	}
	return corev1.FSGroupChangeAlways
}

// setOwnership gives dir and all in it to group with at least the rights in mask; with the policy OnRootMismatch nothing is done if dir itself
// is so already. What is in a folder comes before the folder, so that one whose change was broken off does not look finished. Each file is held
// by a descriptor while it is changed: containers that work in the volume meanwhile cannot lead the change elsewhere by a link.
func setOwnership(dir string, group int64, policy corev1.PodFSGroupChangePolicy, mask uint32) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(fd)
	if policy == corev1.FSGroupChangeOnRootMismatch {
		var st unix.Stat_t
		want := mask | onFolders
		if err := unix.Fstat(fd, &st); err == nil && int64(st.Gid) == group && st.Mode&want == want {
			return nil
		}
	}
	if err := own(fd, group, mask); err != nil {
		return fmt.Errorf("give %s to group %d: %w", dir, group, err)
	}
	return nil
}

// own changes one file, and before it all that is in it.
func own(fd int, group int64, mask uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFDIR {
		if err := ownContent(fd, group, mask); err != nil {
			return err
		}
		mask |= onFolders
	}
	if int64(st.Gid) != group {
		if err := unix.Fchownat(fd, "", -1, int(group), unix.AT_EMPTY_PATH); err != nil && !ownerless(err) {
			return err
		}
	}
	if kind == unix.S_IFLNK {
		return nil // a link has no rights of its own
	}
	// A change of the group may have taken special bits away.
	if err := unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), st.Mode&0o7777|mask); err != nil && !ownerless(err) {
		return err
	}
	return nil
}

// ownerless says that a file system does not let the node change whose its files are: that is no reason to keep the volume from the Pod.
func ownerless(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.EOPNOTSUPP)
}

func ownContent(fd int, group int64, mask uint32) error {
	list, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(list), "")
	names, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		return err
	}
	for _, name := range names {
		in, err := unix.Openat(fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		err = own(in, group, mask)
		unix.Close(in)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
