package main

import (
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// proc is a child that someone waits for.
type proc struct {
	pid, pidfd int
	done       func(ended)
}

type ended struct {
	status unix.WaitStatus
	at     time.Time
}

// env is what an OCI runtime gets: not the shim's own, whose GOGC would reach runc.
var env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

// spawn starts a program with the three descriptors as its stdio, and in a process group of its own if it says so.
func (s *shim) spawn(argv []string, stdio [3]int, group bool, done func(ended)) error {
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{Dir: "/", Env: env,
		Files: []uintptr{uintptr(stdio[0]), uintptr(stdio[1]), uintptr(stdio[2])}, Sys: &syscall.SysProcAttr{Setpgid: group}})
	if err != nil {
		return err
	}
	s.wait(pid, done)
	return nil
}

// wait calls done once the child has ended, also when it was reaped before anyone knew what it was.
func (s *shim) wait(pid int, done func(ended)) {
	if e, ok := s.early[pid]; ok {
		delete(s.early, pid)
		done(e)
		return
	}
	if unix.Kill(pid, 0) == unix.ESRCH { // more ended than are remembered
		done(ended{unknown, time.Now()})
		return
	}
	p := &proc{pid: pid, pidfd: -1, done: done}
	s.procs[pid] = p
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // ended already; reap finds it
	}
	unix.CloseOnExec(fd)
	p.pidfd = fd
	s.add(fd, unix.EPOLLIN, func(uint32) {})
}

// unknown is exit code 255, for an end that was missed.
const unknown unix.WaitStatus = 255 << 8

// maxEarly bounds the ends of strangers that are remembered: in the machine's PID namespace a container's orphans come here.
const maxEarly = 4096

// reap collects every child that has ended. A child that nobody waits for yet may be a container whose OCI runtime has not said so:
// its end is kept while such a runtime runs, and no longer, for its number will be another's.
func (s *shim) reap() {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if pid <= 0 || err != nil {
			return
		}
		e := ended{ws, time.Now()}
		p := s.procs[pid]
		if p == nil {
			if s.starting > 0 && len(s.early) < maxEarly {
				s.early[pid] = e
			}
			continue
		}
		delete(s.procs, pid)
		s.close(p.pidfd)
		p.done(e)
	}
}

// settled forgets the ends of strangers once no OCI runtime is at work that might still name one.
func (s *shim) settled() {
	if s.starting == 0 {
		clear(s.early)
	}
}

// code is the exit code as shells and Kubernetes tell it, and the signal if there was one.
func (e ended) code() (code, sig int) {
	if e.status.Signaled() {
		return 128 + int(e.status.Signal()), int(e.status.Signal())
	}
	return e.status.ExitStatus(), 0
}

func readSmall(path string) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var out []byte
	buf := make([]byte, 4096)
	for len(out) < 1<<20 {
		n, err := unix.Read(fd, buf)
		if n <= 0 || err != nil {
			break
		}
		out = append(out, buf[:n]...)
	}
	return string(out)
}

func readInt(path string) int {
	b := readSmall(path)
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == ' ') {
		b = b[:len(b)-1]
	}
	n, err := strconv.Atoi(b)
	if err != nil {
		return 0
	}
	return n
}

// writeFact replaces a small file; a crash of the shim leaves the old one or the new.
func writeFact(path string, data []byte) {
	tmp := path + ".tmp"
	fd, err := unix.Open(tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return
	}
	_, err = unix.Write(fd, data)
	unix.Close(fd)
	if err == nil {
		unix.Rename(tmp, path)
	}
}
