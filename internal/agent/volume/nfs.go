package volume

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"carob.dev/carob/internal/agent/volume/mountpoint"
)

const (
	nfsPlugin = "nfs"
	// nfsPatience is how long a server may take to say that it is there, and mountPatience how long to have its export mounted.
	nfsPatience   = 5 * time.Second
	mountPatience = time.Minute
	// unmountPatience is how long the end of a mount may take: what was written goes to the server with it.
	unmountPatience = 10 * time.Second
)

// setupNFS mounts an export of a server below the Pod, by the kernel's client alone: the newest version of the protocol that both sides speak,
// unless an option says which. An export that is mounted is not asked after: its server may be away.
func (v *Volumes) setupNFS(ctx context.Context, pod *corev1.Pod, name string, src *corev1.NFSVolumeSource, options []string) (Mounted, error) {
	dir, err := v.volumeDir(pod.UID, nfsPlugin, name)
	if err != nil {
		return Mounted{}, err
	}
	m := Mounted{Path: dir, ReadOnly: src.ReadOnly}
	there, err := mountpoint.Is(dir)
	if errors.Is(err, os.ErrNotExist) {
		err = os.MkdirAll(dir, 0o750)
	}
	if err != nil || there {
		return m, err
	}
	if src.ReadOnly {
		options = append(slices.Clone(options), "ro")
	}
	if err := v.mountNFS(ctx, src, dir, parseNFS(options)); err != nil {
		unix.Rmdir(dir)
		return Mounted{}, fmt.Errorf("mount %s:%s: %w", src.Server, src.Path, err)
	}
	return m, nil
}

func (v *Volumes) mountNFS(ctx context.Context, src *corev1.NFSVolumeSource, dir string, o nfsOptions) error {
	ctx, cancel := context.WithTimeout(ctx, mountPatience)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupIPAddr(ctx, strings.Trim(src.Server, "[]"))
	if err != nil {
		return err
	}
	host := src.Server
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		host = "[" + host + "]"
	}
	for _, addr := range addrs {
		if err = o.reach(ctx, addr); err != nil {
			continue
		}
		for _, version := range o.versions() {
			if !v.enter(dir) {
				return errors.New("the kernel still waits for the server")
			}
			err = apart(ctx, func(live func() bool) error {
				defer v.leave(dir)
				return o.mount(host+":"+src.Path, addr.IP.String(), version, dir, live)
			})
			if !errors.Is(err, unix.EPROTONOSUPPORT) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPFNOSUPPORT) {
				return nfsError(ctx, err)
			}
		}
	}
	return nfsError(ctx, err)
}

// enter notes that the kernel is about to mount on dir, unless it is at that already.
func (v *Volumes) enter(dir string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mounting[dir] {
		return false
	}
	v.mounting[dir] = true
	return true
}

func (v *Volumes) leave(dir string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.mounting, dir)
}

// nfsErrors are what a server means by an error.
var nfsErrors = map[error]string{
	unix.ENOENT: "the server has no such export", unix.EACCES: "the server refuses it to this node", unix.EPERM: "the server refuses it to this node",
	unix.EPROTONOSUPPORT: "the server speaks no version of NFS that was asked for", unix.ENODEV: "the kernel of this node knows no NFS (module nfs)",
	unix.ENOTDIR: "what the server has there is no folder",
}

