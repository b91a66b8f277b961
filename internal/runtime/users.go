package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/runtime/oci"
	"carob.dev/carob/internal/sys"
)

// checkUsers checks the user namespace that a Pod asks for: one range of IDs for users and one for groups, root among them, and none of the
// machine's namespaces that belong to the machine's root.
func checkUsers(opt *runtimeapi.NamespaceOption) error {
	u := opt.GetUsernsOptions()
	switch {
	case u == nil:
		return nil
	case u.GetMode() == runtimeapi.NamespaceMode_NODE:
		if len(u.GetUids())+len(u.GetGids()) > 0 {
			return errors.New("userns_options: mappings in mode NODE")
		}
		return nil
	case u.GetMode() != runtimeapi.NamespaceMode_POD:
		return fmt.Errorf("userns_options: mode %v is not supported", u.GetMode())
	case !sys.CanIDMap():
		return errors.New("userns_options: this kernel has no user namespaces, or no mounts that are seen through them")
	case opt.GetNetwork() == runtimeapi.NamespaceMode_NODE, opt.GetPid() == runtimeapi.NamespaceMode_NODE, opt.GetIpc() == runtimeapi.NamespaceMode_NODE:
		return errors.New("userns_options: a user namespace of the Pod's own goes with none of the machine's network, pid and ipc")
	}
	for name, list := range map[string][]*runtimeapi.IDMapping{"uids": u.GetUids(), "gids": u.GetGids()} {
		if len(list) != 1 {
			return fmt.Errorf("userns_options: %s: one range is needed, there are %d", name, len(list))
		}
		m := list[0]
		switch {
		case m.GetLength() == 0:
			return fmt.Errorf("userns_options: %s: the range is empty", name)
		case m.GetContainerId() != 0:
			return fmt.Errorf("userns_options: %s: 0 is not in the range", name)
		case uint64(m.GetHostId())+uint64(m.GetLength()) > 1<<32-1:
			return fmt.Errorf("userns_options: %s: the range goes beyond the last ID", name)
		}
	}
	return nil
}

// shimUsers are the shim's arguments for the Pod's own user namespace.
func shimUsers(opt *runtimeapi.NamespaceOption) []string {
	u := oci.Users(opt)
	if u == nil {
		return nil
	}
	arg := func(name string, m *runtimeapi.IDMapping) string {
		return fmt.Sprintf("%s=%d:%d:%d", name, m.GetContainerId(), m.GetHostId(), m.GetLength())
	}
	return []string{arg("uids", u.GetUids()[0]), arg("gids", u.GetGids()[0])}
}

// giveToUsers gives the sandbox's files to root of the Pod's own user namespace, if it has one.
func (r *Runtime) giveToUsers(rec *sandboxRecord) error {
	u := oci.Users(rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions())
	if u == nil {
		return nil
	}
	dir := r.cfg.sandboxDir(rec.ID)
	for _, p := range []string{filepath.Join(dir, "hostname"), filepath.Join(dir, "hosts"), filepath.Join(dir, "resolv.conf")} {
		if err := giveToRoot(p, u); err != nil {
			return err
		}
	}
	return nil
}

func giveToRoot(path string, u *runtimeapi.UserNamespace) error {
	return os.Chown(path, int(u.GetUids()[0].GetHostId()), int(u.GetGids()[0].GetHostId()))
}

// givePipes gives a command's stdio to root of the container's user namespace, whose processes may open it anew as /dev/stdout.
func givePipes(c *container, stdio []int) {
	u := oci.Users(c.rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions())
	if u == nil {
		return
	}
	for _, fd := range stdio {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
			unix.Fchown(fd, int(u.GetUids()[0].GetHostId()), int(u.GetGids()[0].GetHostId())) // without it the pipe still works as it is
		}
	}
}

// asRoot makes the calling thread, which must be thrown away afterwards, root of the Pod's own user namespace: the kernel lets nobody else
// change what belongs to that.
func asRoot(rec *sandboxRecord) error {
	u := oci.Users(rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions())
	if u == nil {
		return nil
	}
	uid, gid := uintptr(u.GetUids()[0].GetHostId()), uintptr(u.GetGids()[0].GetHostId())
	if _, _, err := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); err != 0 { // the group first: root may change it
		return err
	}
	if _, _, err := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); err != 0 {
		return err
	}
	return nil
}

func sameIDs(a, b []*runtimeapi.IDMapping) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !proto.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// sameUsers says whether a container is in the Pod's user namespace.
func sameUsers(pod, container *runtimeapi.NamespaceOption) bool {
	a, b := oci.Users(pod), oci.Users(container)
	return (a == nil) == (b == nil) && sameIDs(a.GetUids(), b.GetUids()) && sameIDs(a.GetGids(), b.GetGids())
}
