package oci

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// version of the specification: crun 1.8 refuses newer ones.
const version = "1.0.2"

// ErrNoCommand is returned when neither the Pod nor the image says what to run.
var ErrNoCommand = errors.New("no command specified")

// Input is all that decides what a container is.
type Input struct {
	ID        string
	Container *runtimeapi.ContainerConfig
	Sandbox   *runtimeapi.PodSandboxConfig
	Image     ocispec.ImageConfig
	// Rootfs is the folder that becomes the container's root.
	Rootfs string
	// PausePID is the process whose namespaces the container joins.
	PausePID int
	// TargetPID is the init process of the container whose PID namespace is to be joined (namespace mode TARGET).
	TargetPID int
	User      User
	// CgroupPath is the container's own cgroup.
	CgroupPath string
	// Resolv, Hostname, Hosts and Shm are the sandbox's files and folder to mount; an empty one is left out.
	Resolv, Hostname, Hosts, Shm string
	// Node is what the machine is and allows.
	Node Node
	// Seccomp is the Localhost profile that the container names, read by the caller.
	Seccomp *specs.LinuxSeccomp
	// Devices are those of the machine, for privileged containers and for devices that the container names: the one at hostPath, or all below
	// that folder, at their places at or below containerPath.
	Devices func(hostPath, containerPath string) ([]specs.LinuxDevice, error)
}

// Node is what a machine is and allows.
type Node struct {
	GOARCH string
	// Bounding are the capabilities that can be given at all.
	Bounding []string
	// OOMScoreAdj is the process's own; without CAP_SYS_RESOURCE none lower can be given.
	OOMScoreAdj int
	// Unified is true for cgroup v2.
	Unified bool
	// Hostname of the machine, for Pods in its network.
	Hostname string
	// Controllers lists the cgroup controllers that the machine has.
	Controllers []string
	// AppArmor says whether a profile is loaded; nil where the kernel enforces none.
	AppArmor func(profile string) bool
	// SELinux says whether the kernel labels processes.
	SELinux bool
	// Stack limits the stack of a process that is started, in bytes.
	Stack uint64
	// SwapAccounting says whether memory+swap can be limited.
	SwapAccounting bool
}

// Command is what the container runs: the Pod's command and args over the image's entrypoint and cmd, as Kubernetes defines it.
func Command(c *runtimeapi.ContainerConfig, image ocispec.ImageConfig) ([]string, error) {
	entry, args := c.GetCommand(), c.GetArgs()
	if len(entry) == 0 {
		entry = image.Entrypoint
		if len(args) == 0 {
			args = image.Cmd
		}
	}
	all := append(slices.Clone(entry), args...)
	if len(all) == 0 || all[0] == "" {
		return nil, ErrNoCommand
	}
	return all, nil
}

// Build decides the specification.
func Build(in Input) (*specs.Spec, error) {
	c, sc := in.Container, in.Container.GetLinux().GetSecurityContext()
	if err := refuse(in.Node, c, sc); err != nil {
		return nil, err
	}
	args, err := Command(c, in.Image)
	if err != nil {
		return nil, err
	}
	caps, ambient, err := capabilities(sc, in.Node.Bounding)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{Version: version, Root: &specs.Root{Path: in.Rootfs, Readonly: sc.GetReadonlyRootfs()}, Annotations: map[string]string{}}
	s.Process = &specs.Process{Args: args, Terminal: c.GetTty(), Cwd: workingDir(c, in.Image), Env: environment(in, c),
		User:            specs.User{UID: in.User.UID, GID: in.User.GID, AdditionalGids: in.User.Groups},
		NoNewPrivileges: sc.GetNoNewPrivs(), Capabilities: processCapabilities(caps, ambient)}
	if err := executable(args, s.Process.Env, in.Node.Stack); err != nil {
		return nil, err
	}
	if adj := int(c.GetLinux().GetResources().GetOomScoreAdj()); adj >= in.Node.OOMScoreAdj || slices.Contains(in.Node.Bounding, "CAP_SYS_RESOURCE") {
		s.Process.OOMScoreAdj = &adj
	}
	users := Users(sc.GetNamespaceOptions())
	s.Linux = &specs.Linux{CgroupsPath: in.CgroupPath, Namespaces: namespaces(in, sc),
		UIDMappings: idMappings(users.GetUids()), GIDMappings: idMappings(users.GetGids())}
	if s.Linux.Resources, err = resources(in); err != nil {
		return nil, err
	}
	if s.Mounts, err = mounts(in, sc); err != nil {
		return nil, err
	}
	if err := devices(s, in, sc); err != nil {
		return nil, err
	}
	if !sc.GetPrivileged() {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = sc.GetMaskedPaths(), sc.GetReadonlyPaths()
	}
	if s.Linux.Seccomp, err = seccomp(in, sc, caps); err != nil {
		return nil, err
	}
	if s.Process.ApparmorProfile, err = apparmor(in.Node, sc); err != nil {
		return nil, err
	}
	s.Linux.RootfsPropagation = rootPropagation(c)
	return s, nil
}

// refuse names the first field that is not supported.
func refuse(node Node, c *runtimeapi.ContainerConfig, sc *runtimeapi.LinuxContainerSecurityContext) error {
	switch {
	case c.GetWindows() != nil:
		return errors.New("windows: not supported on Linux")
	case sc.GetRunAsGroup() != nil && sc.GetRunAsUser() == nil && sc.GetRunAsUsername() == "":
		return errors.New("run_as_group: a group is given without a user")
	}
	return SELinux(node, sc.GetSelinuxOptions())
}

