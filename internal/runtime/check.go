package runtime

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/runtime/oci"
)

// What follows finds the callers' mistakes before anything is made. Names that become part of a path, and text that becomes part of a
// file, are held to what they can be.

func checkSandbox(c *runtimeapi.PodSandboxConfig, node oci.Node, bySystemd bool) error {
	m, sc := c.GetMetadata(), c.GetLinux().GetSecurityContext()
	opt := sc.GetNamespaceOptions()
	switch {
	case m.GetName() == "" || m.GetUid() == "":
		return errors.New("metadata needs name and uid")
	case !isElement(m.GetUid()):
		return fmt.Errorf("metadata: uid %q cannot be part of a path", m.GetUid())
	case c.GetWindows() != nil:
		return errors.New("windows: not supported on Linux")
	case len(c.GetHostname()) > 64:
		return errors.New("hostname is longer than the kernel's 64 bytes")
	case !isWord(c.GetHostname()):
		return fmt.Errorf("hostname %q holds white space", c.GetHostname())
	case c.GetLogDirectory() != "" && !filepath.IsAbs(c.GetLogDirectory()):
		return fmt.Errorf("log_directory %q is not absolute", c.GetLogDirectory())
	}
	if err := errors.Join(checkParent(c.GetLinux().GetCgroupParent(), bySystemd), oci.SELinux(node, sc.GetSelinuxOptions()), checkNamespaces(opt), checkUsers(opt), checkDNS(c.GetDnsConfig()),
		checkPorts(c.GetPortMappings()), checkSysctls(c.GetLinux().GetSysctls(), opt)); err != nil {
		return err
	}
	if opt.GetPid() == runtimeapi.NamespaceMode_TARGET {
		return errors.New("namespace_options: pid: TARGET is for containers")
	}
	return nil
}

// isElement says whether a name can be one element of a path.
func isElement(name string) bool {
	return name != "." && name != ".." && !strings.ContainsAny(name, "/\x00") && len(name) < 256
}

func isWord(s string) bool { return !strings.ContainsAny(s, " \t\r\n\x00") }

func checkNamespaces(opt *runtimeapi.NamespaceOption) error {
	for name, mode := range map[string]runtimeapi.NamespaceMode{"network": opt.GetNetwork(), "pid": opt.GetPid(), "ipc": opt.GetIpc()} {
		switch mode {
		case runtimeapi.NamespaceMode_POD, runtimeapi.NamespaceMode_NODE:
		case runtimeapi.NamespaceMode_CONTAINER, runtimeapi.NamespaceMode_TARGET:
			if name != "pid" {
				return fmt.Errorf("namespace_options: %s: %v is for pid alone", name, mode)
			}
		default:
			return fmt.Errorf("namespace_options: %s: unknown mode %v", name, mode)
		}
	}
	return nil
}

func checkDNS(c *runtimeapi.DNSConfig) error {
	for name, list := range map[string][]string{"servers": c.GetServers(), "searches": c.GetSearches(), "options": c.GetOptions()} {
		for _, s := range list {
			if s == "" || !isWord(s) {
				return fmt.Errorf("dns_config: %s: %q is not one word", name, s)
			}
		}
	}
	return nil
}

func checkPorts(list []*runtimeapi.PortMapping) error {
	for i, p := range list {
		switch {
		case p.GetContainerPort() < 0 || p.GetContainerPort() > 65535 || p.GetContainerPort() == 0 && p.GetHostPort() != 0:
			return fmt.Errorf("port_mappings[%d]: container_port %d is no port", i, p.GetContainerPort())
		case p.GetHostPort() < 0 || p.GetHostPort() > 65535:
			return fmt.Errorf("port_mappings[%d]: host_port %d is no port", i, p.GetHostPort())
		case runtimeapi.Protocol_name[int32(p.GetProtocol())] == "":
			return fmt.Errorf("port_mappings[%d]: unknown protocol %d", i, p.GetProtocol())
		}
		if ip := p.GetHostIp(); ip != "" {
			if _, err := netip.ParseAddr(ip); err != nil {
				return fmt.Errorf("port_mappings[%d]: host_ip: %w", i, err)
			}
		}
	}
	return nil
}

func checkSysctls(all map[string]string, opt *runtimeapi.NamespaceOption) error {
	for key := range all {
		switch {
		case ofNetwork(key) && opt.GetNetwork() == runtimeapi.NamespaceMode_NODE:
			return fmt.Errorf("sysctl %q cannot be set in the host's network", key)
		case !namespaced(key):
			return fmt.Errorf("sysctl %q belongs to no namespace of a Pod", key)
		case !filepath.IsLocal(sysctlPath(key)) || filepath.Clean(sysctlPath(key)) != sysctlPath(key):
			return fmt.Errorf("sysctl %q", key)
		}
	}
	return nil
}

