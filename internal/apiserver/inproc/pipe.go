package inproc

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// bufferSize is how much one direction of a connection holds before a writer waits.
const bufferSize = 64 << 10

// half is one direction of a connection: a bounded buffer between a writer and a reader.
type half struct {
	mu     sync.Mutex // guards all fields
	wake   sync.Cond  // something changed
	data   []byte     // not yet read
	spare  []byte     // the memory that data lies in, from its start
	closed bool       // no more writes; what is buffered can be read
	gone   bool       // nobody reads any more

	readBy, writeBy deadline
}

// deadline wakes waiters when it passes.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func newHalf() *half {
	h := &half{}
	h.wake.L = &h.mu
	return h
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// set must be called with the half's mutex held.
func (h *half) set(d *deadline, at time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = at
	if wait := time.Until(at); !at.IsZero() && wait > 0 {
		d.timer = time.AfterFunc(wait, h.wake.Broadcast)
	}
	h.wake.Broadcast()
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.gone:
			return 0, net.ErrClosed
		case h.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case len(h.data) > 0:
			n := copy(p, h.data)
			if h.data = h.data[n:]; len(h.data) == 0 && cap(h.spare) > 4<<10 {
				h.data, h.spare = nil, nil // idle connections cost nothing
			}
			h.wake.Broadcast()
			return n, nil
		case h.closed:
			return 0, io.EOF
		}
		h.wake.Wait()
	}
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	written := 0
	for {
		switch {
		case h.closed:
			return written, net.ErrClosed
		case h.gone:
			return written, io.ErrClosedPipe
		case h.writeBy.passed():
			return written, os.ErrDeadlineExceeded
		}
		if n := min(len(p), bufferSize-len(h.data)); n > 0 || len(p) == 0 {
			h.append(p[:n])
			written, p = written+n, p[n:]
			h.wake.Broadcast()
			if len(p) == 0 {
				return written, nil
			}
			continue
		}
		h.wake.Wait()
	}
}

// append moves what is unread to the start of the memory when there is no room behind it.
func (h *half) append(p []byte) {
	if len(h.data)+len(p) > cap(h.data) && len(h.data)+len(p) <= cap(h.spare) {
		h.data = h.spare[:copy(h.spare[:cap(h.spare)], h.data)]
	}
	h.data = append(h.data, p...)
	if cap(h.data) > cap(h.spare) {
		h.spare = h.data[:0]
	}
}

func (h *half) close(reader bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if reader {
		h.gone, h.data, h.spare = true, nil, nil
	} else {
		h.closed = true
	}
	for _, d := range []*deadline{&h.readBy, &h.writeBy} {
		if d.timer != nil && (h.gone || h.closed) {
			d.timer.Stop()
		}
	}
	h.wake.Broadcast()
}

// conn is one end of a connection.
type conn struct {
	in, out *half
	user    *identity
}

// pipe makes a connection: what is written to one end is read from the other.
func pipe(user *identity) (client, server *conn) {
	up, down := newHalf(), newHalf()
	return &conn{in: down, out: up, user: user}, &conn{in: up, out: down, user: user}
}

func (c *conn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *conn) Write(p []byte) (int, error) { return c.out.write(p) }

func (c *conn) Close() error {
	c.out.close(false)
	c.in.close(true)
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return addr{} }
func (c *conn) RemoteAddr() net.Addr { return addr{} }

func (c *conn) SetDeadline(t time.Time) error {
	return first(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.set(&c.in.readBy, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.set(&c.out.writeBy, t)
	return nil
}

// addr is the address of both ends. It looks like an IP address and port, for code that parses those.
type addr struct{}

func (addr) Network() string { return "inproc" }
func (addr) String() string  { return "127.0.0.1:0" }
