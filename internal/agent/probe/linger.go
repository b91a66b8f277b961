package probe

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// shortLinger lets a closed connection go after a second at most.
func shortLinger(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// Without it a probe still works, it only leaves the port busy for a minute.
		_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 1})
	})
}
