package main

import (
	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/runtime/shim/wire"
)

// session is one attached client: descriptors that carob passed, -1 where there is none.
type session struct {
	id           string
	in, out, err int
	// pending is output that the client has not taken yet; while there is some, the container's streams are not read.
	pending [2][]byte
	// typed is input that the container has not taken yet.
	typed  []byte
	closed bool
}

// attach joins a session to a container. Args name the descriptors that came with the packet: stdin, stdout, stderr.
func (s *shim) attach(c *conn, f *wire.Frame, fds []int) {
	k := s.containers[f.Of]
	if k == nil || k.exited || len(fds) != len(f.Args) {
		closeAll(fds)
		s.reply(c, f, "not running", 0)
		return
	}
	ses := &session{id: f.ID, in: -1, out: -1, err: -1}
	for i, fd := range fds {
		unix.SetNonblock(fd, true)
		switch f.Args[i] {
		case "stdin":
			ses.in = fd
		case "stdout":
			ses.out = fd
			s.add(fd, 0, func(events uint32) { s.readerGone(k, ses, events) }) // the reader is gone
		default:
			ses.err = fd
		}
	}
	k.sinks = append(k.sinks, ses)
	if ses.in >= 0 {
		s.add(ses.in, unix.EPOLLIN, func(uint32) { s.typed(k, ses) })
	}
	s.reply(c, f, "", 0)
}

// detach ends a session and says so.
func (s *shim) detach(k *container, ses *session) {
	for i, other := range k.sinks {
		if other == ses {
			k.sinks = append(k.sinks[:i], k.sinks[i+1:]...)
			break
		}
	}
	if ses.closed {
		return
	}
	ses.closed = true
	hadInput := ses.in >= 0
	s.close(ses.in)
	s.close(ses.out)
	s.close(ses.err)
	if hadInput && k.once && k.in >= 0 {
		s.close(k.in)
		k.in = -1
	}
	s.resume(k)
	s.report(wire.Frame{Op: wire.OpDetach, ID: ses.id})
}

func (s *shim) readerGone(k *container, ses *session, events uint32) {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		s.detach(k, ses)
	}
}

// typed moves a session's input to the container.
func (s *shim) typed(k *container, ses *session) {
	target := k.in
	if k.pty >= 0 {
		target = k.pty
	}
	buf := make([]byte, 4096)
	s.spent += len(buf)
	n, err := unix.Read(ses.in, buf)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return
	case n <= 0 || err != nil:
		s.close(ses.in)
		ses.in = -1
		if k.once && k.pty < 0 && k.in >= 0 {
			s.close(k.in)
			k.in = -1
		}
		return
	case target < 0:
		return
	}
	ses.typed = buf[:n]
	s.feed(k, ses, target)
}

// feed writes input; when the container does not take it, the session's input waits until it does.
func (s *shim) feed(k *container, ses *session, target int) {
	for len(ses.typed) > 0 {
		n, err := unix.Write(target, ses.typed)
		if err == unix.EAGAIN {
			if ses.in >= 0 {
				s.hush(ses.in)
			}
			again := func(uint32) {
				s.unfeed(k, target)
				s.feed(k, ses, target)
			}
			events := uint32(unix.EPOLLOUT)
			s.add(target, events, again)
			return
		}
		if err != nil {
			break
		}
		ses.typed = ses.typed[n:]
	}
	ses.typed = nil
	if ses.in >= 0 && !ses.closed {
		s.add(ses.in, unix.EPOLLIN, func(uint32) { s.typed(k, ses) })
	}
}

func (s *shim) unfeed(k *container, target int) {
	s.hush(target)
	if target == k.pty && k.out != nil && k.out.fd >= 0 {
		s.listen(k, k.out)
	}
}

// spread hands output to all sessions. It returns true when one of them is full, so that the container has to wait for it.
func (s *shim) spread(k *container, st *stream, b []byte) (full bool) {
	for _, ses := range append([]*session(nil), k.sinks...) {
		which, fd := 0, ses.out
		if st.name == "stderr" {
			which, fd = 1, ses.err
		}
		if fd < 0 {
			continue
		}
		if len(ses.pending[which]) > 0 {
			ses.pending[which] = append(ses.pending[which], b...)
			full = true
			continue
		}
		n, err := unix.Write(fd, b)
		if err != nil && err != unix.EAGAIN {
			s.detach(k, ses)
			continue
		}
		if n = max(n, 0); n < len(b) {
			ses.pending[which] = append([]byte(nil), b[n:]...)
			s.add(fd, unix.EPOLLOUT, func(uint32) { s.catchUp(k, ses, which, fd) })
			full = true
		}
	}
	return full
}

func (s *shim) catchUp(k *container, ses *session, which, fd int) {
	n, err := unix.Write(fd, ses.pending[which])
	if err != nil && err != unix.EAGAIN {
		s.detach(k, ses)
		return
	}
	ses.pending[which] = ses.pending[which][max(n, 0):]
	if len(ses.pending[which]) > 0 {
		return
	}
	ses.pending[which] = nil
	if which == 0 {
		s.add(fd, 0, func(events uint32) { s.readerGone(k, ses, events) })
	} else {
		s.hush(fd)
	}
	s.resume(k)
}

// resume reads a container's streams again once no session lags.
func (s *shim) resume(k *container) {
	for _, ses := range k.sinks {
		if len(ses.pending[0]) > 0 || len(ses.pending[1]) > 0 {
			return
		}
	}
	for _, st := range []*stream{k.out, k.err} {
		if st != nil && st.fd >= 0 {
			s.listen(k, st)
		}
	}
}
