package volume

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"carob.dev/carob/internal/agent/volume/mountpoint"
)

// setupNFS mounts an export of a server below the Pod, by the kernel's client alone: the newest version of the protocol that both sides speak,
// unless an option says which.
func (v *Volumes) setupNFS(ctx context.Context, pod *corev1.Pod, name string, src *corev1.NFSVolumeSource, options []string) (Mounted, error) {
	dir, err := v.volumeDir(pod.UID, "nfs", name)
	if err != nil {
		return Mounted{}, err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return Mounted{}, err
	}
	m := Mounted{Path: dir, ReadOnly: src.ReadOnly}
	if there, err := mountpoint.Is(dir); err != nil || there {
		return m, err
	}
	if src.ReadOnly {
		options = append(slices.Clone(options), "ro")
	}
	if err := mountNFS(ctx, src, dir, options); err != nil {
		unix.Rmdir(dir)
		return Mounted{}, fmt.Errorf("mount %s:%s: %w", src.Server, src.Path, err)
	}
	return m, nil
}

func mountNFS(ctx context.Context, src *corev1.NFSVolumeSource, dir string, options []string) error {
	addrs, err := net.DefaultResolver.LookupIPAddr(ctx, strings.Trim(src.Server, "[]"))
	if err != nil {
		return err
	}
	host := src.Server
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		host = "[" + host + "]"
	}
	flags, attempts := nfsAttempts(options)
	for _, addr := range addrs {
		for _, data := range attempts {
			err = unix.Mount(host+":"+src.Path, dir, "nfs", flags, data+"addr="+addr.IP.String())
			switch {
			case err == nil:
				return nil
			case errors.Is(err, unix.ENODEV):
				return errors.New("the kernel of this node knows no NFS (module nfs)")
			case !errors.Is(err, unix.EPROTONOSUPPORT) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPFNOSUPPORT):
				return err
			}
		}
	}
	return err
}

// mountFlags are the options that the kernel takes as flags.
var mountFlags = map[string]uintptr{
	"rw": 0, "exec": 0, "suid": 0, "dev": 0, "defaults": 0, "async": 0, "_netdev": 0, "nofail": 0,
	"ro": unix.MS_RDONLY, "noexec": unix.MS_NOEXEC, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "sync": unix.MS_SYNCHRONOUS,
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME, "dirsync": unix.MS_DIRSYNC,
}

// nfsAttempts are the flags and, in order, the options to try, each ending in a comma: the versions from the newest on, unless one is given.
func nfsAttempts(options []string) (flags uintptr, data []string) {
	rest, versioned := "", false
	for _, list := range options {
		for o := range strings.SplitSeq(list, ",") {
			if f, ok := mountFlags[o]; ok {
				flags |= f
				continue
			}
			key, value, _ := strings.Cut(o, "=")
			switch key {
			case "":
				continue
			case "nfsvers", "vers":
				key, versioned = "vers", true
			}
			if value != "" {
				key += "=" + value
			}
			rest += key + ","
		}
	}
	if versioned {
		return flags, []string{rest}
	}
	for _, version := range []string{"4.2", "4.1", "4", "3"} {
		data = append(data, rest+"vers="+version+",")
	}
	return flags, data
}
