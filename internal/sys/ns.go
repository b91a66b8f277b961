package sys

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// InNamespaces runs f on a thread that has entered the given namespaces (of kinds net, ipc, uts, cgroup) of a process, and discards
// the thread. f must not start goroutines that need the namespaces.
func InNamespaces(pid int, kinds []string, f func() error) error {
	return onNewThread(func() error {
		for _, kind := range kinds {
			if err := enter(fmt.Sprintf("/proc/%d/ns/%s", pid, kind)); err != nil {
				return err
			}
		}
		return f()
	})
}

// onNewThread runs f on a thread that ends afterwards, and what f changed of it with it. The process's first thread is never used:
// it cannot end, and what /proc/self shows is its.
func onNewThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onNewThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f() // never unlocked: the thread ends with the goroutine
	}()
	return <-done
}

func enter(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, 0); err != nil {
		return fmt.Errorf("enter namespace %s: %w", path, err)
	}
	return nil
}

// BootID is the kernel's identity of this boot.
func BootID() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	if len(raw) < 36 {
		return "", fmt.Errorf("boot id %q is too short", raw)
	}
	return string(raw[:36]), nil
}

// InNewNetwork runs f on a thread with a network namespace of its own, which nothing is in, and discards both.
// f must not start goroutines that need the namespace.
func InNewNetwork(f func() error) error {
	return onNewThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		return f()
	})
}
