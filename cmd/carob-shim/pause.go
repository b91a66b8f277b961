package main

import (
	"errors"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/runtime/shim/pause"
	"carob.dev/carob/internal/runtime/shim/wire"
)

// nobody is the user that pause runs as.
const nobody = 65535

// users is the Pod's own user namespace: which IDs of the machine it has. Without one both are empty.
type users struct{ uids, gids []syscall.SysProcIDMap }

// parse takes one of the arguments uids=<first inside>:<first outside>:<length> and gids=…; false if it is another.
func (u *users) parse(arg string) (bool, error) {
	kind, ids, ok := strings.Cut(arg, "=")
	if !ok {
		return false, nil
	}
	var n [3]int
	for i := range n {
		part, rest, _ := strings.Cut(ids, ":")
		v, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return false, errors.New("bad range of IDs " + arg)
		}
		n[i], ids = int(v), rest
	}
	m := []syscall.SysProcIDMap{{ContainerID: n[0], HostID: n[1], Size: n[2]}}
	switch kind {
	case "uids":
		u.uids = m
	case "gids":
		u.gids = m
	default:
		return false, errors.New("unknown argument " + arg)
	}
	return true, nil
}

// who is the user of pause: nobody, or root where the Pod's user namespace has no such ID.
func (u *users) who() *syscall.Credential {
	id := uint32(nobody)
	for _, m := range [][]syscall.SysProcIDMap{u.uids, u.gids} {
		if len(m) > 0 && (m[0].ContainerID > nobody || m[0].ContainerID+m[0].Size <= nobody) {
			id = uint32(m[0].ContainerID)
		}
	}
	return &syscall.Credential{Uid: id, Gid: id}
}

// own gives a pipe to root of the Pod's user namespace, whose processes may open it anew as /dev/stdout.
func (u *users) own(fd int) {
	if len(u.uids) > 0 && len(u.gids) > 0 {
		unix.Fchown(fd, u.uids[0].HostID, u.gids[0].HostID)
	}
}

var namespaceFlags = map[string]uintptr{"net": unix.CLONE_NEWNET, "ipc": unix.CLONE_NEWIPC, "uts": unix.CLONE_NEWUTS, "pid": unix.CLONE_NEWPID}

// startPause starts the process that holds the Pod's namespaces, in an empty root of its own: who can see /proc/<pause>/root sees
// nothing of the host. Pause dies with the shim.
func (s *shim) startPause(namespaces []string) error {
	if s.pause > 0 {
		return nil
	}
	var flags uintptr
	s.users = users{}
	for _, ns := range namespaces {
		if ids, err := s.users.parse(ns); err != nil {
			return err
		} else if ids {
			flags |= unix.CLONE_NEWUSER
			continue
		}
		f, ok := namespaceFlags[ns]
		if !ok {
			return errors.New("unknown namespace " + ns)
		}
		flags |= f
	}
	dir := s.dir
	if flags&unix.CLONE_NEWUSER == 0 && enterEmpty() {
		dir = "/" + emptyPlace
		defer s.comeBack()
	}
	err := s.aside(func() error {
		if err := emptyRoot(dir, flags&unix.CLONE_NEWUSER != 0); err != nil {
			return err
		}
		sys := &syscall.SysProcAttr{Cloneflags: flags, Credential: s.users.who(), Pdeathsig: unix.SIGKILL,
			UidMappings: s.users.uids, GidMappings: s.users.gids, GidMappingsEnableSetgroups: true}
		pid, err := syscall.ForkExec("/pause", []string{"pause"},
			&syscall.ProcAttr{Dir: "/", Env: []string{}, Files: []uintptr{^uintptr(0), ^uintptr(0), ^uintptr(0)}, Sys: sys})
		unix.Unmount("/proc", unix.MNT_DETACH)
		unix.Rmdir("/proc")
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
	s.comeBack()
	return err
}

func (s *shim) comeBack() {
	if err := unix.Setns(s.mntns, unix.CLONE_NEWNS); err != nil {
		die("return to the mount namespace", err)
	}
}

// emptyNS is the descriptor of a mount namespace with nothing in it but a folder, emptyPlace, that carob gives its shims: to copy that is
// quick however much the machine has mounted. emptyEnv says that it is there.
const (
	emptyNS    = 4
	emptyPlace = "p"
	emptyEnv   = "CAROB_EMPTY_NS"
)

// enterEmpty enters that namespace, if it was given.
func enterEmpty() bool {
	if v, _ := syscall.Getenv(emptyEnv); v == "" {
		return false
	}
	defer unix.Close(emptyNS)
	return unix.Setns(emptyNS, unix.CLONE_NEWNS) == nil
}

// emptyRoot makes a tmpfs with nothing but the pause program the root of this mount namespace and lets go of everything else but, if it is
// asked for, /proc, through which IDs are mapped.
func emptyRoot(dir string, proc bool) error {
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
	if proc {
		if err := unix.Mkdir("proc", 0o755); err != nil {
			return err
		}
		if err := unix.Mount("/proc", "proc", "", unix.MS_BIND, ""); err != nil {
			return err
		}
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
