package embedded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// The layout of a bbolt file, version 2, as far as walking it needs. bbolt itself trusts the file: a damaged page makes it panic, sometimes
// in a goroutine of its own, so the file is walked once, with plain reads, before bbolt maps it.
const (
	pageHeader  = 16
	elementSize = 16
	metaMagic   = 0xED0CDAED
	metaLen     = 64 // without header; the last 8 bytes are the checksum
	flagBranch  = 0x01
	flagLeaf    = 0x02
	flagBucket  = 0x01 // of a leaf element
	maxDepth    = 64
)

// Verify reads the file at path from end to end, changing nothing: the tree of pages is whole, keys are in order, and each record matches
// its checksum. A file that is not there is an error that wraps os.ErrNotExist; an empty one is in order. No process may have it open for writing.
func Verify(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return nil
	}
	w := &walker{f: f, size: info.Size(), seen: map[uint64]bool{}}
	root, err := w.meta()
	if err != nil {
		return err
	}
	return w.page(root, 0, func(elem leafElement) error {
		if elem.flags&flagBucket == 0 {
			return fmt.Errorf("%q is not a bucket", elem.key)
		}
		return w.bucket(elem, bytes.Equal(elem.key, bucketKV))
	})
}

type walker struct {
	f        io.ReaderAt
	size     int64
	pageSize int64
	high     uint64 // pages from here on do not exist
	seen     map[uint64]bool
}

type leafElement struct {
	flags      uint32
	key, value []byte
}

// meta finds the newer of the two meta pages that is whole.
func (w *walker) meta() (root uint64, err error) {
	best := uint64(0)
	found := false
	try := func(at int64) {
		buf := make([]byte, pageHeader+metaLen)
		if _, err := w.f.ReadAt(buf, at); err != nil {
			return
		}
		m := buf[pageHeader:]
		sum := fnv.New64a()
		sum.Write(m[:56])
		le := binary.NativeEndian
		if le.Uint32(m) != metaMagic || le.Uint32(m[4:]) != 2 || le.Uint64(m[56:]) != sum.Sum64() {
			return
		}
		if txid := le.Uint64(m[48:]); !found || txid > best {
			found, best = true, txid
			w.pageSize, root, w.high = int64(le.Uint32(m[8:])), le.Uint64(m[16:]), le.Uint64(m[40:])
		}
	}
	try(0)
	if w.pageSize != 0 {
		try(w.pageSize)
	} else {
		for size := int64(1024); size <= 1<<24; size *= 2 {
			try(size)
		}
	}
	if !found || w.pageSize < 512 {
		return 0, errors.New("it has no valid first page; it is not a store or was overwritten")
	}
	return root, nil
}

func (w *walker) page(id uint64, depth int, leaf func(leafElement) error) error {
	if depth > maxDepth {
		return fmt.Errorf("page %d: the tree is deeper than any real one", id)
	}
	if id < 2 || id >= w.high {
		return fmt.Errorf("page %d is outside of the file", id)
	}
	if w.seen[id] {
		return fmt.Errorf("page %d has two parents", id)
	}
	w.seen[id] = true
	head := make([]byte, pageHeader)
	if _, err := w.f.ReadAt(head, int64(id)*w.pageSize); err != nil {
		return fmt.Errorf("page %d: the file is cut short (%w)", id, err)
	}
	length := (int64(binary.NativeEndian.Uint32(head[12:])) + 1) * w.pageSize
	if got := binary.NativeEndian.Uint64(head); got != id {
		return fmt.Errorf("page %d says that it is page %d", id, got)
	}
	if int64(id)*w.pageSize+length > w.size {
		return fmt.Errorf("page %d: the file is cut short", id)
	}
	data := make([]byte, length)
	if _, err := w.f.ReadAt(data, int64(id)*w.pageSize); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return w.elements(id, data, depth, leaf)
}

// elements walks the elements of a page, or of a bucket small enough to lie in its parent's.
func (w *walker) elements(id uint64, data []byte, depth int, leaf func(leafElement) error) error {
	le := binary.NativeEndian
	if len(data) < pageHeader {
		return fmt.Errorf("page %d is cut short", id)
	}
	flags, count := le.Uint16(data[8:]), int(le.Uint16(data[10:]))
	if flags != flagBranch && flags != flagLeaf {
		return fmt.Errorf("page %d is of no known type (%#x)", id, flags)
	}
	if pageHeader+count*elementSize > len(data) {
		return fmt.Errorf("page %d has more elements than room", id)
	}
	var last []byte
	for i := range count {
		at := pageHeader + i*elementSize
		e := data[at : at+elementSize]
		var pos, ksize, vsize uint64
		if flags == flagLeaf {
			pos, ksize, vsize = uint64(le.Uint32(e[4:])), uint64(le.Uint32(e[8:])), uint64(le.Uint32(e[12:]))
		} else {
			pos, ksize = uint64(le.Uint32(e)), uint64(le.Uint32(e[4:]))
		}
		start := uint64(at) + pos
		if start+ksize+vsize > uint64(len(data)) {
			return fmt.Errorf("page %d: element %d lies outside of the page", id, i)
		}
		key := data[start : start+ksize]
		if i > 0 && bytes.Compare(last, key) >= 0 {
			return fmt.Errorf("page %d: keys are out of order", id)
		}
		last = key
		var err error
		if flags == flagLeaf {
			err = leaf(leafElement{flags: le.Uint32(e), key: key, value: data[start+ksize : start+ksize+vsize]})
		} else {
			err = w.page(le.Uint64(e[8:]), depth+1, leaf)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) bucket(elem leafElement, records bool) error {
	if len(elem.value) < 16 {
		return fmt.Errorf("bucket %q is cut short", elem.key)
	}
	leaf := func(e leafElement) error {
		if e.flags&flagBucket != 0 {
			return fmt.Errorf("a bucket in bucket %q", elem.key)
		}
		if records {
			_, err := decode(e.key, e.value)
			return err
		}
		return nil
	}
	if root := binary.NativeEndian.Uint64(elem.value); root != 0 {
		return w.page(root, 0, leaf)
	}
	return w.elements(0, elem.value[16:], 0, leaf)
}
