package oci

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// capabilityNames are the kernel's capabilities in the order of their numbers.
var capabilityNames = strings.Fields(`CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID
CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER
CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE
CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN
CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE`)

// defaultCapabilities are what a container has that asks for nothing.
var defaultCapabilities = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}

// BoundingSet names the capabilities of a mask as /proc/self/status prints it.
func BoundingSet(mask uint64) []string {
	var out []string
	for i, name := range capabilityNames {
		if mask&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

// capabilities decides a container's capabilities, and which of them its processes keep whoever they are. Those outside of bounding cannot
// be given and are left out.
func capabilities(sc *runtimeapi.LinuxContainerSecurityContext, bounding []string) (all, ambient []string, err error) {
	have := map[string]bool{}
	set := func(list []string, on bool) {
		for _, c := range list {
			have[c] = on
		}
	}
	set(defaultCapabilities, true)
	if sc.GetPrivileged() {
		set(capabilityNames, true)
	}
	change := func(have map[string]bool, list []string, on bool) error {
		for _, c := range list {
			name := strings.ToUpper(c)
			if name == "ALL" {
				continue
			}
			if !strings.HasPrefix(name, "CAP_") {
				name = "CAP_" + name
			}
			if !slices.Contains(capabilityNames, name) {
				return fmt.Errorf("unknown capability %q", c)
			}
			have[name] = on
		}
		return nil
	}
	c := sc.GetCapabilities()
	add, drop, keep := c.GetAddCapabilities(), c.GetDropCapabilities(), c.GetAddAmbientCapabilities()
	each := func(list []string) bool {
		return slices.ContainsFunc(list, func(c string) bool { return strings.EqualFold(c, "ALL") })
	}
	// "all" in either list comes before the single names of both.
	if each(add) || each(keep) {
		set(capabilityNames, true)
	}
	if each(drop) {
		set(capabilityNames, false)
	}
	kept := map[string]bool{}
	if each(keep) && !each(drop) {
		for _, name := range capabilityNames {
			kept[name] = true
		}
	}
	if err := change(have, add, true); err != nil {
		return nil, nil, err
	}
	if err := errors.Join(change(have, keep, true), change(kept, keep, true)); err != nil {
		return nil, nil, err
	}
	if err := errors.Join(change(have, drop, false), change(kept, drop, false)); err != nil {
		return nil, nil, err
	}
	for _, c := range capabilityNames {
		if have[c] && slices.Contains(bounding, c) {
			all = append(all, c)
			if kept[c] {
				ambient = append(ambient, c)
			}
		}
	}
	return all, ambient, nil
}