func nfsError(ctx context.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return fmt.Errorf("the server did not have it mounted within %s", mountPatience)
	}
	for number, text := range nfsErrors {
		if errors.Is(err, number) {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	return err
}

// unmountNFS unmounts an export. Where its server is away it is out of sight at once, and the kernel goes on alone.
func (v *Volumes) unmountNFS(ctx context.Context, dir string) error {
	waiting, cancel := context.WithTimeout(ctx, unmountPatience)
	defer cancel()
	err := apart(waiting, func(func() bool) error { return mountpoint.Unmount(dir) })
	if err == nil || waiting.Err() == nil || ctx.Err() != nil {
		return err
	}
	there, err := mountpoint.Is(dir)
	if err == nil && there {
		err = fmt.Errorf("unmount %s: the server did not answer within %s", dir, unmountPatience)
	}
	if err == nil {
		v.cfg.Log.Warn("the server of an NFS volume does not answer: it is unmounted, but what was written last may be lost", "path", dir)
	}
	return err
}

// nfsOptions are mount options by who understands them: the kernel's client, in the form key or key=value, or the mount.
type nfsOptions struct {
	params     []string
	attributes int
	readOnly   bool
	// version is asked for; empty for any. port is that of the server, proto how it is spoken to.
	version, port, proto string
}

// mountAttributes are the options that belong to the mount and not to what is mounted.
var mountAttributes = map[string]int{
	"noexec": unix.MOUNT_ATTR_NOEXEC, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV, "noatime": unix.MOUNT_ATTR_NOATIME,
	"nodiratime": unix.MOUNT_ATTR_NODIRATIME, "strictatime": unix.MOUNT_ATTR_STRICTATIME,
	"exec": 0, "suid": 0, "dev": 0, "atime": 0, "relatime": 0, "defaults": 0, "async": 0, "auto": 0, "noauto": 0, "_netdev": 0, "nofail": 0, "bg": 0, "fg": 0,
}

func parseNFS(options []string) nfsOptions {
	var o nfsOptions
	for _, list := range options {
		for option := range strings.SplitSeq(list, ",") {
			a, known := mountAttributes[option]
			key, value, _ := strings.Cut(option, "=")
			switch {
			case key == "" || key == "retry":
				continue
			case known:
				o.attributes |= a
				continue
			case key == "ro" || key == "rw":
				o.readOnly = o.readOnly || key == "ro"
				continue
			case key == "vers" || key == "nfsvers":
				o.version = value
				continue
			case key == "port":
				o.port = value
			case key == "proto" || key == "udp" || key == "rdma":
				o.proto = key
				if value != "" {
					o.proto = value
				}
			}
			o.params = append(o.params, option)
		}
	}
	return o
}

// versions are those to try, one after the other.
func (o nfsOptions) versions() []string {
	if o.version != "" {
		return []string{o.version}
	}
	return []string{"4.2", "4.1", "4", "3"}
}

// probe is the port where the kernel is going to ask first; empty if that cannot be told.
func (o nfsOptions) probe() string {
	switch {
	case o.proto != "" && !strings.HasPrefix(o.proto, "tcp"):
		return ""
	case o.port != "":
		return o.port
	case strings.HasPrefix(o.version, "3"):
		return "111"
	}
	return "2049"
}

// reach looks whether the server is there at all: the kernel would wait for minutes.
func (o nfsOptions) reach(ctx context.Context, addr net.IPAddr) error {
	port := o.probe()
	if port == "" {
		return nil
	}
	conn, err := (&net.Dialer{Timeout: nfsPatience}).DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), port))
	if err != nil {
		return fmt.Errorf("the server does not answer: %w", err)
	}
	return conn.Close()
}

// mount mounts source on dir in one step, unless nobody waits for it any more. It runs apart.
func (o nfsOptions) mount(source, addr, version, dir string, live func() bool) error {
	fs, err := unix.Fsopen("nfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open file system: %w", err)
	}
	defer unix.Close(fs)
	for _, p := range append(slices.Clone(o.params), "source="+source, "addr="+addr, "vers="+version) {
		if key, value, ok := strings.Cut(p, "="); ok {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, p)
		}
		if err != nil {
			return fmt.Errorf("option %s: %w", p, said(fs, err))
		}
	}
	attributes := o.attributes
	if o.readOnly {
		attributes |= unix.MOUNT_ATTR_RDONLY
		if err := unix.FsconfigSetFlag(fs, "ro"); err != nil {
			return fmt.Errorf("option ro: %w", err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return said(fs, err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return said(fs, err)
	}
	defer unix.Close(mount)
	if !live() {
		return context.Canceled
	}
	if err := unix.MoveMount(mount, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("show it on %s: %w", dir, err)
	}
	return nil
}

// said adds what the kernel has to say about an error.
func said(fs int, err error) error {
	var lines []string
	buf := make([]byte, 1024)
	for len(lines) < 4 {
		n, e := unix.Read(fs, buf)
		if e != nil || n <= 0 {
			break
		}
		if line := strings.TrimSpace(string(buf[:n])); strings.HasPrefix(line, "e ") {
			lines = append(lines, line[2:])
		}
	}
	if len(lines) == 0 {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.Join(lines, "; "))
}
