package image

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"carob.dev/carob/internal/failpoint"
)

// partialAge is how long a download that ended early is kept for the next one to go on from.
const partialAge = 24 * time.Hour

// partial is a blob on its way, in partial/. It stays there when a download ends early, even by a crash, and when it is whole until an
// image has it, so that the next pull goes on from there.
type partial struct {
	desc ocispec.Descriptor
	file *os.File
	hash hash.Hash
	// unproven is how much of it was there before: a crash of the machine may have spoiled it.
	unproven int64
	more     chan struct{} // filled when there is something new to see

	mu       sync.Mutex // guards what follows
	size     int64
	restarts int
	ended    bool
	err      error
}

func (s *Store) partialPath(d digest.Digest) string {
	return s.path("partial", d.Algorithm().String()+"-"+d.Encoded())
}

func (s *Store) openPartial(desc ocispec.Descriptor) (*partial, error) {
	f, err := os.OpenFile(s.partialPath(desc.Digest), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	failpoint.Hit("image/partial/made")
	p := &partial{desc: desc, file: f, hash: desc.Digest.Algorithm().Hash(), more: make(chan struct{}, 1)}
	if p.size, err = io.Copy(p.hash, f); err == nil && p.size > desc.Size {
		err = p.reset()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	p.unproven = p.size
	return p, nil
}

// Write adds what has come. It implements io.Writer.
func (p *partial) Write(b []byte) (int, error) {
	n, err := p.file.Write(b)
	p.hash.Write(b[:n])
	failpoint.Hit("image/partial/written")
	p.mu.Lock()
	p.size += int64(n)
	p.mu.Unlock()
	p.tell()
	return n, err
}

func (p *partial) reset() error {
	p.mu.Lock()
	p.size = 0
	p.restarts++
	p.mu.Unlock()
	p.tell()
	p.hash.Reset()
	p.unproven = 0
	if err := p.file.Truncate(0); err != nil {
		return err
	}
	_, err := p.file.Seek(0, io.SeekStart)
	return err
}

// end closes it: it is whole, or err says why it is not.
func (p *partial) end(err error) {
	p.mu.Lock()
	p.ended, p.err = true, err
	p.mu.Unlock()
	p.tell()
	p.file.Close()
	if p.size == 0 {
		_ = os.Remove(p.file.Name()) // nothing to go on from; one that stays is no harm
	}
}

func (p *partial) tell() {
	select {
	case p.more <- struct{}{}:
	default:
	}
}

// fill reads what is missing from one host and checks the whole. What was there before and proves to be spoiled is read anew, once.
func (p *partial) fill(ctx context.Context, s *Store, src source, host int, m *meter) error {
	old := p.unproven > 0
	err := p.read(ctx, s, src, host, m)
	if old && p.unproven == 0 && errors.Is(err, ErrCorrupt) {
		err = p.read(ctx, s, src, host, m)
	}
	return err
}

func (p *partial) read(ctx context.Context, s *Store, src source, host int, m *meter) error {
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
		if _, err := io.Copy(p, io.LimitReader(tick, p.desc.Size-p.size+1)); err != nil {
			return stalled(ctx, err)
		}
	}
	if p.size < p.desc.Size {
		return fmt.Errorf("%w after %d of %d bytes", io.ErrUnexpectedEOF, p.size, p.desc.Size)
	}
	got := digest.NewDigest(p.desc.Digest.Algorithm(), p.hash)
	if got == p.desc.Digest && p.size == p.desc.Size {
		return nil
	}
	size := p.size
	m.add(-size)
	if err := p.reset(); err != nil {
		return err
	}
	if size != p.desc.Size {
		return fmt.Errorf("%w: it is longer than the %d bytes it should have", ErrCorrupt, p.desc.Size)
	}
	return fmt.Errorf("%w: its digest is %s", ErrCorrupt, got)
}

var errStalled = fmt.Errorf("%w: download stalled", ErrUnavailable)

// stalled prefers the watchdog's reason over the cancellation it caused.
func stalled(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
		return cause
	}
	return err
}

// publish gives a whole blob its name. It keeps the other one until an image has the blob: an unnamed blob does not outlive a crash.
func (s *Store) publish(p *partial) error {
	if err := s.makeBlobFolder(p.desc.Digest); err != nil {
		return err
	}
	failpoint.Hit("image/partial/whole")
	if p.size == 0 { // end will remove it
		if err := os.WriteFile(s.blobPath(p.desc.Digest.String()), nil, 0o600); err != nil {
			return err
		}
	} else if err := os.Link(p.file.Name(), s.blobPath(p.desc.Digest.String())); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	failpoint.Hit("image/partial/named")
	return nil
}

// dropPartials forgets the downloads of blobs that an image has now. One that stays goes with the next sweep.
func (s *Store) dropPartials(blobs []string) {
	for _, b := range blobs {
		if err := os.Remove(s.partialPath(digest.Digest(b))); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.log.Warn("cannot remove a download that is complete", "blob", b, "err", err)
		}
		failpoint.Hit("image/partial/dropped")
	}
}

// follower reads a partial while it grows.
type follower struct {
	ctx      context.Context
	p        *partial
	file     *os.File
	at       int64
	restarts int
}

// follow reads the blob from its beginning; at its end it waits for more until the blob is whole. There can be one follower.
func (p *partial) follow(ctx context.Context) (*follower, error) {
	f, err := os.Open(p.file.Name())
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return &follower{ctx: ctx, p: p, file: f, restarts: p.restarts}, nil
}

var errRestarted = errors.New("the download began anew")

// Read implements io.Reader.
func (f *follower) Read(b []byte) (int, error) {
	for {
		f.p.mu.Lock()
		size, restarts, ended, err := f.p.size, f.p.restarts, f.p.ended, f.p.err
		f.p.mu.Unlock()
		switch {
		case restarts != f.restarts:
			return 0, errRestarted
		case f.at < size:
			n, err := f.file.ReadAt(b[:min(int64(len(b)), size-f.at)], f.at)
			f.at += int64(n)
			if n > 0 {
				err = nil
			}
			return n, err
		case ended && err != nil:
			return 0, err
		case ended:
			return 0, io.EOF
		}
		select {
		case <-f.p.more:
		case <-f.ctx.Done():
			return 0, f.ctx.Err()
		}
	}
}

// Close implements io.Closer.
func (f *follower) Close() error { return f.file.Close() }
