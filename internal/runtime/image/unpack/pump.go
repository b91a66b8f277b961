package unpack

import (
	"hash"
	"io"
	"sync"
	"sync/atomic"
)

// A pump has that many buffers of that many bytes.
const (
	pumpChunks = 6
	pumpBytes  = 256 << 10
)

// pump reads src in a goroutine of its own and hashes what was read in another, while whoever reads from the pump works on it. Close ends
// both goroutines and waits for them; it does not close src.
type pump struct {
	hash hash.Hash
	free chan *chunk
	full chan *chunk // to the reader
	quit chan struct{}
	done sync.WaitGroup
	stop sync.Once

	err  error  // of src; set before full is closed
	held *chunk // being read
	rest []byte // what is left of it
}

// chunk is a buffer that goes back once it was both read and hashed.
type chunk struct {
	data [pumpBytes]byte
	n    int
	uses atomic.Int32
}

func newPump(src io.Reader, h hash.Hash) *pump {
	p := &pump{hash: h, free: make(chan *chunk, pumpChunks), full: make(chan *chunk, pumpChunks), quit: make(chan struct{})}
	for range pumpChunks {
		p.free <- new(chunk)
	}
	hashed := make(chan *chunk, pumpChunks)
	p.done.Go(func() {
		defer close(hashed)
		defer close(p.full)
		for p.err == nil {
			select {
			case c := <-p.free:
				c.n = 0
				for c.n < len(c.data) && p.err == nil {
					var n int
					n, p.err = src.Read(c.data[c.n:])
					c.n += n
				}
				c.uses.Store(2)
				hashed <- c // neither blocks: there are no more chunks than places
				p.full <- c
			case <-p.quit:
				return
			}
		}
	})
	p.done.Go(func() {
		for c := range hashed {
			p.hash.Write(c.data[:c.n])
			p.release(c)
		}
	})
	return p
}

func (p *pump) release(c *chunk) {
	if c.uses.Add(-1) == 0 {
		p.free <- c
	}
}

// Read implements io.Reader.
func (p *pump) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.held != nil {
			p.release(p.held)
			p.held = nil
		}
		c, ok := <-p.full
		if !ok {
			return 0, p.err
		}
		p.held, p.rest = c, c.data[:c.n]
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// Sum is the hash of all that was read. It may be asked for once Read has come to the end.
func (p *pump) Sum() hash.Hash {
	p.done.Wait()
	return p.hash
}

// Close implements io.Closer.
func (p *pump) Close() error {
	p.stop.Do(func() { close(p.quit) })
	p.done.Wait()
	return nil
}
