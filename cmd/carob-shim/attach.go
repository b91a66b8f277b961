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
	closed  bool
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
	s.hark(k)
	s.reply(c, f, "", 0)
}

// hark reads the sessions' input, or leaves it where it is while the container takes none.
func (s *shim) hark(k *container) {
	for _, ses := range k.sinks {
		switch {
		case ses.in < 0:
		case k.full:
			s.hush(ses.in)
		default:
			s.add(ses.in, unix.EPOLLIN, func(uint32) { s.typed(k, ses) })
		}
	}
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
	if hadInput && k.once {
		k.last = true
		s.feed(k)
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
	n, err := unix.Read(ses.in, s.chunk[:4096])
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return
	case n <= 0 || err != nil:
		s.close(ses.in)
		ses.in = -1
		k.last = k.last || k.once
	default:
		k.input = append(k.input, s.chunk[:n]...)
	}
	s.feed(k)
}

// feed writes input. When the container does not take it, no session's is read until it does. What nobody reads any more is dropped.
func (s *shim) feed(k *container) {
	target := max(k.in, k.pty)
	for len(k.input) > 0 && target >= 0 {
		n, err := unix.Write(target, k.input)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			s.stuff(k, target, true)
			return
		}
		if err != nil {
			break
		}
		k.input = k.input[n:]
	}
	k.input = nil
	s.stuff(k, target, false)
	if k.last && k.in >= 0 {
		s.close(k.in)
		k.in = -1
	}
}

// stuff notes whether the container takes input, and waits for it to do so.
func (s *shim) stuff(k *container, target int, full bool) {
	if k.full == full {
		return
	}
	k.full = full
	s.hark(k)
	switch {
	case target < 0:
	case target == k.pty:
		s.listen(k, k.out)
	case full:
		s.add(target, unix.EPOLLOUT, func(uint32) { s.feed(k) })
	default:
		s.hush(target)
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
	if k.mute() && !ses.lags() {
		s.detach(k, ses)
		return
	}
	s.resume(k)
}

// lags says whether the session has not taken all output yet.
func (ses *session) lags() bool { return len(ses.pending[0]) > 0 || len(ses.pending[1]) > 0 }

// lags says whether a session has not taken all output yet.
func (k *container) lags() bool {
	for _, ses := range k.sinks {
		if ses.lags() {
			return true
		}
	}
	return false
}

// resume reads a container's streams again once no session lags.
func (s *shim) resume(k *container) {
	for _, st := range []*stream{k.out, k.err} {
		if st != nil && st.fd >= 0 {
			s.listen(k, st)
		}
	}
}
