// Package unpack turns a layer of an image, a tar that may be packed with gzip or zstd, into a folder that overlay can mount.
//
// Layers come from strangers. Every name in one is resolved by the kernel below the layer's folder (openat2, RESOLVE_IN_ROOT), so that
// neither .. nor a link leads out of it, and nothing is opened that was not made here. What is wrong with a layer is ErrCorrupt; other
// errors are this machine's.
//
// Unpacking, hashing and writing go on at the same time. Apply does not look at the layers below, so that several layers of an image
// can be unpacked at once; Inherit then gives the folders that a layer only passes through the attributes they have below.
//
// It may import failpoint of this project.
package unpack

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/failpoint"
)

// ErrCorrupt says that content is not what its digest says, or cannot be understood.
var ErrCorrupt = errors.New("image content is corrupt")

// maxBytes is what the files of one layer may amount to, holes counted: without a bound a layer of a few bytes that claims an exabyte of
// nothing would keep a processor busy for years.
const maxBytes = 1 << 40

// Layer is what an unpacked layer has turned out to be.
type Layer struct {
	// Bytes and Inodes are what it takes on disk.
	Bytes, Inodes int64
	// Opaque layers hide all below.
	Opaque bool
	// Passed are the folders that the layer has files in but does not describe itself, each after the one it is in; see Inherit.
	Passed []string
}

// Apply unpacks a layer's blob into dir, which must be empty, and checks that the tar in it has the digest diffID.
func Apply(ctx context.Context, dir string, blob io.Reader, diffID digest.Digest) (Layer, error) {
	if err := diffID.Validate(); err != nil {
		return Layer{}, fmt.Errorf("%w: diffID %q: %w", ErrCorrupt, diffID, err)
	}
	plain, err := Decompress(blob)
	if err != nil {
		return Layer{}, blame(err)
	}
	defer plain.Close()
	p := newPump(plain, diffID.Algorithm().Hash())
	defer p.Close()
	root, err := openRoot(dir)
	if err != nil {
		return Layer{}, err
	}
	defer root.close()
	w := &writer{root: root, buf: make([]byte, bufferBytes)}
	if err := w.all(ctx, p); err != nil {
		return Layer{}, blame(err)
	}
	// What follows the end of the archive counts for the digest too.
	if _, err := io.Copy(io.Discard, p); err != nil {
		return Layer{}, blame(err)
	}
	if got := digest.NewDigest(diffID.Algorithm(), p.Sum()); got != diffID {
		return Layer{}, fmt.Errorf("%w: unpacked it has digest %s, the image's config says %s", ErrCorrupt, got, diffID)
	}
	w.layer.Passed = root.passed
	return w.layer, nil
}

// all writes every entry of the archive, and then sets the folders' times, which writing into them has changed.
func (w *writer) all(ctx context.Context, r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return w.setTimes()
		}
		if err != nil {
			return err
		}
		if err := w.entry(ctx, h, tr); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
		failpoint.Hit("image/layer/entry")
	}
}

// theirs are errors of the system that only a bad archive brings about, for the folder is ours alone.
var theirs = []syscall.Errno{unix.ENAMETOOLONG, unix.ENOTDIR, unix.ELOOP, unix.EISDIR, unix.ENOENT, unix.EINVAL, unix.EXDEV, unix.EFBIG,
	unix.E2BIG, unix.ERANGE}

// blame tells errors in the archive from those of this machine.
func blame(err error) error {
	if errors.Is(err, ErrCorrupt) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if sys, ok := errors.AsType[syscall.Errno](err); ok {
		for _, e := range theirs {
			if sys == e {
				return fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
		}
		return err
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}
