package oci

import (
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Resources turns the CRI's limits into the specification's. Zero means no limit is set.
func Resources(r *runtimeapi.LinuxContainerResources, node Node) (*specs.LinuxResources, error) {
	out := &specs.LinuxResources{CPU: &specs.LinuxCPU{}, Memory: &specs.LinuxMemory{}}
	if r == nil {
		return out, nil
	}
	if n := r.GetCpuPeriod(); n != 0 {
		v := uint64(n)
		out.CPU.Period = &v
	}
	if n := r.GetCpuQuota(); n != 0 {
		out.CPU.Quota = &n
	}
	if n := r.GetCpuShares(); n != 0 {
		v := uint64(n)
		out.CPU.Shares = &v
	}
	out.CPU.Cpus, out.CPU.Mems = r.GetCpusetCpus(), r.GetCpusetMems()
	if n := r.GetMemoryLimitInBytes(); n != 0 {
		out.Memory.Limit = &n
		swap := n
		if s := r.GetMemorySwapLimitInBytes(); s != 0 {
			swap = s
		}
		if node.SwapAccounting {
			out.Memory.Swap = &swap
		}
	}
	for _, h := range r.GetHugepageLimits() {
		if !slices.Contains(node.Controllers, "hugetlb") {
			if h.GetLimit() == 0 {
				continue // Kubernetes sends zeros for sizes that the Pod does not use
			}
			return nil, fmt.Errorf("hugepage_limits: this machine has no hugetlb controller")
		}
		out.HugepageLimits = append(out.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: h.GetPageSize(), Limit: h.GetLimit()})
	}
	if len(r.GetUnified()) > 0 {
		if !node.Unified {
			return nil, fmt.Errorf("unified: this machine has cgroup v1")
		}
		out.Unified = r.GetUnified()
	}
	return out, nil
}

func resources(in Input) (*specs.LinuxResources, error) {
	return Resources(in.Container.GetLinux().GetResources(), in.Node)
}

// devices: the usual ones are the OCI runtime's doing. A privileged container has all, and any has what it names.
func devices(s *specs.Spec, in Input, sc *runtimeapi.LinuxContainerSecurityContext) error {
	s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: sc.GetPrivileged(), Access: "rwm"}}
	have := map[string]bool{}
	if sc.GetPrivileged() {
		all, err := in.Devices("/dev", "/dev")
		if err != nil {
			return err
		}
		s.Linux.Devices = all
		for _, d := range all {
			have[d.Path] = true
		}
	}
	for _, d := range in.Container.GetDevices() {
		inside, access := d.GetContainerPath(), d.GetPermissions()
		if inside == "" {
			inside = d.GetHostPath()
		}
		if access == "" {
			access = "rwm"
		}
		switch {
		case !path.IsAbs(d.GetHostPath()), !path.IsAbs(inside):
			return fmt.Errorf("device %q at %q: the paths must be absolute", d.GetHostPath(), inside)
		case strings.Trim(access, "rwm") != "":
			return fmt.Errorf("device %s: permissions: %q has others than r, w and m", d.GetHostPath(), access)
		}
		found, err := in.Devices(d.GetHostPath(), path.Clean(inside))
		if err != nil {
			return fmt.Errorf("device %s: %w", d.GetHostPath(), err)
		}
		for _, dev := range found {
			if !have[dev.Path] {
				s.Linux.Devices = append(s.Linux.Devices, dev)
				have[dev.Path] = true
			}
			major, minor := dev.Major, dev.Minor
			s.Linux.Resources.Devices = append(s.Linux.Resources.Devices,
				specs.LinuxDeviceCgroup{Allow: true, Type: dev.Type, Major: &major, Minor: &minor, Access: access})
		}
	}
	return nil
}
