package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"carob.dev/carob/internal/agent/volume/mountpoint"
)

// beneath is how paths in a volume are looked up: containers may have put any symbolic link there.
var beneath = unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}

// Resolve returns the file or folder on the node to mount for one volumeMount of a container: the volume itself, or its subPath,
// which is made as a folder when it is missing. A subPath is bound to a place of its own below the Pod, so that what is mounted is
// what was checked. mount.SubPath must be expanded already; SubPathExpr is ignored. Setup must have succeeded. Repeating it gives
// the same path, bound anew if the subPath is another file by now.
func (v *Volumes) Resolve(ctx context.Context, pod *corev1.Pod, container string, mount corev1.VolumeMount) (hostPath string, err error) {
	state := v.lock(pod.UID)
	defer state.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return "", err
	}
	m, ok := state.mounted[mount.Name]
	if !ok || m.Path == "" {
		return "", fmt.Errorf("volume %q is not in the Pod, or not mounted", mount.Name)
	}
	root := m.Path
	if mount.SubPath == "" {
		return root, nil
	}
	if path.IsAbs(mount.SubPath) {
		return "", fmt.Errorf("error SubPath `%s` must not be an absolute path", mount.SubPath)
	}
	if slices.Contains(strings.Split(mount.SubPath, "/"), "..") {
		return "", fmt.Errorf("unable to provision SubPath `%s`: must not contain '..'", mount.SubPath)
	}
	sub, err := openSubPath(root, path.Clean(mount.SubPath))
	if err != nil {
		return "", fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", mount.Name, container, err)
	}
	defer sub.Close()
	target, err := v.subPathTarget(pod, container, mount)
	if err != nil {
		return "", err
	}
	if err := bind(sub, target); err != nil {
		return "", fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", mount.Name, container, err)
	}
	return target, nil
}

// subPathTarget is where the subPath of one volumeMount is bound: volume-subpaths/<volume>/<container>/<number of the mount>.
func (v *Volumes) subPathTarget(pod *corev1.Pod, container string, mount corev1.VolumeMount) (string, error) {
	dir, err := v.podDir(pod.UID)
	if err != nil {
		return "", err
	}
	if dir, err = join(filepath.Join(dir, "volume-subpaths"), mount.Name); err != nil {
		return "", err
	}
	if dir, err = join(dir, container); err != nil {
		return "", err
	}
	return filepath.Join(dir, strconv.Itoa(mountIndex(pod, container, mount))), nil
}

func mountIndex(pod *corev1.Pod, container string, mount corev1.VolumeMount) int {
	same := func(m corev1.VolumeMount) bool { return m.Name == mount.Name && m.MountPath == mount.MountPath }
	for _, c := range allContainers(pod) {
		if c.name == container {
			return slices.IndexFunc(c.mounts, same)
		}
	}
	return -1
}

type containerMounts struct {
	name    string
	mounts  []corev1.VolumeMount
	devices []corev1.VolumeDevice
}

func allContainers(pod *corev1.Pod) []containerMounts {
	var out []containerMounts
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			out = append(out, containerMounts{c.Name, c.VolumeMounts, c.VolumeDevices})
		}
	}
	for _, c := range pod.Spec.EphemeralContainers {
		out = append(out, containerMounts{c.Name, c.VolumeMounts, c.VolumeDevices})
	}
	return out
}

// openSubPath opens sub below root without leaving root by any link, and makes the folders that are missing, with the mode of root.
func openSubPath(root, sub string) (*os.File, error) {
	base, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open volume: %w", err)
	}
	defer unix.Close(base)
	fd, err := openBeneath(base, sub)
	if errors.Is(err, unix.ENOENT) {
		if err = makeBeneath(base, sub); err == nil {
			fd, err = openBeneath(base, sub)
		}
	}
	if errors.Is(err, unix.EXDEV) {
		return nil, fmt.Errorf("subpath %q not within volume path %q", sub, root)
	}
	if err != nil {
		return nil, fmt.Errorf("error opening subpath %v: %w", sub, err)
	}
	return os.NewFile(uintptr(fd), filepath.Join(root, sub)), nil
}

func openBeneath(base int, sub string) (int, error) {
	for {
		fd, err := unix.Openat2(base, sub, &beneath)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) { // EAGAIN: something was renamed meanwhile
			return fd, err
		}
	}
}

func makeBeneath(base int, sub string) error {
	var st unix.Stat_t
	if err := unix.Fstat(base, &st); err != nil {
		return err
	}
	parts := strings.Split(sub, "/")
	for i := range parts {
		fd, err := openBeneath(base, path.Join(parts[:i+1]...))
		if err == nil {
			unix.Close(fd)
			continue
		}
		if !errors.Is(err, unix.ENOENT) {
			return err
		}
		parent, err := openBeneath(base, path.Join(append([]string{"."}, parts[:i]...)...))
		if err != nil {
			return err
		}
		err = makeIn(parent, parts[i], st.Mode&0o7777)
		unix.Close(parent)
		if err != nil {
			return err
		}
	}
	return nil
}

// makeIn makes the folder name in parent with exactly mode.
func makeIn(parent int, name string, mode uint32) error {
	if err := unix.Mkdirat(parent, name, mode); err != nil {
		return err
	}
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(parent, name, &how)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fchmod(fd, mode)
}

// bind mounts what is open as src on target, a file or folder made for it. If target shows src already nothing is done.
func bind(src *os.File, target string) error {
	var want, have unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &want); err != nil {
		return err
	}
	dir := want.Mode&unix.S_IFMT == unix.S_IFDIR
	err := unix.Lstat(target, &have)
	if err == nil {
		at, err := mountpoint.Is(target)
		if err != nil {
			return err
		}
		if at && have.Dev == want.Dev && have.Ino == want.Ino {
			return nil
		}
		if err := mountpoint.UnmountBelow(target); err != nil {
			return err
		}
		if err := os.Remove(target); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	if dir {
		err = os.Mkdir(target, 0o750)
	} else {
		err = os.WriteFile(target, nil, 0o640)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(int(src.Fd())), target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("error mounting %s: %w", src.Name(), err)
	}
	return nil
}
