package main

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/runtime/shim/wire"
)

// container is one container of the Pod, from OpRun until OpForget.
type container struct {
	id, log, cgroup  string
	pid              int
	started, ended   int
	exited, oom      bool
	code, sig        int
	tty, stdin, once bool
	// in is the write end of the container's stdin, pty its terminal, console the socket where the terminal is awaited; -1 for none.
	in, pty  int
	console  int
	out, err *stream
	// input is what it has not taken yet of what was typed; full says that no more is read until it has; last that its stdin ends then.
	input      []byte
	full, last bool
	logFD      int
	// torn says that the log ends in a piece of an entry.
	torn bool
	// askers wait for the OCI runtime to have started it.
	askers []asker
	sinks  []*session
}

type asker struct {
	conn  *conn
	frame *wire.Frame
}

// fact is the container as a frame: what is written to disk, and what is reported.
func (k *container) fact() wire.Frame {
	f := wire.Frame{Op: wire.OpExit, ID: k.id, Pid: k.pid, Code: k.code, Sig: k.sig, Started: k.started, Ended: k.ended,
		Log: k.log, Cgroup: k.cgroup, TTY: flag(k.tty)}
	f.Exited, f.OOM = flag(k.exited), flag(k.oom)
	return f
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *shim) writeState(k *container) {
	f := k.fact()
	f.Boot, f.V = s.boot, wire.Version
	writeFact(s.dir+"/c-"+k.id, f.Append(nil))
}

// run creates and starts a container. The reply comes when the OCI runtime has done so or failed; in the latter case nothing of the
// container is left in the shim.
func (s *shim) run(c *conn, f *wire.Frame) {
	if k := s.containers[f.ID]; k != nil {
		// Asked again, by a carob that was started anew meanwhile.
		if k.pid == 0 {
			k.askers = append(k.askers, asker{c, f})
		} else {
			s.reply(c, f, "", k.pid)
		}
		return
	}
	k := &container{id: f.ID, log: f.Log, cgroup: f.Cgroup, tty: f.TTY != 0, stdin: f.Stdin != 0, once: f.Once != 0, in: -1, pty: -1, console: -1, logFD: -1}
	k.askers = []asker{{c, f}}
	answer := func(err string) {
		for _, a := range k.askers {
			s.reply(a.conn, a.frame, err, k.pid)
		}
		k.askers = nil
	}
	fail := func(err string) {
		s.discard(k)
		answer(err)
	}
	if err := k.openLog(); err != nil {
		fail("open log " + k.log + ": " + err.Error())
		return
	}
	stdio, console, err := s.plumb(k)
	if err != nil {
		fail("prepare stdio: " + err.Error())
		return
	}
	base := s.dir + "/" + f.ID[:min(len(f.ID), 24)]
	pidFile, logFile := base+".pid", base+".log"
	argv := append([]string{f.Bin, "--root", f.Root, "--log", logFile, "--log-format", "json"}, f.Args...)
	argv = append(argv, "run", "--detach", "--bundle", f.Bundle, "--pid-file", pidFile)
	if k.tty {
		argv = append(argv, "--console-socket", console)
	}
	s.containers[k.id] = k
	s.starting++
	err = s.hidden(f.Hide != 0, func() error {
		return s.spawn(append(argv, k.id), stdio, false, func(e ended) {
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
				delete(s.containers, k.id)
				fail(failure)
				s.settled()
				return
			}
			s.began(k, pid)
			answer("")
			s.wait(pid, func(e ended) { s.containerEnded(k, e) })
			s.settled()
		})
	})
	for i, fd := range stdio {
		if fd > 2 && (i == 0 || fd != stdio[i-1]) {
			unix.Close(fd)
		}
	}
	if err != nil {
		s.starting--
		delete(s.containers, k.id)
		fail("start " + f.Bin + ": " + err.Error())
	}
}

func (s *shim) began(k *container, pid int) {
	k.pid = pid
	k.started = int(time.Now().UnixNano())
	s.writeState(k)
	f := k.fact()
	f.Op = wire.OpState
	s.report(f)
}

