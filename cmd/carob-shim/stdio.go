package main

import (
	"golang.org/x/sys/unix"
)

// plumb makes a container's stdio. It returns the descriptors that the OCI runtime is to inherit and, for a terminal, the path of the
// socket on which the runtime sends it.
func (s *shim) plumb(k *container) (stdio [3]int, console string, err error) {
	null := -1
	if !k.stdin || k.tty {
		if null, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return stdio, "", err
		}
	}
	stdio = [3]int{null, null, null}
	if k.tty {
		console = s.console(k)
		return stdio, console, s.awaitTerminal(console, k)
	}
	var p [2]int
	if k.stdin {
		if err = unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return stdio, "", err
		}
		stdio[0], k.in = p[0], p[1]
		s.users.own(p[0])
		unix.SetNonblock(k.in, true)
	}
	for i, name := range []string{"stdout", "stderr"} {
		if err = unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return stdio, "", err
		}
		unix.SetNonblock(p[0], true)
		s.users.own(p[1])
		st := &stream{fd: p[0], name: name}
		stdio[i+1] = p[1]
		if i == 0 {
			k.out = st
		} else {
			k.err = st
		}
		s.listen(k, st)
	}
	return stdio, "", nil
}

// console is where a container's terminal is awaited: one socket for each, as several may start at once.
func (s *shim) console(k *container) string { return s.dir + "/y-" + k.id[:min(len(k.id), 12)] }

// unawait stops waiting for a container's terminal.
func (s *shim) unawait(k *container) {
	if k.console >= 0 {
		s.close(k.console)
		k.console = -1
		unix.Unlink(s.console(k))
	}
}

// awaitTerminal listens where the OCI runtime will send the container's terminal.
func (s *shim) awaitTerminal(path string, k *container) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	unix.Unlink(path)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return err
	}
	if err := unix.Listen(fd, 1); err != nil {
		unix.Close(fd)
		return err
	}
	k.console = fd
	s.add(fd, unix.EPOLLIN, func(uint32) { s.takeTerminal(k) })
	return nil
}

// takeTerminal takes the container's terminal if the OCI runtime has sent it.
func (s *shim) takeTerminal(k *container) {
	if k.console < 0 {
		return
	}
	conn, _, err := unix.Accept4(k.console, unix.SOCK_CLOEXEC)
	if err != nil {
		return
	}
	s.unawait(k)
	oob := make([]byte, 64)
	buf := make([]byte, 4096)
	_, n, _, _, err := unix.Recvmsg(conn, buf, oob, unix.MSG_CMSG_CLOEXEC)
	unix.Close(conn)
	if fds := receivedFDs(oob[:max(n, 0)]); err == nil && len(fds) > 0 {
		closeAll(fds[1:])
		unix.SetNonblock(fds[0], true)
		k.pty, k.in = fds[0], -1
		k.out = &stream{fd: fds[0], name: "stdout"}
		s.listen(k, k.out)
	}
}

// listen reads a stream, unless a session lags, and writes a terminal's input if some waits.
func (s *shim) listen(k *container, st *stream) {
	var events uint32
	if !k.lags() {
		events = unix.EPOLLIN
	}
	if k.full && st.fd == k.pty {
		events |= unix.EPOLLOUT
	}
	if events == 0 {
		s.hush(st.fd)
		return
	}
	s.add(st.fd, events, func(events uint32) {
		if events&unix.EPOLLOUT != 0 {
			s.feed(k)
		}
		if events&^unix.EPOLLOUT != 0 {
			s.pump(k, st)
		}
	})
}

// turn is how many times a stream is read before the others have their turn: some write without a pause.
const turn = 4

// pump moves what a stream has, until it is empty, at its end, its turn is over, or a session cannot take more.
func (s *shim) pump(k *container, st *stream) {
	for range turn {
		if st.fd < 0 {
			return
		}
		n, err := unix.Read(st.fd, s.chunk)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			return
		}
		if n <= 0 || err != nil {
			s.ended(k, st)
			return
		}
		s.take(k, st, s.chunk[:n])
		s.spent += 256
		if s.spread(k, st, s.chunk[:n]) {
			s.listen(k, st) // goes on when the session has caught up
			return
		}
	}
}

// ended is called at the end of a stream. Sessions see their output end once both streams have and they have taken all.
func (s *shim) ended(k *container, st *stream) {
	k.finish(st)
	s.close(st.fd)
	if st.fd == k.pty {
		k.pty, k.full, k.input = -1, false, nil
	}
	st.fd = -1
	for _, ses := range append([]*session(nil), k.sinks...) {
		if k.mute() && !ses.lags() {
			s.detach(k, ses)
		}
	}
}

// mute says whether nothing more will come from a container.
func (k *container) mute() bool {
	return (k.out == nil || k.out.fd < 0) && (k.err == nil || k.err.fd < 0)
}

// maxHeld is more than a pipe holds: the kernel lets those without privileges have 1 MiB.
const maxHeld = 2 << 20

// drain takes what a dead container's streams still hold. A stream that a stranger holds open is read on as it comes.
func (s *shim) drain(k *container) {
	for _, st := range []*stream{k.out, k.err} {
		for held := 0; st != nil && st.fd >= 0 && held < maxHeld; {
			n, err := unix.Read(st.fd, s.chunk)
			if err == unix.EINTR {
				continue
			}
			if err == unix.EAGAIN {
				break
			}
			if n <= 0 || err != nil {
				s.ended(k, st)
				break
			}
			held += n
			s.take(k, st, s.chunk[:n])
			s.spread(k, st, s.chunk[:n])
		}
		if st != nil && st.fd >= 0 {
			k.finish(st) // its last line is whole as far as the container goes
		}
	}
	if k.in >= 0 {
		s.close(k.in)
		k.in, k.full, k.input = -1, false, nil
	}
}
