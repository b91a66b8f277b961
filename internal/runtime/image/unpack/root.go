package unpack

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many links a path may lead through, as in the kernel.
const maxLinks = 40

// root is a folder that paths are resolved in as by a process whose root folder it is: .. and links stay inside.
type root struct {
	fd   int
	path string // without links, for comparing

	// The folder that was opened last; archives come sorted by folder.
	near   string
	nearFd int

	// passed are the folders that were made without an entry of their own, by their paths without links.
	passed []string
}

func openRoot(dir string) (*root, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	real, err := os.Readlink(procFd(fd))
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &root{fd: fd, path: real, nearFd: -1}, nil
}

func procFd(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

func (r *root) close() {
	r.forget()
	unix.Close(r.fd)
}

// forget drops the open folder: something was removed, and paths may mean something else.
func (r *root) forget() {
	if r.nearFd >= 0 {
		unix.Close(r.nearFd)
	}
	r.near, r.nearFd = "", -1
}

// open opens a path below the root, which must exist.
func (r *root) open(name string, flags int) (int, error) {
	if name == "" {
		name = "."
	}
	for {
		fd, err := unix.Openat2(r.fd, name, &unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
		if err != unix.EAGAIN && err != unix.EINTR { // EAGAIN: something on the machine was renamed just then
			return fd, err
		}
	}
}

// folder returns a folder that stays open until the next call, and makes it if need be, with all above it.
func (r *root) folder(dir string) (int, error) {
	if dir == "" {
		return r.fd, nil
	}
	if dir == r.near {
		return r.nearFd, nil
	}
	fd, err := r.make(dir, 0)
	if err != nil {
		return -1, err
	}
	r.forget()
	r.near, r.nearFd = dir, fd
	return fd, nil
}

// make opens a folder that the caller closes. A link to nowhere makes the folder that it names: that may be one of a layer below.
func (r *root) make(dir string, links int) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY
	fd, err := r.open(dir, flags)
	if err != unix.ENOENT && err != unix.ENOTDIR {
		return fd, err
	}
	if links > maxLinks {
		return -1, unix.ELOOP
	}
	above, base := split(dir)
	up, uerr := r.make(above, links)
	if uerr != nil {
		return -1, uerr
	}
	defer unix.Close(up)
	opaque := false
	var st unix.Stat_t
	switch serr := unix.Fstatat(up, base, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case serr == unix.ENOENT:
	case serr != nil:
		return -1, serr
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		to, err := r.target(up, base)
		if err != nil {
			return -1, err
		}
		return r.make(to, links+1)
	case isWhiteout(&st): // deleted, and then made anew
		if err := unix.Unlinkat(up, base, 0); err != nil {
			return -1, err
		}
		opaque = true
	default:
		return -1, unix.ENOTDIR
	}
	if err := unix.Mkdirat(up, base, 0o755); err != nil {
		return -1, err
	}
	if err := unix.Fchmodat(up, base, 0o755, 0); err != nil {
		return -1, err
	}
	if fd, err = unix.Openat(up, base, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
		return -1, err
	}
	if opaque {
		if err := setOpaque(fd); err != nil {
			unix.Close(fd)
			return -1, err
		}
	} else if real, err := r.within(fd); err == nil {
		r.passed = append(r.passed, real)
	}
	return fd, nil
}

// described says that a folder has an entry after all.
func (r *root) described(dir int, base string) {
	if len(r.passed) == 0 {
		return
	}
	if here, err := r.within(dir); err == nil {
		name := path.Join(here, base)
		r.passed = slices.DeleteFunc(r.passed, func(p string) bool { return p == name })
	}
}

// target is where a link leads, as a path below the root.
func (r *root) target(dir int, base string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, base, buf)
	if err != nil {
		return "", err
	}
	to := string(buf[:n])
	if !strings.HasPrefix(to, "/") {
		here, err := r.within(dir)
		if err != nil {
			return "", err
		}
		to = here + "/" + to
	}
	return clean(to), nil
}

// within is an open folder's path below the root, without links.
func (r *root) within(fd int) (string, error) {
	real, err := os.Readlink(procFd(fd))
	if err != nil {
		return "", err
	}
	rest, ok := strings.CutPrefix(real, r.path)
	if !ok {
		return "", errors.New("the folder has moved")
	}
	return strings.TrimPrefix(rest, "/"), nil
}

// remove takes away what has a name, folders with all that is in them.
func (r *root) remove(dir int, base string) error {
	err := unix.Unlinkat(dir, base, 0)
	if err == unix.EISDIR {
		// The open folder may be the one that goes, or the one it is in: it is held here, and opened anew afterwards.
		err = os.RemoveAll(procFd(dir) + "/" + base)
	}
	if err == unix.ENOENT {
		return nil
	}
	return err
}

// clean makes a name of an archive a path below the root: no slash in front, and no .. left.
func clean(name string) string { return path.Clean("/" + name)[1:] }

// split takes a clean path apart.
func split(name string) (dir, base string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}

func setOpaque(fd int) error {
	if err := unix.Setxattr(procFd(fd), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return fmt.Errorf("setxattr trusted.overlay.opaque: %w", err)
	}
	return nil
}

func isWhiteout(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }
