package unpack

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Inherit gives the folders that a layer only passes through (Layer.Passed) owner, mode, attributes and times as they are below: in the
// topmost of the folders of the layers under it (parents, topmost first) that has them.
func Inherit(dir string, passed, parents []string) error {
	if len(passed) == 0 || len(parents) == 0 {
		return nil
	}
	r, err := openRoot(dir)
	if err != nil {
		return err
	}
	defer r.close()
	var below []*root
	for _, p := range parents {
		b, err := openRoot(p)
		if err != nil {
			return err
		}
		defer b.close()
		below = append(below, b)
	}
	for _, name := range passed {
		if err := r.inherit(name, below); err != nil {
			return fmt.Errorf("folder %q: %w", name, err)
		}
	}
	return nil
}

func (r *root) inherit(name string, below []*root) error {
	to, err := r.open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
		return nil // replaced by something else later in the layer
	}
	if err != nil {
		return err
	}
	defer unix.Close(to)
	for _, b := range below {
		from, err := b.open(name, unix.O_PATH|unix.O_NOFOLLOW)
		if err == unix.ENOENT {
			continue
		}
		if err == unix.ENOTDIR || err == unix.ELOOP {
			return nil
		}
		if err != nil {
			return err
		}
		defer unix.Close(from)
		return copyAttributes(from, to)
	}
	return nil
}

func copyAttributes(from, to int) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil // hidden by another kind of file
	}
	source, target := procFd(from), procFd(to)
	if err := os.Chown(target, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	names := make([]byte, 64<<10)
	n, err := unix.Listxattr(source, names)
	if err != nil && err != unix.ENOTSUP {
		return err
	}
	for name := range strings.SplitSeq(string(names[:max(n, 0)]), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Getxattr(source, name, value)
		if err == nil {
			err = unix.Setxattr(target, name, value[:n], 0)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("xattr %s: %w", name, err)
		}
	}
	if err := unix.Chmod(target, st.Mode&0o7777); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, target, []unix.Timespec{st.Atim, st.Mtim}, 0)
}
