package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// known finds a layer that is unpacked already.
func (s *Store) known(chain string) (*layer, bool) {
	if l, ok := s.current.Load().Layers[chain]; ok {
		return l, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.fresh[chain]
	return l, ok
}

// unpack makes the folder of one layer from its blob, unless it is there. below are the layers under it, lowest first.
// It is found by its chain ID: the same layer on other ones is another, because folders that it only passes through take
// owner, mode and attributes from below.
func (s *Store) unpack(ctx context.Context, chain string, below []*layer, blob ocispec.Descriptor, diffID digest.Digest) (*layer, error) {
	unlock, err := s.busy.lock(ctx, "layer "+chain)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if l, ok := s.known(chain); ok {
		return l, nil
	}
	f, err := os.Open(s.blobPath(blob.Digest.String()))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var parents []string
	for i := len(below) - 1; i >= 0; i-- {
		parents = append(parents, s.layerDir(below[i]))
		if below[i].Opaque {
			break
		}
	}
	tmp, err := os.MkdirTemp(s.path("tmp"), "layer-")
	if err != nil {
		return nil, err
	}
	l, err := extract(ctx, tmp, f, parents, diffID)
	if err == nil {
		l.Blob = blob.Digest.String()
		s.mu.Lock()
		s.serial++
		l.Dir = strconv.Itoa(s.serial)
		s.mu.Unlock()
		err = os.Rename(tmp, s.layerDir(l))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("unpack layer %s: %w", blob.Digest, err), os.RemoveAll(tmp))
	}
	s.mu.Lock()
	s.fresh[chain] = l
	s.mu.Unlock()
	return l, nil
}

// extract unpacks a layer's blob into dir and checks that the tar in it has the digest it should.
func extract(ctx context.Context, dir string, blob io.Reader, parents []string, diffID digest.Digest) (*layer, error) {
	if err := diffID.Validate(); err != nil {
		return nil, fmt.Errorf("%w: diffID %q: %w", ErrCorrupt, diffID, err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	plain, err := decompress(blob)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	ahead := newReadAhead(plain)
	defer ahead.Close()
	sum := diffID.Algorithm().Hash()
	tarball := io.TeeReader(ahead, sum)
	w := &layerWriter{root: dir, layer: &layer{DiffID: diffID.String()}, capabilities: map[string]string{}}
	_, err = archive.Apply(ctx, dir, tarball, archive.WithFilter(w.accept), archive.WithConvertWhiteout(w.whiteout), archive.WithParents(parents))
	if err != nil {
		return nil, content(err)
	}
	if err := w.finish(); err != nil {
		return nil, err
	}
	// What follows the end of the archive counts for the digest too.
	if _, err := io.Copy(io.Discard, tarball); err != nil {
		return nil, content(err)
	}
	if got := digest.NewDigest(diffID.Algorithm(), sum); got != diffID {
		return nil, fmt.Errorf("%w: unpacked it has digest %s, the image's config says %s", ErrCorrupt, got, diffID)
	}
	return w.layer, nil
}

// content tells errors in the archive from those of this machine.
func content(err error) error {
	var sys syscall.Errno
	if errors.As(err, &sys) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrCorrupt) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

// packing is how a blob is compressed.
type packing int

const (
	plainTar packing = iota
	gzipped
	zstandard
)

// compression tells by the first four bytes.
func compression(head []byte) packing {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzipped
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), // a frame
		len(head) == 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:], []byte{0x2a, 0x4d, 0x18}): // one that may be skipped
		return zstandard
	}
	return plainTar
}

// decompress undoes gzip or zstd; anything else passes as it is. Whoever names the media type may be wrong, the bytes are not.
func decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 1<<16)
	head, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch compression(head) {
	case gzipped:
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return z, nil
	case zstandard:
		z, err := zstd.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}

// The marks of deleted files in layers; see the image specification, "whiteouts".
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// layerWriter turns a layer's whiteouts into overlay's form while it is unpacked, and measures it.
type layerWriter struct {
	root  string
	layer *layer
	// deleted are paths with a whiteout. One that is a folder of this layer in the end hides the one below.
	deleted []string
	// capabilities are those of files so far, by path.
	capabilities map[string]string
}

const capabilityRecord = "SCHILY.xattr.security.capability"

// accept sees every entry first. Overlay's own attributes are not an image's to set: they can redirect a lookup.
func (w *layerWriter) accept(h *tar.Header) (bool, error) {
	for k := range h.PAXRecords {
		name := strings.TrimPrefix(k, "SCHILY.xattr.")
		if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			delete(h.PAXRecords, k)
		}
	}
	if h.Typeflag == tar.TypeLink {
		// The kernel drops a file's capabilities when the link is given its owner; many archives name them only once.
		if c, ok := w.capabilities[filepath.Clean("/"+h.Linkname)]; ok && h.PAXRecords[capabilityRecord] == "" {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords[capabilityRecord] = c
		}
		return true, nil
	}
	if c := h.PAXRecords[capabilityRecord]; c != "" {
		w.capabilities[filepath.Clean("/"+h.Name)] = c
	}
	w.layer.Inodes++
	w.layer.Size += (h.Size + 4095) &^ 4095
	return true, nil
}

// whiteout handles the marks; it reports whether the entry is to be written as a file.
func (w *layerWriter) whiteout(h *tar.Header, path string) (bool, error) {
	dir, base := filepath.Split(path)
	dir = filepath.Clean(dir)
	if base == whiteoutOpaque {
		if dir == w.root {
			w.layer.Opaque = true // overlay does not look at the top folder's mark
			return false, nil
		}
		return false, setOpaque(dir)
	}
	if !strings.HasPrefix(base, whiteoutPrefix) {
		return true, nil
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if name == "" || name == "." || name == ".." || strings.HasPrefix(name, whiteoutPrefix) {
		return false, nil // aufs' own bookkeeping, or nonsense
	}
	target := filepath.Join(dir, name)
	w.deleted = append(w.deleted, target)
	// A whiteout hides what is below, never what its own layer brings, in whichever order they come.
	if err := unix.Mknod(target, unix.S_IFCHR, 0); err != nil && !errors.Is(err, os.ErrExist) {
		return false, &os.PathError{Op: "mknod", Path: target, Err: err}
	}
	return false, nil
}

func (w *layerWriter) finish() error {
	for _, path := range w.deleted {
		if fi, err := os.Lstat(path); err == nil && fi.IsDir() {
			if err := setOpaque(path); err != nil {
				return err
			}
		}
	}
	return nil
}

func setOpaque(dir string) error {
	if err := unix.Lsetxattr(dir, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return &os.PathError{Op: "setxattr trusted.overlay.opaque", Path: dir, Err: err}
	}
	return nil
}
