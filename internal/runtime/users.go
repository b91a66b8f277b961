package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/runtime/image"
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

// giveToUsers gives the sandbox's files and its /dev/shm to root of the Pod's own user namespace, if it has one.
func (r *Runtime) giveToUsers(rec *sandboxRecord) error {
	u := oci.Users(rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions())
	if u == nil {
		return nil
	}
	dir := r.cfg.sandboxDir(rec.ID)
	for _, p := range []string{filepath.Join(dir, "hostname"), filepath.Join(dir, "hosts"), filepath.Join(dir, "resolv.conf"), r.cfg.shmDir(rec.ID)} {
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

// mountRoot mounts the container's root. In a user namespace of the Pod's own what the container writes is the namespace's.
func (r *Runtime) mountRoot(c *container, img *image.Image, rootfs string) error {
	dir := r.cfg.containerDir(c.rec.ID)
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	if users := oci.Users(c.rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()); users != nil {
		if err := giveToRoot(upper, users); err != nil {
			return err
		}
	}
	return r.withLayers(c, img, func(layers []string) error { return sys.MountOverlay(rootfs, layers, upper, work) })
}

// withLayers calls mount with the image's layers, topmost first, as the container sees them: in a user namespace of the Pod's own, through
// that.
func (r *Runtime) withLayers(c *container, img *image.Image, mount func(layers []string) error) error {
	if oci.Users(c.rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()) == nil {
		return mount(slices.Clone(img.Layers))
	}
	mapped := filepath.Join(r.cfg.containerDir(c.rec.ID), "layers")
	if err := os.MkdirAll(mapped, 0o700); err != nil {
		return err
	}
	base := filepath.Dir(img.Layers[0])
	for _, l := range img.Layers {
		for base != "/" && !strings.HasPrefix(l, base+"/") {
			base = filepath.Dir(base)
		}
	}
	if err := sys.MountIDMapped(base, mapped, c.sb.rec.PausePID, sys.NoSubmounts); err != nil {
		return err
	}
	layers := make([]string, len(img.Layers))
	for i, l := range img.Layers {
		layers[i] = filepath.Join(mapped, strings.TrimPrefix(l, base))
	}
	return errors.Join(mount(layers), sys.Unmount(mapped)) // the overlay has copies
}

// mapMounts mounts each source whose owners are to be seen through the Pod's user namespace within the container's folder, and returns the
// configuration with those mounts in place of the sources. It does so itself, for OCI runtimes differ in what they can. The mounts are
// needed until the container has started.
func (r *Runtime) mapMounts(c *container) (*runtimeapi.ContainerConfig, error) {
	users := oci.Users(c.rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions())
	var config *runtimeapi.ContainerConfig
	for i, m := range c.rec.Config.GetMounts() {
		if len(m.GetUidMappings())+len(m.GetGidMappings()) == 0 || m.GetImage().GetImage() != "" {
			continue
		}
		if !sameIDs(m.GetUidMappings(), users.GetUids()) || !sameIDs(m.GetGidMappings(), users.GetGids()) {
			return nil, status.Errorf(codes.InvalidArgument, "mount %s: the mappings are not those of the Pod's user namespace", m.GetContainerPath())
		}
		if config == nil {
			config = proto.CloneOf(c.rec.Config)
		}
		target := filepath.Join(r.cfg.containerDir(c.rec.ID), fmt.Sprintf("mapped-%d", i))
		if err := makeLike(target, m.GetHostPath()); err != nil {
			return nil, err
		}
		below := sys.CopySubmounts
		if m.GetPropagation() != runtimeapi.MountPropagation_PROPAGATION_PRIVATE {
			below = sys.FollowSubmounts
		}
		if err := sys.MountIDMapped(m.GetHostPath(), target, c.sb.rec.PausePID, below); err != nil {
			return nil, err
		}
		own := config.Mounts[i]
		own.HostPath, own.UidMappings, own.GidMappings = target, nil, nil
	}
	if config == nil {
		return c.rec.Config, nil
	}
	return config, nil
}

// makeLike makes an empty folder if path is one, else an empty file.
func makeLike(target, path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.IsDir() {
		return os.Mkdir(target, 0o711)
	}
	return os.WriteFile(target, nil, 0o600)
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

// unmountIn unmounts whatever is mounted on the entries of a container's folder.
func unmountIn(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := sys.Unmount(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// unmapMounts removes the mounts of mapMounts.
func (r *Runtime) unmapMounts(c *container) error {
	if oci.Users(c.rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()) == nil {
		return nil
	}
	mounted, err := filepath.Glob(filepath.Join(r.cfg.containerDir(c.rec.ID), "mapped-*"))
	for _, m := range mounted {
		err = errors.Join(err, sys.Unmount(m), os.Remove(m))
	}
	return err
}
