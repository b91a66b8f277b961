package oci

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// mounts are the kernel's file systems, then the sandbox's files where the container brings none, then the container's own: shorter
// paths first, so that none hides another.
func mounts(in Input, sc *runtimeapi.LinuxContainerSecurityContext) ([]specs.Mount, error) {
	sysMode, cgroupMode := "ro", "ro"
	if sc.GetPrivileged() {
		sysMode, cgroupMode = "rw", "rw"
	}
	list := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", sysMode}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", cgroupMode}},
	}
	own := slices.Clone(in.Container.GetMounts())
	slices.SortStableFunc(own, func(a, b *runtimeapi.Mount) int { return depth(a) - depth(b) })
	taken := map[string]bool{}
	for _, m := range own {
		taken[path.Clean(m.GetContainerPath())] = true
	}
	list = slices.DeleteFunc(list, func(m specs.Mount) bool { return taken[m.Destination] })
	for _, f := range []struct {
		source, dest string
		readonly     bool
	}{{in.Hostname, "/etc/hostname", sc.GetReadonlyRootfs()}, {in.Hosts, "/etc/hosts", sc.GetReadonlyRootfs()},
		{in.Resolv, "/etc/resolv.conf", sc.GetReadonlyRootfs()}, {in.Shm, "/dev/shm", false}} {
		if f.source != "" && !taken[f.dest] {
			list = append(list, bind(f.source, f.dest, f.readonly))
		}
	}
	for _, m := range own {
		if m.GetImage().GetImage() != "" {
			return nil, fmt.Errorf("mount %s: the image was not mounted", m.GetContainerPath())
		}
		if len(m.GetUidMappings())+len(m.GetGidMappings()) > 0 {
			return nil, fmt.Errorf("mount %s: uid_mappings and gid_mappings were not applied", m.GetContainerPath())
		}
		b, err := bindMount(m)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.GetContainerPath(), err)
		}
		list = append(list, b)
	}
	return list, nil
}

func depth(m *runtimeapi.Mount) int { return strings.Count(path.Clean(m.GetContainerPath()), "/") }

func bind(source, dest string, readonly bool) specs.Mount {
	mode := "rw"
	if readonly {
		mode = "ro"
	}
	return specs.Mount{Source: source, Destination: dest, Type: "bind", Options: []string{"rbind", "rprivate", mode}}
}

func bindMount(m *runtimeapi.Mount) (specs.Mount, error) {
	if !path.IsAbs(m.GetContainerPath()) {
		return specs.Mount{}, errors.New("the path in the container is not absolute")
	}
	if !path.IsAbs(m.GetHostPath()) {
		return specs.Mount{}, fmt.Errorf("the path on the host, %q, is not absolute", m.GetHostPath())
	}
	options := []string{"rbind"}
	switch m.GetPropagation() {
	case runtimeapi.MountPropagation_PROPAGATION_PRIVATE:
		options = append(options, "rprivate")
	case runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
		options = append(options, "rslave")
	case runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		options = append(options, "rshared")
	default:
		return specs.Mount{}, fmt.Errorf("unknown propagation %v", m.GetPropagation())
	}
	switch {
	case m.GetRecursiveReadOnly() && (!m.GetReadonly() || m.GetPropagation() != runtimeapi.MountPropagation_PROPAGATION_PRIVATE):
		return specs.Mount{}, errors.New("recursive_read_only needs readonly and private propagation")
	case m.GetRecursiveReadOnly():
		options = append(options, "rro")
	case m.GetReadonly():
		options = append(options, "ro")
	default:
		options = append(options, "rw")
	}
	for _, o := range m.GetMountOptions() {
		if o != "noexec" && o != "nodev" && o != "nosuid" {
			return specs.Mount{}, fmt.Errorf("mount option %q is not supported", o)
		}
		options = append(options, o)
	}
	return specs.Mount{Source: m.GetHostPath(), Destination: path.Clean(m.GetContainerPath()), Type: "bind", Options: options}, nil
}

// rootPropagation lets mounts pass between host and container where a volume asks for it.
func rootPropagation(c *runtimeapi.ContainerConfig) string {
	result := ""
	for _, m := range c.GetMounts() {
		switch m.GetPropagation() {
		case runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
			return "rshared"
		case runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
			result = "rslave"
		}
	}
	return result
}
