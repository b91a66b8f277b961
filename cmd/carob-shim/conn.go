package main

import (
	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/runtime/shim/wire"
)

// conn is one connection of a carob. Frames that do not fit into the socket's buffer wait in queue.
type conn struct {
	fd    int
	queue [][]byte
	// ready says that the connection has said hello and wants reports.
	ready bool
}

func (s *shim) accept() {
	for {
		fd, _, err := unix.Accept4(s.listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			return
		}
		s.connect(fd)
	}
}

func (s *shim) connect(fd int) {
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 2*wire.MaxFrame)
	c := &conn{fd: fd}
	s.conns[fd] = c
	s.add(fd, unix.EPOLLIN, func(events uint32) { s.serve(c, events) })
}

func (s *shim) hangup(c *conn) {
	delete(s.conns, c.fd)
	s.close(c.fd)
	for _, x := range s.execs {
		if x.conn == c {
			unix.Kill(x.group(), unix.SIGKILL) // nobody is left to talk to it
		}
	}
	if len(s.conns) == 0 && s.pause == 0 {
		s.stopping = true // its carob died before there was a Pod
	}
}

func (s *shim) serve(c *conn, events uint32) {
	if events&unix.EPOLLOUT != 0 {
		s.flush(c)
	}
	for s.conns[c.fd] == c {
		n, oobn, _, _, err := unix.Recvmsg(c.fd, s.packet, s.oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		if err == unix.EAGAIN || err == unix.EINTR {
			return
		}
		if err != nil || n == 0 {
			s.hangup(c)
			return
		}
		fds := receivedFDs(s.oob[:oobn])
		s.spent += 4*n + 512
		f := new(wire.Frame)
		if f.Parse(s.packet[:n]) != nil {
			closeAll(fds)
			s.hangup(c)
			return
		}
		s.handle(c, f, fds)
	}
}

func receivedFDs(oob []byte) []int {
	if len(oob) == 0 {
		return nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var fds []int
	for i := range msgs {
		got, err := unix.ParseUnixRights(&msgs[i])
		if err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func (s *shim) send(c *conn, f *wire.Frame) {
	if s.conns[c.fd] != c {
		return
	}
	f.V = wire.Version
	s.out = f.Append(s.out[:0])
	if len(s.out) > wire.MaxAnswer {
		f.Log, f.Cgroup = "", "" // nobody asked for them
	}
	for len(s.out) > wire.MaxAnswer { // an OCI runtime had much to complain of
		f.Err = f.Err[:len(f.Err)*3/4]
		s.out = f.Append(s.out[:0])
	}
	if len(c.queue) == 0 {
		err := unix.Send(c.fd, s.out, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if err == nil {
			return
		}
		if err != unix.EAGAIN {
			s.hangup(c)
			return
		}
		s.add(c.fd, unix.EPOLLIN|unix.EPOLLOUT, s.watch[c.fd].f)
	}
	c.queue = append(c.queue, append([]byte(nil), s.out...))
}

func (s *shim) flush(c *conn) {
	for len(c.queue) > 0 {
		err := unix.Send(c.fd, c.queue[0], unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			return
		}
		if err != nil {
			s.hangup(c)
			return
		}
		c.queue = c.queue[1:]
	}
	c.queue = nil
	s.add(c.fd, unix.EPOLLIN, s.watch[c.fd].f)
}

// report tells every carob that listens.
func (s *shim) report(f wire.Frame) {
	for _, c := range s.conns {
		if c.ready {
			s.send(c, &f)
		}
	}
}

func (s *shim) reply(c *conn, req *wire.Frame, err string, pid int) {
	s.send(c, &wire.Frame{Op: req.Op, Seq: req.Seq, ID: req.ID, Err: err, Pid: pid})
}

// handle does what a frame asks for. Each op sends its own reply, at once or when it is done.
func (s *shim) handle(c *conn, f *wire.Frame, fds []int) {
	if f.V != wire.Version {
		closeAll(fds)
		s.reply(c, f, "this shim speaks another version of the protocol", 0)
		return
	}
	switch f.Op {
	case wire.OpExec:
		s.exec(c, f, fds)
		return
	case wire.OpAttach:
		s.attach(c, f, fds)
		return
	}
	closeAll(fds)
	switch f.Op {
	case wire.OpHello:
		s.hello(c, f)
	case wire.OpSandbox:
		err := s.startPause(f.Args)
		s.reply(c, f, text(err), s.pause)
	case wire.OpRun:
		s.run(c, f)
	case wire.OpKill:
		s.reply(c, f, s.kill(f.ID, f.Sig), 0)
	case wire.OpKillAll:
		s.reply(c, f, s.killAll(f.ID), 0)
	case wire.OpReopen:
		s.reply(c, f, s.reopen(f.ID), 0)
	case wire.OpResize:
		s.reply(c, f, s.resize(f.ID, f.Width, f.Height), 0)
	case wire.OpForget:
		s.reply(c, f, s.forget(f.ID), 0)
	case wire.OpStop:
		if s.pause > 0 {
			unix.Kill(s.pause, unix.SIGKILL)
		}
		s.reply(c, f, "", 0)
	case wire.OpShutdown:
		s.shutdown()
		s.reply(c, f, "", 0)
	default:
		s.reply(c, f, "this shim does not know the request "+f.Op, 0)
	}
}

func (s *shim) hello(c *conn, f *wire.Frame) {
	c.ready = true
	s.send(c, &wire.Frame{Op: f.Op, Seq: f.Seq, Pid: s.pause, Boot: s.boot})
	for _, k := range s.containers {
		state := k.fact()
		state.Op = wire.OpState
		s.send(c, &state)
	}
	s.send(c, &wire.Frame{Op: wire.OpSynced, Pid: s.pause})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
