package main

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/runtime/shim/pause"
	"carob.dev/carob/internal/runtime/shim/wire"
)

// nobody is the user that pause runs as.
const nobody = 65535

var namespaceFlags = map[string]uintptr{"net": unix.CLONE_NEWNET, "ipc": unix.CLONE_NEWIPC, "uts": unix.CLONE_NEWUTS, "pid": unix.CLONE_NEWPID}

// startPause starts the process that holds the Pod's namespaces, in an empty root of its own: who can see /proc/<pause>/root sees
// nothing of the host. Pause dies with the shim.
func (s *shim) startPause(namespaces []string) error {
	if s.pause > 0 {
		return nil
	}
	var flags uintptr
	for _, ns := range namespaces {
		f, ok := namespaceFlags[ns]
		if !ok {
			return errors.New("unknown namespace " + ns)
		}
		flags |= f
	}
	err := s.aside(func() error {
		if err := emptyRoot(s.dir); err != nil {
			return err
		}
		pid, err := syscall.ForkExec("/pause", []string{"pause"}, &syscall.ProcAttr{Dir: "/", Env: []string{}, Files: []uintptr{^uintptr(0), ^uintptr(0), ^uintptr(0)},
			Sys: &syscall.SysProcAttr{Cloneflags: flags, Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: unix.SIGKILL}})
		if err != nil {
			return err
		}
		s.pause = pid
		unix.Unlink("/pause")
		unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
		return nil
	})
	if err != nil {
		return err
	}
	s.pauseNS = namespaces
	writeFact(s.dir+"/pause", (&wire.Frame{Op: wire.OpPause, Boot: s.boot, Pid: s.pause}).Append(nil))
	s.wait(s.pause, func(e ended) {
		code, sig := e.code()
		s.pause = -1
		f := wire.Frame{Op: wire.OpPause, Boot: s.boot, Code: code, Sig: sig, Exited: 1, Ended: int(e.at.UnixNano())}
		writeFact(s.dir+"/pause", f.Append(nil))
		s.report(f)
	})
	return nil
}

// aside runs f in a copy of the shim's mount namespace, which children that f starts keep, and comes back.
func (s *shim) aside(f func() error) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	err := f()
	if back := unix.Setns(s.mntns, unix.CLONE_NEWNS); back != nil {
		die("return to the mount namespace", back)
	}
	return err
}

// emptyRoot makes a tmpfs with nothing but the pause program the root of this mount namespace and lets go of everything else.
func emptyRoot(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Mount("pause", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64k,nr_inodes=8,mode=755"); err != nil {
		return err
	}
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	fd, err := unix.Open("pause", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o755)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, pause.ELF())
	unix.Close(fd)
	if err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// hidden runs f where /sys/fs/cgroup/unified cannot be seen: crun refuses machines that have both cgroup versions. Only that one mount
// is made private, so that mounts of volumes still reach the container and come from it.
func (s *shim) hidden(hide bool, f func() error) error {
	if !hide {
		return f()
	}
	return s.aside(func() error {
		if err := unix.Mount("", "/sys/fs/cgroup", "", unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH); err != nil {
			return err
		}
		return f()
	})
}
