package image

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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

// fetch brings a blob into the store, or finds it there. One that arrives is whole and has the digest and size it should.
func (s *Store) fetch(ctx context.Context, src source, desc ocispec.Descriptor, m *meter) error {
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
	defer p.file.Close()
	m.add(p.size)
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
	if err := s.fetch(ctx, src, desc, nil); err != nil {
		return nil, err
	}
	return os.ReadFile(s.blobPath(desc.Digest.String()))
}

// partial is a blob on its way. It stays in tmp/ when a download ends early, so that the next one goes on from there.
type partial struct {
	desc ocispec.Descriptor
	file *os.File
	hash hash.Hash
	size int64
}

func (s *Store) openPartial(desc ocispec.Descriptor) (*partial, error) {
	f, err := os.OpenFile(s.path("tmp", "part-"+desc.Digest.Encoded()), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	p := &partial{desc: desc, file: f, hash: desc.Digest.Algorithm().Hash()}
	if p.size, err = io.Copy(p.hash, f); err != nil {
		f.Close()
		return nil, err
	}
	if p.size > desc.Size {
		err = p.reset()
	}
	return p, err
}

func (p *partial) reset() error {
	p.hash.Reset()
	p.size = 0
	if err := p.file.Truncate(0); err != nil {
		return err
	}
	_, err := p.file.Seek(0, io.SeekStart)
	return err
}

// fill reads what is missing from one host and checks the whole.
func (p *partial) fill(ctx context.Context, s *Store, src source, host int, m *meter) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := s.cfg.Clock.AfterFunc(s.cfg.StallTimeout, func() { cancel(errStalled) })
	defer watchdog.Stop()

	if p.size < p.desc.Size || p.desc.Size == 0 {
		body, at, err := src.open(ctx, host, p.desc, p.size)
		if err != nil {
			return stalled(ctx, err)
		}
		defer body.Close()
		if at != p.size {
			m.add(-p.size)
			if err := p.reset(); err != nil {
				return err
			}
		}
		tick := readFunc(func(b []byte) (int, error) {
			n, err := body.Read(b)
			if n > 0 {
				watchdog.Reset(s.cfg.StallTimeout)
				m.add(int64(n))
			}
			return n, err
		})
		// One byte more than there should be tells a blob that is too long.
		n, err := io.Copy(io.MultiWriter(p.file, p.hash), io.LimitReader(tick, p.desc.Size-p.size+1))
		p.size += n
		if err != nil {
			return stalled(ctx, err)
		}
	}
	if p.size < p.desc.Size {
		return fmt.Errorf("%w after %d of %d bytes", io.ErrUnexpectedEOF, p.size, p.desc.Size)
	}
	if got := digest.NewDigest(p.desc.Digest.Algorithm(), p.hash); got != p.desc.Digest || p.size != p.desc.Size {
		size := p.size
		m.add(-p.size)
		if err := p.reset(); err != nil {
			return err
		}
		if size != p.desc.Size {
			return fmt.Errorf("%w: it is longer than the %d bytes it should have", ErrCorrupt, p.desc.Size)
		}
		return fmt.Errorf("%w: its digest is %s", ErrCorrupt, got)
	}
	return nil
}

var errStalled = fmt.Errorf("%w: download stalled", ErrUnavailable)

// stalled prefers the watchdog's reason over the cancellation it caused.
func stalled(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
		return cause
	}
	return err
}

// publish gives a whole blob its name.
func (s *Store) publish(p *partial) error {
	to := s.blobPath(p.desc.Digest.String())
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return os.Rename(p.file.Name(), to)
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
	p := &partial{file: f, hash: alg.Hash()}
	if p.size, err = io.Copy(io.MultiWriter(f, p.hash), r); err != nil {
		return ocispec.Descriptor{}, err
	}
	p.desc = ocispec.Descriptor{Digest: digest.NewDigest(alg, p.hash), Size: p.size}
	if want != "" && want != p.desc.Digest {
		return ocispec.Descriptor{}, fmt.Errorf("blob %s: %w: its digest is %s", want, ErrCorrupt, p.desc.Digest)
	}
	return p.desc, s.publish(p)
}

// readFunc is a function that is an io.Reader.
type readFunc func([]byte) (int, error)

func (f readFunc) Read(b []byte) (int, error) { return f(b) }
