package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

// validateOS knows Linux and Windows. A Pod for Windows is an object like others; the nodes of Carob, which are Linux, reject it. It may have none of
// the fields that mean something on Linux alone.
func validateOS(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	switch {
	case s.OS == nil:
		return nil
	case s.OS.Name == "":
		return field.ErrorList{field.Required(path.Child("os", "name"), "")}
	case s.OS.Name == corev1.Windows:
		return linuxOnly(path, s)
	}
	return rule.Known(path.Child("os"), s.OS.Name, corev1.Linux, corev1.Windows)
}

func linuxOnly(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	none := func(at *field.Path, name string, set bool) {
		if set {
			errs = append(errs, field.Forbidden(at.Child(name), "cannot be set for a windows pod"))
		}
	}
	if sc := s.SecurityContext; sc != nil {
		at := path.Child("securityContext")
		none(at, "appArmorProfile", sc.AppArmorProfile != nil)
		none(at, "seLinuxOptions", sc.SELinuxOptions != nil)
		none(at, "seccompProfile", sc.SeccompProfile != nil)
		none(at, "fsGroup", sc.FSGroup != nil)
		none(at, "fsGroupChangePolicy", sc.FSGroupChangePolicy != nil)
		none(at, "sysctls", len(sc.Sysctls) > 0)
		none(at, "runAsUser", sc.RunAsUser != nil)
		none(at, "runAsGroup", sc.RunAsGroup != nil)
		none(at, "supplementalGroups", sc.SupplementalGroups != nil)
		none(at, "supplementalGroupsPolicy", sc.SupplementalGroupsPolicy != nil)
	}
	none(path, "hostUsers", s.HostUsers != nil)
	none(path, "hostPID", s.HostPID)
	none(path, "hostIPC", s.HostIPC)
	none(path, "shareProcessNamespace", s.ShareProcessNamespace != nil)
	eachContainer(s, path, func(c *corev1.Container, at *field.Path) {
		sc := c.SecurityContext
		if sc == nil {
			return
		}
		at = at.Child("securityContext")
		none(at, "appArmorProfile", sc.AppArmorProfile != nil)
		none(at, "seLinuxOptions", sc.SELinuxOptions != nil)
		none(at, "seccompProfile", sc.SeccompProfile != nil)
		none(at, "capabilities", sc.Capabilities != nil)
		none(at, "readOnlyRootFilesystem", sc.ReadOnlyRootFilesystem != nil)
		none(at, "privileged", sc.Privileged != nil)
		none(at, "allowPrivilegeEscalation", sc.AllowPrivilegeEscalation != nil)
		none(at, "procMount", sc.ProcMount != nil)
		none(at, "runAsUser", sc.RunAsUser != nil)
		none(at, "runAsGroup", sc.RunAsGroup != nil)
	})
	return errs
}
