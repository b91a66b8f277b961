package main

import (
	"strconv"

	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/runtime/shim/wire"
)

// execution is a process that was started in a running container. Its stdio goes to carob directly, so it ends with the connection that
// asked for it.
type execution struct {
	id   string
	pid  int
	conn *conn
}

// group is whom to signal: the process with all of its group, so that what it started beside itself goes with it. The group is its own
// (runc) or was the OCI runtime's (crun), which has ended; never this shim's.
func (x *execution) group() int {
	if group, err := unix.Getpgid(x.pid); err == nil && group > 1 && group != unix.Getpgrp() {
		return -group
	}
	return x.pid
}

// exec starts a process. The reply comes when it runs; its end is reported, never kept: nobody asks for it after a restart of carob.
func (s *shim) exec(c *conn, f *wire.Frame, fds []int) {
	k := s.containers[f.Of]
	if k == nil || k.exited {
		closeAll(fds)
		s.reply(c, f, "container not running", 0)
		return
	}
	stdio, err := execStdio(f, fds)
	if err != nil {
		closeAll(fds)
		s.reply(c, f, "prepare stdio: "+err.Error(), 0)
		return
	}
	base := s.dir + "/x-" + f.ID
	pidFile, logFile := base+".pid", base+".log"
	argv := []string{f.Bin, "--root", f.Root, "--log", logFile, "--log-format", "json"}
	argv = append(argv, f.Args...)
	argv = append(argv, "exec", "--detach", "--process", f.Process, "--pid-file", pidFile)
	if f.TTY != 0 {
		argv = append(argv, "--console-socket", f.Console)
	}
	s.starting++
	err = s.hidden(f.Hide != 0, func() error {
		return s.spawn(append(argv, f.Of), stdio, true, func(e ended) {
			s.starting--
			pid, failure := readInt(pidFile), ""
			if code, _ := e.code(); code != 0 || pid == 0 {
				failure = readSmall(logFile)
				if failure == "" {
					failure = "the OCI runtime ended with code " + strconv.Itoa(code)
				}
			}
			unix.Unlink(pidFile)
			unix.Unlink(logFile)
			if failure != "" {
				s.reply(c, f, failure, 0)
				s.settled()
				return
			}
			x := &execution{id: f.ID, pid: pid, conn: c}
			s.execs[x.id] = x
			s.reply(c, f, "", pid)
			if s.conns[c.fd] != c {
				unix.Kill(x.group(), unix.SIGKILL)
			}
			s.wait(pid, func(e ended) {
				delete(s.execs, x.id)
				code, sig := e.code()
				s.report(wire.Frame{Op: wire.OpExit, ID: x.id, Of: f.Of, Code: code, Sig: sig, Exited: 1, Ended: int(e.at.UnixNano())})
			})
			s.settled()
		})
	})
	for i, fd := range stdio {
		if i == 0 || fd != stdio[i-1] {
			unix.Close(fd)
		}
	}
	if err != nil {
		s.starting--
		s.reply(c, f, "start "+f.Bin+": "+err.Error(), 0)
	}
}

func execStdio(f *wire.Frame, fds []int) ([3]int, error) {
	if len(fds) == 3 {
		return [3]int{fds[0], fds[1], fds[2]}, nil
	}
	closeAll(fds)
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	return [3]int{null, null, null}, err
}
