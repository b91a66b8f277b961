package admit

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	kernel "k8s.io/component-helpers/node/util/sysctl"
)

// Security is what the node lets Pods ask of its kernel.
type Security struct {
	// UnsafeSysctls are sysctls, or beginnings of names that end with *, that Pods may set besides the safe ones.
	UnsafeSysctls []string
	// AppArmor says whether the kernel enforces profiles.
	AppArmor bool
}

// safeSysctls are those that reach no further than the Pod that sets them, as Kubernetes lists them.
var safeSysctls = []string{
	"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
	"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout",
	"net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
	"net.ipv4.tcp_slow_start_after_idle", "net.ipv4.tcp_notsent_lowat",
}

// CheckSysctls checks the settings of Security: each must be of a kind that the kernel keeps apart for Pods.
func CheckSysctls(patterns []string) error {
	var errs []error
	for _, p := range patterns {
		name, _ := strings.CutSuffix(p, "*")
		if name == "" || strings.Contains(name, "*") {
			errs = append(errs, fmt.Errorf("%q is no sysctl, nor the beginning of one with a * at the end", p))
			continue
		}
		if ns, _, _ := kernel.GetNamespace(name); ns == kernel.UnknownNamespace {
			errs = append(errs, fmt.Errorf("the sysctls %q are not known to be namespaced", p))
		}
	}
	return errors.Join(errs...)
}

// Check judges what the Pod asks of the kernel. It returns nil if it may.
func (s Security) Check(pod *corev1.Pod) *Rejection {
	hostUsers := pod.Spec.HostUsers == nil || *pod.Spec.HostUsers
	if sc := pod.Spec.SecurityContext; sc != nil {
		for _, sysctl := range sc.Sysctls {
			name := kernel.NormalizeName(sysctl.Name)
			ns, _, _ := kernel.GetNamespace(name)
			switch {
			case !s.allows(name):
				return reject("SysctlForbidden", "forbidden sysctl: %q not allowlisted", name)
			case ns == kernel.IPCNamespace && pod.Spec.HostIPC, ns == kernel.NetNamespace && pod.Spec.HostNetwork, ns == kernel.UserNamespace && hostUsers:
				return reject("SysctlForbidden", "forbidden sysctl: %q not allowed with host %s enabled", name, ns)
			}
		}
	}
	if !s.AppArmor && namesProfile(pod) {
		return reject("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host")
	}
	return nil
}

func (s Security) allows(name string) bool {
	for _, safe := range safeSysctls {
		if name == safe {
			return true
		}
	}
	for _, p := range s.UnsafeSysctls {
		begin, open := strings.CutSuffix(p, "*")
		begin = kernel.NormalizeName(begin)
		if name == begin || open && strings.HasPrefix(name, begin) {
			return true
		}
	}
	return false
}

// namesProfile says whether a container is to run under an AppArmor profile of the node's own. One that asks for the runtime's default gets
// whatever there is.
func namesProfile(pod *corev1.Pod) bool {
	local := func(p *corev1.AppArmorProfile) bool { return p != nil && p.Type == corev1.AppArmorProfileTypeLocalhost }
	if sc := pod.Spec.SecurityContext; sc != nil && local(sc.AppArmorProfile) {
		return true
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			if c.SecurityContext != nil && local(c.SecurityContext.AppArmorProfile) {
				return true
			}
		}
	}
	return false
}
