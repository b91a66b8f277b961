package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/runtime/image"
	"carob.dev/carob/internal/runtime/oci"
	"carob.dev/carob/internal/sys"
)

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
	if err := sys.MountCopy(base, mapped, sys.NoSubmounts, c.sb.rec.PausePID); err != nil {
		return err
	}
	layers := make([]string, len(img.Layers))
	for i, l := range img.Layers {
		layers[i] = filepath.Join(mapped, strings.TrimPrefix(l, base))
	}
	return errors.Join(mount(layers), sys.Unmount(mapped)) // the overlay has copies
}

// reach mounts all that a container in a user namespace of the Pod's own is made of where the namespace's root gets to, who is nobody on the
// machine, and says so in the input. The owners of mounts that ask for it are seen through the namespace. All this is done here, and not left
// to the OCI runtime, for runtimes differ in what they can. The mounts are needed until the container has started.
func (r *Runtime) reach(c *container, in *oci.Input) error {
	users := oci.Users(c.rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions())
	for _, m := range in.Container.GetMounts() {
		if mapped(m) && (!sameIDs(m.GetUidMappings(), users.GetUids()) || !sameIDs(m.GetGidMappings(), users.GetGids())) {
			return status.Errorf(codes.InvalidArgument, "mount %s: the mappings are not those of the Pod's user namespace", m.GetContainerPath())
		}
	}
	if users == nil {
		return nil
	}
	dir := r.cfg.reachDir(c.rec.ID)
	if err := os.Mkdir(dir, 0o710); err != nil {
		return err
	}
	if err := os.Chown(dir, 0, int(users.GetGids()[0].GetHostId())); err != nil { // volumes are no other users' business
		return err
	}
	n := 0
	bring := func(path *string, below sys.Submounts, users int) error {
		target := filepath.Join(dir, strconv.Itoa(n))
		n++
		if err := makeLike(target, *path); err != nil {
			return err
		}
		if err := sys.MountCopy(*path, target, below, users); err != nil {
			return err
		}
		*path = target
		return nil
	}
	for _, path := range []*string{&in.Rootfs, &in.Hostname, &in.Hosts, &in.Resolv, &in.Shm} {
		if *path == "" {
			continue
		}
		if err := bring(path, sys.NoSubmounts, 0); err != nil {
			return err
		}
	}
	in.Container = proto.CloneOf(in.Container)
	var all []*runtimeapi.Mount
	for _, m := range in.Container.GetMounts() {
		below, through := sys.CopySubmounts, 0
		if m.GetPropagation() != runtimeapi.MountPropagation_PROPAGATION_PRIVATE {
			below = sys.FollowSubmounts
		}
		if mapped(m) {
			through = c.sb.rec.PausePID
		}
		if err := bring(&m.HostPath, below, through); err != nil {
			return err
		}
		m.UidMappings, m.GidMappings = nil, nil
		inner, err := submounts(m)
		if err != nil {
			return err
		}
		all = append(append(all, m), inner...)
	}
	in.Container.Mounts = all
	return nil
}

// submounts are the mounts below the source of m as mounts of their own: crun leaves them out in a user namespace.
func submounts(m *runtimeapi.Mount) ([]*runtimeapi.Mount, error) {
	below, err := sys.MountsBelow(m.GetHostPath())
	if err != nil {
		return nil, err
	}
	var list []*runtimeapi.Mount
	for _, path := range below {
		inner := proto.CloneOf(m)
		inner.HostPath, inner.ContainerPath = path, filepath.Join(m.GetContainerPath(), strings.TrimPrefix(path, m.GetHostPath()))
		list = append(list, inner)
	}
	return list, nil
}

func mapped(m *runtimeapi.Mount) bool { return len(m.GetUidMappings())+len(m.GetGidMappings()) > 0 }

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

// unreach takes away all that reach made for a container.
func (r *Runtime) unreach(id string) error {
	dir := r.cfg.reachDir(id)
	if err := unmountIn(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, remove(filepath.Join(dir, e.Name()))) // nothing that is not empty: below a mount are others' files
	}
	return errors.Join(err, remove(dir))
}
