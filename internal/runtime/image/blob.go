package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"carob.dev/carob/internal/failpoint"
	"carob.dev/carob/internal/sys"
)

// source is where content comes from: a registry's hosts, or an archive that was read before.
type source interface {
	// hosts is how many places may have the content; they are tried from 0 on.
	hosts() int
	// open reads content of one host from offset on. It may begin earlier, at the offset it returns.
	open(ctx context.Context, host int, desc ocispec.Descriptor, offset int64) (body io.ReadCloser, at int64, err error)
}

// Content that is read into memory is bounded, in bytes.
const (
	maxManifest = 4 << 20
	maxConfig   = 8 << 20
)

func (s *Store) blobPath(d string) string {
	dd := digest.Digest(d)
	return s.path("blobs", dd.Algorithm().String(), dd.Encoded())
}

func (s *Store) hasBlob(desc ocispec.Descriptor) bool {
	fi, err := os.Stat(s.blobPath(desc.Digest.String()))
	return err == nil && fi.Size() == desc.Size
}

func (s *Store) blobSize(d string) (int64, error) {
	fi, err := os.Stat(s.blobPath(d))
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// fetch brings a blob into the store, or finds it there. One that arrives is whole and has the digest and size it should. begun, if
// there is one, is told of a download that begins, whose bytes can be read while they come.
func (s *Store) fetch(ctx context.Context, src source, desc ocispec.Descriptor, m *meter, begun func(*partial)) (err error) {
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("%w: descriptor %q: %w", ErrCorrupt, desc.Digest, err)
	}
	if desc.Size < 0 {
		return fmt.Errorf("%w: descriptor %s has size %d", ErrCorrupt, desc.Digest, desc.Size)
	}
	unlock, err := s.busy.lock(ctx, desc.Digest.String())
	if err != nil {
		return err
	}
	defer unlock()
	if s.hasBlob(desc) {
		m.add(desc.Size)
		return nil
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	p, err := s.openPartial(desc)
	if err != nil {
		return err
	}
	defer func() { p.end(err) }()
	m.add(p.size)
	if begun != nil {
		begun(p)
	}
	var errs []error
	for h := range src.hosts() {
		err := s.retry(ctx, func() error { return p.fill(ctx, s, src, h, m) })
		if err == nil {
			return s.publish(p)
		}
		errs = append(errs, err)
		if ctx.Err() != nil || errors.Is(err, syscall.ENOSPC) {
			break
		}
	}
	if len(errs) == 0 {
		return fmt.Errorf("blob %s: %w", desc.Digest, ErrNotFound)
	}
	return fmt.Errorf("blob %s: %w", desc.Digest, worst(errs))
}

// read returns small content as bytes, fetching it if need be.
func (s *Store) read(ctx context.Context, src source, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if desc.Size > limit {
		return nil, fmt.Errorf("%w: %s is %d bytes long, more than %d", ErrCorrupt, desc.Digest, desc.Size, limit)
	}
	if err := s.fetch(ctx, src, desc, nil, nil); err != nil {
		return nil, err
	}
	return os.ReadFile(s.blobPath(desc.Digest.String()))
}

// addBlob stores a stream as a blob and tells its digest and size. A want that differs is an error.
func (s *Store) addBlob(r io.Reader, want digest.Digest) (_ ocispec.Descriptor, err error) {
	alg := digest.Canonical
	if want != "" {
		if err := want.Validate(); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("%w: blob %q: %w", ErrCorrupt, want, err)
		}
		alg = want.Algorithm()
	}
	f, err := os.CreateTemp(s.path("tmp"), "blob-")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	sum := alg.Hash()
	size, err := io.Copy(io.MultiWriter(&sys.Eager{File: f}, sum), r)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	failpoint.Hit("image/blob/stored")
	desc := ocispec.Descriptor{Digest: digest.NewDigest(alg, sum), Size: size}
	if want != "" && want != desc.Digest {
		return ocispec.Descriptor{}, fmt.Errorf("blob %s: %w: its digest is %s", want, ErrCorrupt, desc.Digest)
	}
	if err := s.makeBlobFolder(desc.Digest); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := os.Rename(f.Name(), s.blobPath(desc.Digest.String())); err != nil {
		return ocispec.Descriptor{}, err
	}
	failpoint.Hit("image/blob/named")
	return desc, nil
}

func (s *Store) makeBlobFolder(d digest.Digest) error {
	return os.MkdirAll(filepath.Dir(s.blobPath(d.String())), 0o700)
}

// readFunc is a function that is an io.Reader.
type readFunc func([]byte) (int, error)

func (f readFunc) Read(b []byte) (int, error) { return f(b) }
