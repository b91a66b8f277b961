// Command carob-shim holds one Pod: it starts pause, which holds the Pod's namespaces, starts containers through the OCI runtime's
// command line, waits for them, writes their logs, and tells carob what happened. It outlives carob.
//
// One thread runs one epoll loop. Nothing here uses goroutines, net, fmt or os's files: each Pod pays for this program's memory. The
// garbage collector is off; collect runs it once in a while.
//
// Usage: carob-shim <state folder> <socket path> <boot id>, with a connected SEQPACKET socket as descriptor 3. What happened is
// written to the state folder before it is reported.
package main

import (
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/runtime/shim/wire"
)

// shim is the whole state of the process.
type shim struct {
	ep                int
	dir, socket, boot string
	mntns             int
	listener          int
	watch             map[int]func(events uint32)
	conns             map[int]*conn
	procs             map[int]*proc
	early             map[int]ended
	containers        map[string]*container
	execs             map[string]*execution
	pause             int
	pauseNS           []string
	users             users
	packet            []byte
	oob               []byte
	out               []byte
	chunk             []byte
	entries           []byte
	spent             int
	starting          int
	stopping          bool
}

func main() {
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	if len(os.Args) != 4 {
		die("usage: carob-shim <state folder> <socket path> <boot id>", nil)
	}
	s := &shim{dir: os.Args[1], socket: os.Args[2], boot: os.Args[3],
		watch: map[int]func(uint32){}, conns: map[int]*conn{}, procs: map[int]*proc{}, early: map[int]ended{},
		containers: map[string]*container{}, execs: map[string]*execution{},
		packet: make([]byte, wire.MaxFrame), oob: make([]byte, 64), out: make([]byte, 0, 4096), chunk: make([]byte, 16<<10)}
	if err := s.open(); err != nil {
		die("start", err)
	}
	s.loop()
}

func (s *shim) open() (err error) {
	// What an absent-minded ancestor left open must not reach containers.
	unix.CloseRange(4, 1<<31, unix.CLOSE_RANGE_CLOEXEC)
	if err = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	// A thread may change its mount namespace only if it shares no root and working folder with others.
	if err = unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	if s.mntns, err = unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	if s.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if s.listener, err = unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return err
	}
	unix.Unlink(s.socket)
	if err = unix.Bind(s.listener, &unix.SockaddrUnix{Name: s.socket}); err != nil {
		return err
	}
	if err = unix.Listen(s.listener, 16); err != nil {
		return err
	}
	s.add(s.listener, unix.EPOLLIN, func(uint32) { s.accept() })
	unix.CloseOnExec(3)
	unix.SetNonblock(3, true)
	s.connect(3)
	return nil
}

// loop waits and acts until the shim is told to end. SIGCHLD interrupts the wait, and each child that matters has a descriptor.
func (s *shim) loop() {
	events := make([]unix.EpollEvent, 32)
	for !s.stopping {
		n, err := unix.EpollWait(s.ep, events, -1)
		if err != nil && err != unix.EINTR {
			die("epoll_wait", err)
		}
		for i := 0; i < n; i++ {
			if f := s.watch[int(events[i].Fd)]; f != nil {
				f(events[i].Events)
			}
		}
		s.reap()
		s.collect()
	}
	unix.Unlink(s.socket)
}

// collect runs the garbage collector after about a megabyte of garbage.
func (s *shim) collect() {
	if s.spent > 1<<20 {
		s.spent = 0
		runtime.GC()
	}
}

func (s *shim) add(fd int, events uint32, f func(uint32)) {
	s.watch[fd] = f
	ev := unix.EpollEvent{Events: events, Fd: int32(fd)}
	if unix.EpollCtl(s.ep, unix.EPOLL_CTL_ADD, fd, &ev) == unix.EEXIST {
		unix.EpollCtl(s.ep, unix.EPOLL_CTL_MOD, fd, &ev)
	}
}

// hush stops watching a descriptor without closing it.
func (s *shim) hush(fd int) {
	delete(s.watch, fd)
	unix.EpollCtl(s.ep, unix.EPOLL_CTL_DEL, fd, nil)
}

func (s *shim) close(fd int) {
	if fd >= 0 {
		s.hush(fd)
		unix.Close(fd)
	}
}

func die(what string, err error) {
	msg := "carob-shim: " + what
	if err != nil {
		msg += ": " + err.Error()
	}
	unix.Write(2, []byte(msg+"\n"))
	unix.Exit(1)
}
