package sys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// OOMWatch hears of processes that the kernel kills for want of memory in the cgroups it is told to watch: by inotify on v2, by an eventfd for
// each cgroup on v1. It costs nothing while nothing happens.
type OOMWatch struct {
	layout            Cgroups
	epoll, stop, note int // note is the inotify descriptor; -1 on v1

	mu      sync.Mutex // guards watched
	watched map[string]*oomWatched
}

type oomWatched struct {
	dir string
	// fd is the eventfd on v1, the watch of note on v2.
	fd    int
	kills uint64
	// looks are how often the count is still to be looked at: v1 tells before the kernel has killed.
	looks int
}

// NewOOMWatch returns a watch of nothing yet. Close ends it.
func NewOOMWatch() (*OOMWatch, error) {
	layout, err := CgroupLayout()
	if err != nil {
		return nil, err
	}
	w := &OOMWatch{layout: layout, note: -1, watched: map[string]*oomWatched{}}
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("watch memory: %w", err)
	}
	if w.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(w.epoll)
		return nil, fmt.Errorf("watch memory: %w", err)
	}
	fds := []int{w.stop}
	if layout.Unified {
		if w.note, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
			return nil, errors.Join(fmt.Errorf("watch memory: %w", err), unix.Close(w.epoll), unix.Close(w.stop))
		}
		fds = append(fds, w.note)
	}
	for _, fd := range fds {
		err = errors.Join(err, unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}))
	}
	return w, err
}

// Add watches a cgroup under a name of the caller's, and says how many processes were killed there already. A name that is watched already is left as
// it is.
func (w *OOMWatch) Add(name, cgroup string) (kills uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	dir := w.layout.Folder("memory", cgroup)
	if w.watched[name] != nil || dir == "" {
		return 0, nil
	}
	x := &oomWatched{dir: dir}
	if w.note >= 0 {
		x.fd, err = unix.InotifyAddWatch(w.note, filepath.Join(dir, "memory.events"), unix.IN_MODIFY)
	} else {
		x.fd, err = w.eventfd(dir)
	}
	if err != nil {
		return 0, fmt.Errorf("watch the memory of cgroup %s: %w", cgroup, err)
	}
	x.kills, _ = w.kills(dir)
	w.watched[name] = x
	return x.kills, nil
}

// eventfd asks v1 to tell of the cgroup.
func (w *OOMWatch) eventfd(dir string) (int, error) {
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		return -1, err
	}
	defer control.Close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, err
	}
	err = os.WriteFile(filepath.Join(dir, "cgroup.event_control"), fmt.Appendf(nil, "%d %d", fd, control.Fd()), 0)
	if err == nil {
		err = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// kills is how many processes of a cgroup were killed so far.
func (w *OOMWatch) kills(dir string) (uint64, error) {
	file := "memory.oom_control"
	if w.layout.Unified {
		file = "memory.events"
	}
	raw, err := os.ReadFile(filepath.Join(dir, file))
	return flatKeyed(string(raw))["oom_kill"], err
}

// Remove ends the watch of a name.
func (w *OOMWatch) Remove(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.watched[name]
	if x == nil {
		return
	}
	delete(w.watched, name)
	if w.note >= 0 {
		unix.InotifyRmWatch(w.note, uint32(x.fd)) // a cgroup that is gone has lost its watch
		return
	}
	unix.Close(x.fd) // epoll forgets it
}

// Close ends Run.
func (w *OOMWatch) Close() {
	unix.Write(w.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// Run calls killed for each name whenever a process in its cgroup was killed, until Close.
func (w *OOMWatch) Run(killed func(name string)) {
	const again = 100 * time.Millisecond
	defer func() {
		for _, fd := range []int{w.epoll, w.stop, w.note} {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}()
	events := make([]unix.EpollEvent, 16)
	wait := -1
	for {
		n, err := unix.EpollWait(w.epoll, events, wait)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		heard := map[int]bool{}
		for _, ev := range events[:max(n, 0)] {
			switch fd := int(ev.Fd); fd {
			case w.stop:
				return
			case w.note:
				w.readNotes(heard)
			default:
				var b [8]byte
				unix.Read(fd, b[:])
				heard[fd] = true
			}
		}
		names, more := w.look(heard)
		for _, name := range names {
			killed(name)
		}
		wait = -1
		if more {
			wait = int(again / time.Millisecond)
		}
	}
}

// readNotes collects the inotify watches that were heard of.
func (w *OOMWatch) readNotes(heard map[int]bool) {
	var b [4096]byte
	for {
		n, err := unix.Read(w.note, b[:])
		if err != nil || n <= 0 {
			return
		}
		const head = int(unsafe.Sizeof(unix.InotifyEvent{}))
		for at := 0; at+head <= n; {
			heard[int(int32(binary.NativeEndian.Uint32(b[at:])))] = true
			at += head + int(binary.NativeEndian.Uint32(b[at+12:]))
		}
	}
}

// look names the cgroups where more was killed than before. more says that some are to be looked at again.
func (w *OOMWatch) look(heard map[int]bool) (names []string, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, x := range w.watched {
		if heard[x.fd] {
			x.looks = 10
		}
		if x.looks == 0 {
			continue
		}
		x.looks--
		if n, err := w.kills(x.dir); err == nil && n > x.kills {
			x.kills, x.looks = n, 0
			names = append(names, name)
		}
		more = more || x.looks > 0
	}
	return names, more
}
