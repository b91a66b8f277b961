package checkpoint

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// writeDifference writes what an overlay keeps in upper as a tar of what was added or changed, and returns what was removed, as absolute
// paths in the container. The container may go on writing meanwhile: what vanishes is left out, and a file that shrinks is filled up with
// zeros, as tar does.
func writeDifference(w io.Writer, upper string, layers []string) (deleted []string, err error) {
	root, err := os.OpenRoot(upper) // the container must not lead out of it
	if err != nil {
		return nil, err
	}
	defer root.Close()
	d := difference{root: root, tar: tar.NewWriter(w), links: map[uint64]string{}, layers: layers, deleted: []string{}}
	err = fs.WalkDir(root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if err == nil && name != "." {
			err = d.entry(name)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(d.deleted)
	return d.deleted, d.tar.Close()
}

type difference struct {
	root    *os.Root
	tar     *tar.Writer
	links   map[uint64]string // the first name of each file that has several
	layers  []string
	deleted []string
}

func (d *difference) entry(name string) error {
	info, err := d.root.Lstat(name)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	if isWhiteout(info) {
		d.deleted = append(d.deleted, "/"+name)
		return nil
	}
	h := &tar.Header{Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), ModTime: info.ModTime(), Format: tar.FormatPAX}
	switch info.Mode().Type() {
	case fs.ModeDir:
		return d.folder(h)
	case 0:
		return d.file(h)
	case fs.ModeSymlink:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = d.root.Readlink(name); err != nil {
			return err
		}
	case fs.ModeNamedPipe:
		h.Typeflag = tar.TypeFifo
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		h.Typeflag = tar.TypeBlock
		if info.Mode()&fs.ModeCharDevice != 0 {
			h.Typeflag = tar.TypeChar
		}
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
	default:
		return nil // a socket: a tar has none
	}
	return d.tar.WriteHeader(h)
}

// open opens what is expected to be of some kind: it may have been replaced just now.
func (d *difference) open(name string) (*os.File, fs.FileInfo, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func (d *difference) folder(h *tar.Header) error {
	f, info, err := d.open(h.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	if !info.IsDir() {
		return fs.ErrNotExist
	}
	overlay, err := attributes(f, h)
	if err != nil {
		return fmt.Errorf("/%s: %w", h.Name, err)
	}
	if _, ok := overlay["redirect"]; ok {
		return fmt.Errorf("/%s: a folder that was renamed without copying what is in it (overlay's redirect_dir) cannot be told in this format", h.Name)
	}
	if overlay["opaque"] == "y" {
		if err := d.hidden(h.Name, f); err != nil {
			return err
		}
	}
	h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
	return d.tar.WriteHeader(h)
}

// hidden notes what a folder that was removed and made anew does not have any more.
func (d *difference) hidden(name string, dir *os.File) error {
	below, err := namesIn(d.layers, name)
	if err != nil {
		return err
	}
	now, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range below {
		if !slices.Contains(now, n) {
			d.deleted = append(d.deleted, "/"+path.Join(name, n))
		}
	}
	return nil
}

func (d *difference) file(h *tar.Header) error {
	f, info, err := d.open(h.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	if !info.Mode().IsRegular() {
		return fs.ErrNotExist
	}
	if st := info.Sys().(*syscall.Stat_t); st.Nlink > 1 {
		if first, ok := d.links[st.Ino]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return d.tar.WriteHeader(h)
		}
		d.links[st.Ino] = h.Name
	}
	if _, err := attributes(f, h); err != nil {
		return fmt.Errorf("/%s: %w", h.Name, err)
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := d.tar.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(d.tar, io.LimitReader(f, h.Size))
	if err == nil && n < h.Size {
		_, err = io.CopyN(d.tar, zeros{}, h.Size-n)
	}
	return err
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// attributes adds a file's extended attributes to its header and returns those that are overlay's own.
func attributes(f *os.File, h *tar.Header) (overlay map[string]string, err error) {
	const own, pax = "trusted.overlay.", "SCHILY.xattr."
	names := make([]byte, 64<<10) // the kernel's own limit of the list, and of a value
	n, err := unix.Flistxattr(int(f.Fd()), names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	overlay = map[string]string{}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		n, err := unix.Fgetxattr(int(f.Fd()), name, value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("attribute %s: %w", name, err)
		}
		if rest, ok := strings.CutPrefix(name, own); ok {
			overlay[rest] = string(value[:n])
			continue
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[pax+name] = string(value[:n])
	}
	return overlay, nil
}

// namesIn are the entries of the folder dir in an overlay of layers, topmost first.
func namesIn(layers []string, dir string) (names []string, err error) {
	seen := map[string]bool{}
	for _, layer := range layers {
		last, there := false, true
		at := layer
		for part := range strings.SplitSeq(dir, "/") {
			at = filepath.Join(at, part)
			info, err := os.Lstat(at)
			if errors.Is(err, fs.ErrNotExist) {
				there = false
				break
			}
			if err != nil {
				return nil, err
			}
			if !info.IsDir() { // a whiteout, or a file in its place
				return names, nil
			}
			mark := make([]byte, 1)
			if n, _ := unix.Lgetxattr(at, "trusted.overlay.opaque", mark); n == 1 && mark[0] == 'y' {
				last = true
			}
		}
		if there {
			entries, err := os.ReadDir(at)
			if err != nil {
				return nil, err
			}
			for _, e := range entries {
				info, err := e.Info()
				if err != nil {
					return nil, err
				}
				if !seen[e.Name()] && !isWhiteout(info) {
					names = append(names, e.Name())
				}
				seen[e.Name()] = true
			}
		}
		if last {
			break
		}
	}
	return names, nil
}

func isWhiteout(info fs.FileInfo) bool {
	return info.Mode()&fs.ModeCharDevice != 0 && info.Sys().(*syscall.Stat_t).Rdev == 0
}
