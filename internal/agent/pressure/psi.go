package pressure

import (
	"errors"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// stall is what the kernel is to tell of: tasks that waited for memory for a tenth of a second within one.
const stall = "some 100000 1000000"

// memoryShort gives a value when tasks wait for memory, by the kernel's pressure stall information. Where a kernel has none of that, it never
// does. stop ends it.
func memoryShort(log *slog.Logger) (short <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	f, err := unix.Open("/proc/pressure/memory", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err == nil {
		if _, err = unix.Write(f, append([]byte(stall), 0)); err != nil {
			unix.Close(f)
		}
	}
	if err != nil {
		log.Debug("the kernel does not tell when memory runs short", "error", err)
		return c, func() {}
	}
	end, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(f)
		log.Warn("listen for a shortage of memory", "error", os.NewSyscallError("eventfd", err))
		return c, func() {}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer unix.Close(f)
		for {
			fds := []unix.PollFd{{Fd: int32(f), Events: unix.POLLPRI}, {Fd: int32(end), Events: unix.POLLIN}}
			if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
			if fds[1].Revents != 0 || fds[0].Revents&unix.POLLERR != 0 {
				return
			}
			if fds[0].Revents&unix.POLLPRI != 0 {
				select {
				case c <- struct{}{}:
				default:
				}
			}
		}
	})
	return c, func() {
		unix.Write(end, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		wg.Wait()
		unix.Close(end)
	}
}
