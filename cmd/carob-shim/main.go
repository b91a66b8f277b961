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
	"unsafe"

	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/runtime/shim/wire"
)

// shim is the whole state of the process.
type shim struct {
	ep                int
	dir, socket, boot string
	mntns             int
	listener          int
	watch             map[int]watcher
	watched           int32
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
	head              []byte
	spent             int
	starting          int
	stopping          bool
}

// watcher is who is told of a descriptor's events, and the number that those carry.
type watcher struct {
	f      func(events uint32)
	number int32
}

func main() {
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	if len(os.Args) != 4 {
		die("usage: carob-shim <state folder> <socket path> <boot id>", nil)
	}
	s := &shim{dir: os.Args[1], socket: os.Args[2], boot: os.Args[3],
		watch: map[int]watcher{}, conns: map[int]*conn{}, procs: map[int]*proc{}, early: map[int]ended{},
		containers: map[string]*container{}, execs: map[string]*execution{},
		packet: make([]byte, wire.MaxFrame), oob: make([]byte, 64), out: make([]byte, 0, 4096), chunk: make([]byte, 16<<10)}
	if err := s.open(); err != nil {
		die("start", err)
	}
	s.loop()
}

func (s *shim) open() (err error) {
	ignoreSignals()
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

// ignoreSignals has the shim end by request or SIGKILL only: with it ends the Pod, and pkill carob means carob. The Go runtime is not told:
// it goes on to give children the default.
func ignoreSignals() {
	ignore := [4]uintptr{1} // struct sigaction: SIG_IGN, no flags
	for _, sig := range []uintptr{uintptr(unix.SIGTERM), uintptr(unix.SIGINT), uintptr(unix.SIGHUP)} {
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&ignore)), 0, 8, 0, 0)
	}
}

// loop waits and acts until the shim is told to end. SIGCHLD interrupts the wait, and each child that matters has a descriptor. An orphan may
// end just before the wait begins, so the first one after something happened is short.
func (s *shim) loop() {
	events := make([]unix.EpollEvent, 32)
	timeout := -1
	for !s.stopping {
		n, err := unix.EpollWait(s.ep, events, timeout)
		if err != nil && err != unix.EINTR {
			die("epoll_wait", err)
		}
		if timeout = 500; n == 0 && err == nil {
			timeout = -1
		}
		for i := 0; i < n; i++ {
			// A descriptor may have been closed since, and its number been given to another.
			if w, ok := s.watch[int(events[i].Fd)]; ok && w.number == events[i].Pad {
				w.f(events[i].Events)
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
	s.watched++
	s.watch[fd] = watcher{f, s.watched}
	ev := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: s.watched}
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
