package criconf

import (
	"errors"
	"fmt"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maskedPaths and readonlyPaths are what a container does not see, or may not write, of /proc and /sys, unless it asks for all of /proc.
var (
	maskedPaths = []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

func namespaces(pod *corev1.Pod) *runtimeapi.NamespaceOption {
	node := func(host bool, otherwise runtimeapi.NamespaceMode) runtimeapi.NamespaceMode {
		if host {
			return runtimeapi.NamespaceMode_NODE
		}
		return otherwise
	}
	pid := runtimeapi.NamespaceMode_CONTAINER
	if pod.Spec.ShareProcessNamespace != nil && *pod.Spec.ShareProcessNamespace {
		pid = runtimeapi.NamespaceMode_POD
	}
	return &runtimeapi.NamespaceOption{
		Network: node(pod.Spec.HostNetwork, runtimeapi.NamespaceMode_POD),
		Ipc:     node(pod.Spec.HostIPC, runtimeapi.NamespaceMode_POD),
		Pid:     node(pod.Spec.HostPID, pid),
	}
}

func sandboxSecurity(pod *corev1.Pod) *runtimeapi.LinuxSandboxSecurityContext {
	s := &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: namespaces(pod),
		Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			if sc := c.SecurityContext; sc != nil && sc.Privileged != nil && *sc.Privileged {
				s.Privileged = true
			}
		}
	}
	sc := pod.Spec.SecurityContext
	if sc == nil {
		return s
	}
	if sc.RunAsUser != nil {
		s.RunAsUser = &runtimeapi.Int64Value{Value: *sc.RunAsUser}
	}
	if sc.RunAsGroup != nil && sc.RunAsUser != nil {
		s.RunAsGroup = &runtimeapi.Int64Value{Value: *sc.RunAsGroup}
	}
	s.SelinuxOptions = selinux(sc.SELinuxOptions)
	s.SupplementalGroups = groups(sc)
	s.SupplementalGroupsPolicy = groupsPolicy(sc)
	return s
}

func groups(sc *corev1.PodSecurityContext) []int64 {
	var list []int64
	if sc.FSGroup != nil {
		list = append(list, *sc.FSGroup)
	}
	return append(list, sc.SupplementalGroups...)
}

func groupsPolicy(sc *corev1.PodSecurityContext) runtimeapi.SupplementalGroupsPolicy {
	if sc.SupplementalGroupsPolicy != nil && *sc.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict {
		return runtimeapi.SupplementalGroupsPolicy_Strict
	}
	return runtimeapi.SupplementalGroupsPolicy_Merge
}

func selinux(o *corev1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

// ImageUser is the user that an image names: a number, or else a name.
type ImageUser struct {
	UID  *int64
	Name string
}

// containerSecurity is the container's security context with what the Pod sets filled in.
func containerSecurity(pod *corev1.Pod, c *corev1.Container, image ImageUser, seccompDir string) (*runtimeapi.LinuxContainerSecurityContext, error) {
	ps, cs := pod.Spec.SecurityContext, c.SecurityContext
	if ps == nil {
		ps = &corev1.PodSecurityContext{}
	}
	if cs == nil {
		cs = &corev1.SecurityContext{}
	}
	out := &runtimeapi.LinuxContainerSecurityContext{
		NamespaceOptions:         namespaces(pod),
		Privileged:               cs.Privileged != nil && *cs.Privileged,
		ReadonlyRootfs:           cs.ReadOnlyRootFilesystem != nil && *cs.ReadOnlyRootFilesystem,
		NoNewPrivs:               cs.AllowPrivilegeEscalation != nil && !*cs.AllowPrivilegeEscalation,
		SupplementalGroups:       groups(ps),
		SupplementalGroupsPolicy: groupsPolicy(ps),
		SelinuxOptions:           selinux(first(cs.SELinuxOptions, ps.SELinuxOptions)),
		MaskedPaths:              maskedPaths,
		ReadonlyPaths:            readonlyPaths,
	}
	if cs.ProcMount != nil && *cs.ProcMount == corev1.UnmaskedProcMount {
		out.MaskedPaths, out.ReadonlyPaths = nil, nil
	}
	if caps := cs.Capabilities; caps != nil {
		out.Capabilities = &runtimeapi.Capability{}
		for _, c := range caps.Add {
			out.Capabilities.AddCapabilities = append(out.Capabilities.AddCapabilities, string(c))
		}
		for _, c := range caps.Drop {
			out.Capabilities.DropCapabilities = append(out.Capabilities.DropCapabilities, string(c))
		}
	}
	user := first(cs.RunAsUser, ps.RunAsUser)
	switch {
	case user != nil:
		out.RunAsUser = &runtimeapi.Int64Value{Value: *user}
	case image.UID != nil:
		out.RunAsUser = &runtimeapi.Int64Value{Value: *image.UID}
	case image.Name != "":
		out.RunAsUsername = image.Name
	default:
		out.RunAsUser = &runtimeapi.Int64Value{} // an image that names nobody runs as root
	}
	if g := first(cs.RunAsGroup, ps.RunAsGroup); g != nil {
		out.RunAsGroup = &runtimeapi.Int64Value{Value: *g}
	}
	if err := nonRoot(pod, c, first(cs.RunAsNonRoot, ps.RunAsNonRoot), user, image); err != nil {
		return nil, err
	}
	var err error
	if out.Seccomp, err = seccomp(first(cs.SeccompProfile, ps.SeccompProfile), seccompDir); err != nil {
		return nil, err
	}
	out.Apparmor, err = apparmor(first(cs.AppArmorProfile, ps.AppArmorProfile))
	return out, err
}

func first[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

func nonRoot(pod *corev1.Pod, c *corev1.Container, required *bool, user *int64, image ImageUser) error {
	where := fmt.Sprintf("(pod: %q, container: %s)", pod.Name+"_"+pod.Namespace+"("+string(pod.UID)+")", c.Name)
	switch {
	case required == nil || !*required:
		return nil
	case user != nil && *user == 0:
		return fmt.Errorf("container's runAsUser breaks non-root policy %s", where)
	case user != nil:
		return nil
	case image.UID != nil && *image.UID == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
	case image.UID == nil && image.Name != "":
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", image.Name, where)
	case image.UID == nil:
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
	}
	return nil
}

// seccomp names a profile of the node's by its path: the CRI has it so.
func seccomp(p *corev1.SeccompProfile, dir string) (*runtimeapi.SecurityProfile, error) {
	switch {
	case p == nil || p.Type == corev1.SeccompProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	case p.Type == corev1.SeccompProfileTypeLocalhost:
		if p.LocalhostProfile == nil || *p.LocalhostProfile == "" {
			return nil, errors.New("localhostProfile must be set if seccompProfile type is Localhost")
		}
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: filepath.Join(dir, *p.LocalhostProfile)}, nil
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
}

func apparmor(p *corev1.AppArmorProfile) (*runtimeapi.SecurityProfile, error) {
	switch {
	case p == nil:
		return nil, nil
	case p.Type == corev1.AppArmorProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	case p.Type == corev1.AppArmorProfileTypeLocalhost:
		if p.LocalhostProfile == nil {
			return nil, errors.New("the AppArmor profile of type Localhost names none")
		}
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: *p.LocalhostProfile}, nil
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
}
