package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/sys"
)

const (
	bufferBytes = 128 << 10
	blockBytes  = 4096
)

// The marks of deleted files in layers; see the image specification, "whiteouts".
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// writer writes the entries of one layer.
type writer struct {
	root  *root
	buf   []byte
	layer Layer
	bytes int64 // of all files, holes counted
	dirs  []dirTimes
}

// dirTimes are the times of a folder, set when all is written.
type dirTimes struct {
	path  string
	times [2]unix.Timespec
}

// entry writes one entry of the archive.
func (w *writer) entry(ctx context.Context, h *tar.Header, data io.Reader) error {
	name := clean(h.Name)
	if name == "" || h.Typeflag == tar.TypeXGlobalHeader {
		return nil // the layer's own folder is the runtime's
	}
	above, base := split(name)
	if strings.Contains("/"+name, "/"+whiteoutPrefix) {
		return w.whiteout(above, base)
	}
	if err := check(h); err != nil {
		return err
	}
	dir, err := w.root.folder(above)
	if err != nil {
		return err
	}
	changed, err := w.clear(dir, base, h.Typeflag == tar.TypeDir)
	if err != nil {
		return err
	}
	if changed {
		w.root.forget()
		if dir, err = w.root.folder(above); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse:
		return w.file(ctx, dir, base, h, data)
	case tar.TypeLink: // shares owner, mode and attributes with what it is linked to
		return w.link(dir, base, clean(h.Linkname))
	case tar.TypeDir:
		if err := unix.Mkdirat(dir, base, 0o700); err == unix.EEXIST {
			w.root.described(dir, base)
		} else if err != nil {
			return err
		}
		w.layer.Bytes += blockBytes
	case tar.TypeSymlink:
		err = unix.Symlinkat(h.Linkname, dir, base)
	case tar.TypeChar:
		err = unix.Mknodat(dir, base, unix.S_IFCHR, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	case tar.TypeBlock:
		err = unix.Mknodat(dir, base, unix.S_IFBLK, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	case tar.TypeFifo:
		err = unix.Mknodat(dir, base, unix.S_IFIFO, 0)
	default:
		return fmt.Errorf("%w: entry of type %q", ErrCorrupt, h.Typeflag)
	}
	if err != nil {
		return err
	}
	w.layer.Inodes++
	return w.describe(dir, base, name, h)
}

// check refuses what the system could not take, or would take for something else.
func check(h *tar.Header) error {
	switch {
	case h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= math.MaxUint32 || int64(h.Gid) >= math.MaxUint32:
		return fmt.Errorf("%w: owner %d:%d", ErrCorrupt, h.Uid, h.Gid)
	case h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20: // the kernel's own bounds
		return fmt.Errorf("%w: device %d:%d", ErrCorrupt, h.Devmajor, h.Devminor)
	case h.Size < 0:
		return fmt.Errorf("%w: size %d", ErrCorrupt, h.Size)
	}
	return nil
}

// clear makes room for an entry: a later one replaces an earlier one, but folders merge. It reports whether anything was replaced, so that
// paths have to be looked up again.
func (w *writer) clear(dir int, base string, folder bool) (changed bool, err error) {
	var st unix.Stat_t
	switch err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case err == unix.ENOENT:
		return false, nil
	case err != nil:
		return false, err
	case folder && st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return false, nil
	}
	if err := w.root.remove(dir, base); err != nil {
		return false, err
	}
	if !folder || !isWhiteout(&st) {
		return true, nil
	}
	// What was deleted and then made anew does not show what is below.
	if err := unix.Mkdirat(dir, base, 0o700); err != nil {
		return true, err
	}
	fd, err := unix.Openat(dir, base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return true, err
	}
	defer unix.Close(fd)
	return true, setOpaque(fd)
}

// whiteout turns a mark into overlay's form. A mark hides what is below, never what its own layer brings, in whichever order they come.
func (w *writer) whiteout(above, base string) error {
	if strings.Contains("/"+above+"/"+base, "/"+whiteoutPrefix+whiteoutPrefix) && base != whiteoutOpaque {
		return nil // aufs' own bookkeeping
	}
	target, marked := strings.CutPrefix(base, whiteoutPrefix)
	if !marked || strings.Contains("/"+above, "/"+whiteoutPrefix) {
		return fmt.Errorf("%w: below a whiteout", ErrCorrupt)
	}
	if base != whiteoutOpaque && (target == "" || target == "." || target == "..") {
		return fmt.Errorf("%w: whiteout of nothing", ErrCorrupt)
	}
	if base == whiteoutOpaque && above == "" {
		w.layer.Opaque = true // overlay does not look at the top folder's mark
		return nil
	}
	dir, err := w.root.folder(above)
	if err != nil {
		return err
	}
	if base == whiteoutOpaque {
		return setOpaque(dir)
	}
	if err := unix.Mknodat(dir, target, unix.S_IFCHR, 0); err != unix.EEXIST {
		if err == nil {
			w.layer.Inodes++
		}
		return err
	}
	fd, err := unix.Openat(dir, target, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return nil // a file hides what is below by itself
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return setOpaque(fd)
}

// file writes a regular file. Blocks of zeros become holes.
func (w *writer) file(ctx context.Context, dir int, base string, h *tar.Header, data io.Reader) error {
	if w.bytes += h.Size; h.Size > maxBytes || w.bytes > maxBytes {
		return fmt.Errorf("%w: the layer's files are bigger than %d bytes in all", ErrCorrupt, int64(maxBytes))
	}
	fd, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := w.content(ctx, fd, h.Size, data); err != nil {
		return err
	}
	w.layer.Inodes++
	if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
		return err
	}
	for k, v := range xattrs(h) {
		if err := unix.Fsetxattr(fd, k, []byte(v), 0); err != nil && err != unix.ENOTSUP {
			return fmt.Errorf("setxattr %s: %w", k, err)
		}
	}
	if err := unix.Fchmod(fd, uint32(h.Mode&0o7777)); err != nil { // after chown, which drops some bits
		return err
	}
	return setTimes(fd, times(h))
}

// zeros is what a hole looks like.
var zeros [bufferBytes]byte

func (w *writer) content(ctx context.Context, fd int, size int64, data io.Reader) error {
	var at int64
	hole := false
	for at < size {
		want := w.buf[:min(int64(len(w.buf)), size-at)]
		n, err := io.ReadFull(data, want)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if hole = n >= blockBytes && bytes.Equal(want, zeros[:n]); !hole {
			if err := pwrite(fd, want, at); err != nil {
				return err
			}
			w.layer.Bytes += int64(n+blockBytes-1) &^ (blockBytes - 1)
		}
		at += int64(n)
		sys.WriteBack(fd, at, int64(n))
	}
	if hole {
		return unix.Ftruncate(fd, size)
	}
	return nil
}

func pwrite(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

func (w *writer) link(dir int, base, to string) error {
	above, name := split(to)
	from := w.root.fd
	if above != "" {
		var err error
		if from, err = w.root.open(above, unix.O_PATH|unix.O_DIRECTORY); err != nil {
			return fmt.Errorf("link to %q: %w", to, err)
		}
		defer unix.Close(from)
	}
	if err := unix.Linkat(from, name, dir, base, 0); err != nil {
		if err == unix.EPERM {
			err = unix.EISDIR // a folder: the archive's fault
		}
		return fmt.Errorf("link to %q: %w", to, err)
	}
	return nil
}

// describe gives what is not a regular file its owner, attributes, mode and times.
func (w *writer) describe(dir int, base, name string, h *tar.Header) error {
	if err := unix.Fchownat(dir, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	for k, v := range xattrs(h) {
		err := unix.Lsetxattr(procFd(dir)+"/"+base, k, []byte(v), 0)
		if err == unix.ENOTSUP || err == unix.EPERM && strings.HasPrefix(k, "user.") && h.Typeflag != tar.TypeDir {
			continue // only files and folders can have such
		}
		if err != nil {
			return fmt.Errorf("setxattr %s: %w", k, err)
		}
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Fchmodat(dir, base, uint32(h.Mode&0o7777), 0); err != nil {
			return err
		}
	}
	t := times(h)
	if h.Typeflag == tar.TypeDir {
		w.dirs = append(w.dirs, dirTimes{path: name, times: t})
		return nil
	}
	return unix.UtimesNanoAt(dir, base, t[:], unix.AT_SYMLINK_NOFOLLOW)
}

func (w *writer) setTimes() error {
	for _, d := range w.dirs {
		above, base := split(d.path)
		dir, err := w.root.folder(above)
		if err != nil {
			return err
		}
		if err := unix.UtimesNanoAt(dir, base, d.times[:], unix.AT_SYMLINK_NOFOLLOW); err != nil && err != unix.ENOENT {
			return &os.PathError{Op: "utimensat", Path: d.path, Err: err}
		}
	}
	return nil
}

// setTimes is futimens(3), which x/sys lacks.
func setTimes(fd int, t [2]unix.Timespec) error {
	if _, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&t)), 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

// xattrs are the extended attributes that an image may set. trusted ones are the system's, and overlay's own can redirect a lookup.
func xattrs(h *tar.Header) map[string]string {
	var out map[string]string
	for k, v := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, "SCHILY.xattr.")
		if !ok || strings.HasPrefix(name, "trusted.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = v
	}
	return out
}

// times are the times of last access and change.
func times(h *tar.Header) [2]unix.Timespec {
	access := h.AccessTime
	if access.Before(h.ModTime) {
		access = h.ModTime
	}
	return [2]unix.Timespec{timespec(access), timespec(h.ModTime)}
}

func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}