func workingDir(c *runtimeapi.ContainerConfig, image ocispec.ImageConfig) string {
	dir := c.GetWorkingDir()
	if dir == "" {
		dir = image.WorkingDir
	}
	return path.Clean("/" + dir)
}

// environment is the image's, then the Pod's over it. PATH, HOME, HOSTNAME and TERM have defaults.
func environment(in Input, c *runtimeapi.ContainerConfig) []string {
	var keys []string
	values := map[string]string{}
	set := func(k, v string) {
		if _, ok := values[k]; !ok {
			keys = append(keys, k)
		}
		values[k] = v
	}
	set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	set("HOSTNAME", Hostname(in.Sandbox, in.Node.Hostname))
	if c.GetTty() {
		set("TERM", "xterm")
	}
	for _, kv := range in.Image.Env {
		k, v, _ := strings.Cut(kv, "=")
		set(k, v)
	}
	for _, kv := range c.GetEnvs() {
		set(kv.GetKey(), string(kv.GetValue()))
	}
	if _, ok := values["HOME"]; !ok {
		set("HOME", in.User.Home)
	}
	env := make([]string, len(keys))
	for i, k := range keys {
		env[i] = k + "=" + values[k]
	}
	return env
}

// Hostname is what a Pod is called inside.
func Hostname(p *runtimeapi.PodSandboxConfig, node string) string {
	if p.GetHostname() != "" {
		return p.GetHostname()
	}
	if p.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE {
		return node
	}
	name := p.GetMetadata().GetName()
	return strings.TrimRight(name[:min(len(name), 63)], "-.")
}

// processCapabilities names the sets; of a user other than root the kernel takes all but the bounding and the ambient one at execve. Nothing
// is inheritable but what is ambient, for files that pass capabilities on would give the rest to any user.
func processCapabilities(caps, ambient []string) *specs.LinuxCapabilities {
	return &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps, Inheritable: ambient, Ambient: ambient}
}

// Users are the IDs of a user namespace of the Pod's own; nil if it has the machine's.
func Users(opt *runtimeapi.NamespaceOption) *runtimeapi.UserNamespace {
	if u := opt.GetUsernsOptions(); u != nil && u.GetMode() == runtimeapi.NamespaceMode_POD {
		return u
	}
	return nil
}

func idMappings(list []*runtimeapi.IDMapping) []specs.LinuxIDMapping {
	var out []specs.LinuxIDMapping
	for _, m := range list {
		out = append(out, specs.LinuxIDMapping{ContainerID: m.GetContainerId(), HostID: m.GetHostId(), Size: m.GetLength()})
	}
	return out
}

// namespaces: those of pause by path, mount and usually PID of its own. A kind that is left out is the machine's.
func namespaces(in Input, sc *runtimeapi.LinuxContainerSecurityContext) []specs.LinuxNamespace {
	opt := sc.GetNamespaceOptions()
	of := func(pid int, ns string) string { return fmt.Sprintf("/proc/%d/ns/%s", pid, ns) }
	list := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	if opt.GetNetwork() != runtimeapi.NamespaceMode_NODE {
		list = append(list, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: of(in.PausePID, "net")},
			specs.LinuxNamespace{Type: specs.UTSNamespace, Path: of(in.PausePID, "uts")})
	}
	if opt.GetIpc() != runtimeapi.NamespaceMode_NODE {
		list = append(list, specs.LinuxNamespace{Type: specs.IPCNamespace, Path: of(in.PausePID, "ipc")})
	}
	switch opt.GetPid() {
	case runtimeapi.NamespaceMode_CONTAINER:
		list = append(list, specs.LinuxNamespace{Type: specs.PIDNamespace})
	case runtimeapi.NamespaceMode_POD:
		list = append(list, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: of(in.PausePID, "pid")})
	case runtimeapi.NamespaceMode_TARGET:
		list = append(list, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: of(in.TargetPID, "pid")})
	}
	if Users(opt) != nil {
		list = append(list, specs.LinuxNamespace{Type: specs.UserNamespace, Path: of(in.PausePID, "user")})
	}
	if in.Node.Unified && !sc.GetPrivileged() {
		list = append(list, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return list
}

func seccomp(in Input, sc *runtimeapi.LinuxContainerSecurityContext, caps []string) (*specs.LinuxSeccomp, error) {
	p, err := Seccomp(sc)
	if err != nil || sc.GetPrivileged() || p == nil {
		return nil, err
	}
	switch p.GetProfileType() {
	case runtimeapi.SecurityProfile_RuntimeDefault:
		return DefaultSeccomp(in.Node.GOARCH, caps), nil
	case runtimeapi.SecurityProfile_Localhost:
		if in.Seccomp == nil {
			return nil, fmt.Errorf("seccomp: profile %q was not read", p.GetLocalhostRef())
		}
		return in.Seccomp, nil
	}
	return nil, nil
}

// SELinux refuses labels where the kernel has them, for processes are not labelled here. Elsewhere they mean nothing, as in any cluster.
func SELinux(node Node, o *runtimeapi.SELinuxOption) error {
	if node.SELinux && o.GetUser()+o.GetRole()+o.GetType()+o.GetLevel() != "" {
		return errors.New("selinux_options: SELinux labels are not supported")
	}
	return nil
}
