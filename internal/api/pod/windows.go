package pod

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateWindows refuses what a Pod for Windows cannot have. Such a Pod is an object like others; no node of Carob's takes it.
func validateWindows(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	if s.OS == nil || s.OS.Name != corev1.Windows {
		return nil
	}
	var errs field.ErrorList
	forbid := func(at *field.Path, fields map[string]bool) {
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			if fields[name] {
				errs = append(errs, field.Forbidden(at.Child(name), "cannot be set for a windows pod"))
			}
		}
	}
	if sc := s.SecurityContext; sc != nil {
		forbid(path.Child("securityContext"), map[string]bool{
			"appArmorProfile": sc.AppArmorProfile != nil, "seLinuxOptions": sc.SELinuxOptions != nil, "seccompProfile": sc.SeccompProfile != nil,
			"fsGroup": sc.FSGroup != nil, "fsGroupChangePolicy": sc.FSGroupChangePolicy != nil, "sysctls": len(sc.Sysctls) > 0,
			"runAsUser": sc.RunAsUser != nil, "runAsGroup": sc.RunAsGroup != nil, "supplementalGroups": sc.SupplementalGroups != nil,
			"supplementalGroupsPolicy": sc.SupplementalGroupsPolicy != nil,
		})
	}
	forbid(path, map[string]bool{"hostUsers": s.HostUsers != nil, "hostPID": s.HostPID, "hostIPC": s.HostIPC,
		"shareProcessNamespace": s.ShareProcessNamespace != nil})
	eachContainer(s, path, func(c *corev1.Container, at *field.Path) {
		if sc := c.SecurityContext; sc != nil {
			forbid(at.Child("securityContext"), map[string]bool{
				"appArmorProfile": sc.AppArmorProfile != nil, "seLinuxOptions": sc.SELinuxOptions != nil, "seccompProfile": sc.SeccompProfile != nil,
				"capabilities": sc.Capabilities != nil, "readOnlyRootFilesystem": sc.ReadOnlyRootFilesystem != nil, "privileged": sc.Privileged != nil,
				"allowPrivilegeEscalation": sc.AllowPrivilegeEscalation != nil, "procMount": sc.ProcMount != nil,
				"runAsUser": sc.RunAsUser != nil, "runAsGroup": sc.RunAsGroup != nil,
			})
		}
	})
	return errs
}
