package logs

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// rotatedLayout is the time in the name of a part that was moved away.
	rotatedLayout = "20060102-150405.000"
	packedSuffix  = ".gz"
	// halfSuffix is that of a packed part in the making.
	halfSuffix = ".tmp"
)

// part is a file of a log, as its name tells.
type part struct {
	path string
	// at is the time in the name; "" for the file in use, which is the newest.
	at     string
	packed bool
	info   os.FileInfo
}

// parts lists a log's files, oldest first, and the files that a rotation which was cut off has left over. One that is renamed or packed
// meanwhile may be missing: a folder is not read in one step.
func parts(path string) (list []part, leftover []string, err error) {
	dir, base := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return nil, nil, err
	}
	packed := map[string]bool{}
	var current []part
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), base)
		if !ok {
			continue
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue // gone meanwhile, or not ours
		}
		p := part{path: filepath.Join(dir, e.Name()), info: info}
		if rest == "" {
			current = append(current, p)
			continue
		}
		p.at, ok = strings.CutPrefix(rest, ".")
		half := strings.HasSuffix(p.at, halfSuffix)
		p.at = strings.TrimSuffix(p.at, halfSuffix)
		p.at, p.packed = strings.CutSuffix(p.at, packedSuffix)
		if _, err := time.Parse(rotatedLayout, p.at); !ok || err != nil {
			continue
		}
		if half {
			leftover = append(leftover, p.path)
			continue
		}
		packed[p.at] = packed[p.at] || p.packed
		list = append(list, p)
	}
	list = slices.DeleteFunc(list, func(p part) bool {
		twice := !p.packed && packed[p.at]
		if twice {
			leftover = append(leftover, p.path)
		}
		return twice
	})
	slices.SortFunc(list, func(a, b part) int { return strings.Compare(a.at, b.at) })
	return append(list, current...), leftover, nil
}

// file is an open part.
type file struct {
	*os.File
	unpack *gzip.Reader // nil if it is not packed
	info   os.FileInfo
	// at is the newest time in a name that is known to be no newer than this part: its own, once it is known.
	at string
	// skip is how many lines of it are not wanted.
	skip int64
}

// openPart opens a part. It fails with os.ErrNotExist if the name is no longer that file's.
func openPart(p part) (*file, error) {
	f, err := os.Open(p.path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !os.SameFile(info, p.info) {
		err = os.ErrNotExist
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	opened := &file{File: f, info: info, at: p.at}
	if p.packed {
		opened.unpack = new(gzip.Reader) // what it says of a damaged file is the end of that file
	}
	return opened, opened.rewind()
}

// rewind begins at the beginning.
func (f *file) rewind() error {
	_, err := f.Seek(0, io.SeekStart)
	if f.unpack != nil && err == nil && f.unpack.Reset(f.File) != nil {
		_, err = f.Seek(0, io.SeekEnd)
	}
	return err
}

// Read reads the text of the part. What cannot be unpacked is left out: the newer parts are wanted all the same.
func (f *file) Read(b []byte) (int, error) {
	if f.unpack == nil {
		return f.File.Read(b)
	}
	n, err := f.unpack.Read(b)
	if err != nil {
		err = io.EOF
	}
	return n, err
}

// is says whether a part is this very file, or made of it by packing.
func (f *file) is(p part) bool {
	if !p.packed || f.unpack != nil {
		return os.SameFile(f.info, p.info)
	}
	packed, err := openPart(p)
	if err != nil {
		return false
	}
	defer packed.Close()
	// Entries begin with their time in nanoseconds, so no other part begins with the same.
	ours, theirs := make([]byte, 1<<10), make([]byte, 1<<10)
	n, err1 := f.ReadAt(ours, 0)
	m, err2 := io.ReadFull(packed, theirs)
	for _, err := range []error{err1, err2} {
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return false
		}
	}
	return bytes.Equal(ours[:n], theirs[:m])
}

// snapshot opens all parts that have entries from since on, so that none is there twice or left out, whatever is moved meanwhile.
func snapshot(path string, since time.Time) ([]*file, error) {
	for {
		list, _, err := parts(path)
		if err != nil {
			return nil, err
		}
		files, whole, err := openAll(list, since)
		if err != nil {
			return nil, err
		}
		if whole {
			again, _, err := parts(path)
			if err != nil {
				closeAll(files)
				return nil, err
			}
			whole = sameParts(list, again)
		}
		if whole && len(files) == 0 {
			return nil, os.ErrNotExist
		}
		if whole {
			return files, nil
		}
		closeAll(files)
	}
}

func sameParts(a, b []part) bool {
	return slices.EqualFunc(a, b, func(a, b part) bool { return a.path == b.path && os.SameFile(a.info, b.info) })
}

// mtimeLag is by how much the time of a file may lag behind that of its last entry.
const mtimeLag = time.Second

func openAll(list []part, since time.Time) (files []*file, whole bool, err error) {
	before := ""
	for i, p := range list {
		if i < len(list)-1 && !since.IsZero() && p.info.ModTime().Add(mtimeLag).Before(since) {
			before = p.at
			continue
		}
		f, err := openPart(p)
		if errors.Is(err, os.ErrNotExist) {
			return files, false, nil
		}
		if err != nil {
			closeAll(files)
			return nil, false, err
		}
		if p.at == "" {
			f.at = before
		}
		before = f.at
		files = append(files, f)
	}
	return files, true, nil
}

func closeAll(files []*file) {
	for _, f := range files {
		f.Close()
	}
}