// namespaced says whether a sysctl is a Pod's own: anything else would change the machine.
func namespaced(key string) bool {
	key = strings.ReplaceAll(sysctlPath(key), "/", ".")
	for _, prefix := range []string{"net.", "kernel.shm", "kernel.msg", "fs.mqueue."} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return key == "kernel.sem"
}

func checkContainer(c *runtimeapi.ContainerConfig) error {
	sc := c.GetLinux().GetSecurityContext()
	switch {
	case c.GetMetadata().GetName() == "":
		return errors.New("metadata needs a name")
	case c.GetImage().GetImage() == "":
		return errors.New("image: it is empty")
	case strings.Contains("/"+c.GetLogPath()+"/", "/../") || strings.Contains(c.GetLogPath(), "\x00"):
		return fmt.Errorf("log_path %q leaves the Pod's log directory", c.GetLogPath())
	}
	for name, list := range map[string][]string{"command": c.GetCommand(), "args": c.GetArgs(), "working_dir": {c.GetWorkingDir()}} {
		if slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, "\x00") }) {
			return fmt.Errorf("%s holds a zero byte", name)
		}
	}
	for i, e := range c.GetEnvs() {
		if e.GetKey() == "" || strings.ContainsAny(e.GetKey(), "=\x00") || slices.Contains(e.GetValue(), 0) {
			return fmt.Errorf("envs[%d]: %q is no variable", i, e.GetKey())
		}
	}
	for i, m := range c.GetMounts() {
		switch {
		case !path.IsAbs(m.GetContainerPath()) || path.Clean(m.GetContainerPath()) == "/":
			return fmt.Errorf("mounts[%d]: container_path %q is no absolute path below the root", i, m.GetContainerPath())
		case m.GetImage().GetImage() == "" && !path.IsAbs(m.GetHostPath()):
			return fmt.Errorf("mounts[%d]: host_path %q is not absolute", i, m.GetHostPath())
		}
	}
	for i, d := range c.GetDevices() {
		if d.GetPermissions() == "" || strings.Trim(d.GetPermissions(), "rwm") != "" {
			return fmt.Errorf("devices[%d]: permissions %q: want some of r, w and m", i, d.GetPermissions())
		}
	}
	for _, id := range append(slices.Clone(sc.GetSupplementalGroups()), sc.GetRunAsUser().GetValue(), sc.GetRunAsGroup().GetValue()) {
		if id < 0 || id > 1<<31-1 {
			return fmt.Errorf("security_context: %d is no ID", id)
		}
	}
	return errors.Join(checkNamespaces(sc.GetNamespaceOptions()), checkResources(c.GetLinux().GetResources()))
}

var cpuList = regexp.MustCompile(`^([0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?$`)

// checkResources checks limits; -1 stands for no limit where the kernel takes it so.
func checkResources(l *runtimeapi.LinuxContainerResources) error {
	switch {
	case l.GetCpuPeriod() < 0, l.GetCpuShares() < 0:
		return errors.New("resources: cpu_period and cpu_shares cannot be negative")
	case l.GetCpuQuota() < -1:
		return fmt.Errorf("resources: cpu_quota %d", l.GetCpuQuota())
	case l.GetMemoryLimitInBytes() < -1, l.GetMemorySwapLimitInBytes() < -1:
		return errors.New("resources: memory limits cannot be negative")
	case l.GetMemorySwapLimitInBytes() > 0 && l.GetMemorySwapLimitInBytes() < l.GetMemoryLimitInBytes():
		return errors.New("resources: memory_swap_limit_in_bytes, which counts memory too, is below memory_limit_in_bytes")
	case l.GetOomScoreAdj() < -1000 || l.GetOomScoreAdj() > 1000:
		return fmt.Errorf("resources: oom_score_adj %d is not between -1000 and 1000", l.GetOomScoreAdj())
	case !cpuList.MatchString(l.GetCpusetCpus()) || !cpuList.MatchString(l.GetCpusetMems()):
		return fmt.Errorf("resources: cpuset_cpus %q and cpuset_mems %q: want lists as 0-2,5", l.GetCpusetCpus(), l.GetCpusetMems())
	}
	for key := range l.GetUnified() {
		if !isElement(key) || !strings.Contains(key, ".") {
			return fmt.Errorf("resources: unified: %q is no file of a cgroup", key)
		}
	}
	return nil
}
