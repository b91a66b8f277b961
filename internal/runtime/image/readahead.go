package image

import (
	"io"
	"sync"
)

// Reading ahead uses that many buffers of that many bytes.
const (
	aheadChunks = 4
	aheadBytes  = 512 << 10
)

// readAhead reads src in a goroutine of its own, so that unpacking a layer and writing its files go on at the same time.
// Close ends the goroutine and waits for it; it does not close src.
type readAhead struct {
	full, free chan []byte
	quit       chan struct{}
	done       sync.WaitGroup
	stop       sync.Once

	err         error  // of src; set before full is closed
	chunk, rest []byte // the buffer being read, and what is left of it
}

func newReadAhead(src io.Reader) *readAhead {
	r := &readAhead{full: make(chan []byte, aheadChunks), free: make(chan []byte, aheadChunks), quit: make(chan struct{})}
	for range aheadChunks {
		r.free <- make([]byte, aheadBytes)
	}
	r.done.Go(func() {
		defer close(r.full)
		for r.err == nil {
			select {
			case b := <-r.free:
				n := 0
				for n < len(b) && r.err == nil {
					var m int
					m, r.err = src.Read(b[n:])
					n += m
				}
				r.full <- b[:n] // never blocks: there are no more buffers than places
			case <-r.quit:
				return
			}
		}
	})
	return r
}

// Read implements io.Reader.
func (r *readAhead) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.chunk != nil {
			r.free <- r.chunk[:aheadBytes]
			r.chunk = nil
		}
		b, ok := <-r.full
		if !ok {
			return 0, r.err
		}
		r.chunk, r.rest = b, b
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (r *readAhead) Close() error {
	r.stop.Do(func() { close(r.quit) })
	r.done.Wait()
	return nil
}