// containerEnded notes how a container ended: out-of-memory first, while its cgroup still knows; then what is left of its output;
// then the fact on disk; then the report.
func (s *shim) containerEnded(k *container, e ended) {
	k.code, k.sig = e.code()
	k.ended = int(e.at.UnixNano())
	k.oom = oomKilled(k.cgroup)
	s.killCgroup(k.cgroup)
	s.takeTerminal(k) // a container that is through at once may be heard of before its terminal
	s.drain(k)
	k.exited = true
	s.writeState(k)
	s.report(k.fact())
}

// oomKilled reads whether the kernel killed a process of the memory cgroup for want of memory, on cgroup v2 and v1.
func oomKilled(cgroup string) bool {
	if cgroup == "" {
		return false
	}
	text := readSmall(cgroup + "/memory.events")
	if text == "" {
		text = readSmall(cgroup + "/memory.oom_control")
	}
	for line := range strings.SplitSeq(text, "\n") {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return n != "0"
		}
	}
	return false
}

// killCgroup kills whatever is left in a cgroup: at once on v2, one by one on v1 until none is left or a bound is reached.
func (s *shim) killCgroup(cgroup string) {
	if cgroup == "" {
		return
	}
	if fd, err := unix.Open(cgroup+"/cgroup.kill", unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
		unix.Write(fd, []byte("1"))
		unix.Close(fd)
		return
	}
	for range 20 {
		found := false
		for line := range strings.SplitSeq(readSmall(cgroup+"/cgroup.procs"), "\n") {
			if pid, err := strconv.Atoi(line); err == nil && pid > 0 && unix.Kill(pid, unix.SIGKILL) == nil {
				found = true
			}
		}
		if !found {
			return
		}
	}
}

// discard lets go of everything that the shim holds for a container.
func (s *shim) discard(k *container) {
	for _, st := range []*stream{k.out, k.err} {
		if st != nil {
			s.close(st.fd)
			st.fd = -1
		}
	}
	for len(k.sinks) > 0 {
		s.detach(k, k.sinks[0])
	}
	s.close(k.in)
	s.unawait(k)
	if k.logFD >= 0 {
		unix.Close(k.logFD)
	}
	k.in, k.pty, k.logFD, k.full, k.input = -1, -1, -1, false, nil
}

func (s *shim) kill(id string, sig int) string {
	pid := 0
	if k := s.containers[id]; k != nil && !k.exited {
		pid = k.pid
	} else if x := s.execs[id]; x != nil {
		return text(unix.Kill(x.group(), unix.Signal(sig)))
	}
	if pid <= 0 {
		return "not running"
	}
	// The process is a child that has not been reaped, so its number is still its own.
	return text(unix.Kill(pid, unix.Signal(sig)))
}

func (s *shim) killAll(id string) string {
	k := s.containers[id]
	if k == nil {
		return "not running"
	}
	if !k.exited && k.pid > 0 {
		unix.Kill(k.pid, unix.SIGKILL)
	}
	s.killCgroup(k.cgroup)
	return ""
}

func (s *shim) reopen(id string) string {
	k := s.containers[id]
	if k == nil || k.exited {
		return "not running"
	}
	return text(k.openLog())
}

func (s *shim) resize(id string, width, height int) string {
	k := s.containers[id]
	if k == nil || k.pty < 0 {
		return "no terminal"
	}
	return text(unix.IoctlSetWinsize(k.pty, unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(width), Row: uint16(height)}))
}

func (s *shim) forget(id string) string {
	k := s.containers[id]
	if k == nil {
		return ""
	}
	if !k.exited {
		return "still running"
	}
	s.discard(k)
	delete(s.containers, id)
	unix.Unlink(s.dir + "/c-" + id)
	return ""
}

// shutdown kills the Pod and lets the loop end. What ran is noted as ended by SIGKILL by whoever asked.
func (s *shim) shutdown() {
	for id := range s.containers {
		s.killAll(id)
	}
	if s.pause > 0 {
		unix.Kill(s.pause, unix.SIGKILL)
	}
	s.stopping = true
}
