package pod

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kernel "k8s.io/component-helpers/node/util/sysctl"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/rule"
)

// sysctlName is a sysctl's name, its parts divided by dots or slashes.
var sysctlName = regexp.MustCompile(`^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`)

// maxSysctlName is the greatest length of a sysctl's name, in characters.
const maxSysctlName = 253

// validatePodSecurity checks the Pod's security context and what it may not be combined with.
func validatePodSecurity(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	if ptr.Deref(s.ShareProcessNamespace, false) && s.HostPID {
		errs = append(errs, field.Invalid(path.Child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled"))
	}
	errs = append(errs, validateHostUsers(path, s)...)
	sc := s.SecurityContext
	if sc == nil {
		return errs
	}
	at := path.Child("securityContext")
	errs = append(errs, group(at.Child("fsGroup"), sc.FSGroup)...)
	errs = append(errs, user(at.Child("runAsUser"), sc.RunAsUser)...)
	errs = append(errs, group(at.Child("runAsGroup"), sc.RunAsGroup)...)
	for i := range sc.SupplementalGroups {
		errs = append(errs, group(at.Child("supplementalGroups").Index(i), &sc.SupplementalGroups[i])...)
	}
	errs = append(errs, validateSysctls(at.Child("sysctls"), s)...)
	if p := sc.FSGroupChangePolicy; p != nil {
		errs = append(errs, rule.Known(at.Child("fsGroupChangePolicy"), *p, corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)...)
	}
	errs = append(errs, validateSeccomp(at.Child("seccompProfile"), sc.SeccompProfile)...)
	errs = append(errs, validateAppArmor(at.Child("appArmorProfile"), sc.AppArmorProfile)...)
	if p := sc.SupplementalGroupsPolicy; p != nil {
		errs = append(errs, rule.Known(at.Child("supplementalGroupsPolicy"), *p,
			corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)...)
	}
	return errs
}

func group(at *field.Path, gid *int64) field.ErrorList {
	if gid == nil {
		return nil
	}
	return rule.Messages(at, *gid, validation.IsValidGroupID(*gid))
}

func validateSysctls(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
	for i, sysctl := range s.SecurityContext.Sysctls {
		at := path.Index(i).Child("name")
		switch {
		case sysctl.Name == "":
			errs = append(errs, field.Required(at, ""))
		case len(sysctl.Name) > maxSysctlName || !sysctlName.MatchString(sysctl.Name):
			errs = append(errs, field.Invalid(at, sysctl.Name,
				fmt.Sprintf("must have at most %d characters and match regex %s", maxSysctlName, sysctlName)))
		case names[sysctl.Name]:
			errs = append(errs, field.Duplicate(at, sysctl.Name))
		}
		names[sysctl.Name] = true
		switch namespace, _, _ := kernel.GetNamespace(sysctl.Name); {
		case s.HostNetwork && namespace == kernel.NetNamespace:
			errs = append(errs, field.Invalid(at, sysctl.Name, "may not be specified when 'hostNetwork' is true"))
		case s.HostIPC && namespace == kernel.IPCNamespace:
			errs = append(errs, field.Invalid(at, sysctl.Name, "may not be specified when 'hostIPC' is true"))
		}
	}
	return errs
}

func validateSeccomp(at *field.Path, p *corev1.SeccompProfile) field.ErrorList {
	if p == nil {
		return nil
	}
	var errs field.ErrorList
	if p.Type == "" {
		errs = append(errs, field.Required(at.Child("type"), "type is required when seccompProfile is set"))
	} else {
		errs = rule.OneOf(at.Child("type"), p.Type,
			corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)
	}
	local := p.Type == corev1.SeccompProfileTypeLocalhost
	switch {
	case local && p.LocalhostProfile == nil:
		errs = append(errs, field.Required(at.Child("localhostProfile"), "must be set when seccomp type is Localhost"))
	case local:
		errs = append(errs, descending(at.Child("localhostProfile"), *p.LocalhostProfile)...)
	case p.LocalhostProfile != nil:
		errs = append(errs, field.Invalid(at.Child("localhostProfile"), p, "can only be set when seccomp type is Localhost"))
	}
	return errs
}

// maxAppArmorName is the greatest length of an AppArmor profile's name, in bytes.
const maxAppArmorName = 4095

func validateAppArmor(at *field.Path, p *corev1.AppArmorProfile) field.ErrorList {
	if p == nil {
		return nil
	}
	name := at.Child("localhostProfile")
	switch p.Type {
	case corev1.AppArmorProfileTypeLocalhost:
		trimmed := strings.TrimSpace(ptr.Deref(p.LocalhostProfile, ""))
		switch {
		case trimmed == "":
			return field.ErrorList{field.Required(name, "must be set when AppArmor type is Localhost")}
		case trimmed != *p.LocalhostProfile:
			return field.ErrorList{field.Invalid(name, *p.LocalhostProfile, "must not be padded with whitespace")}
		case len(trimmed) > maxAppArmorName:
			return field.ErrorList{field.TooLong(name, *p.LocalhostProfile, maxAppArmorName)}
		}
		return nil
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
		if p.LocalhostProfile != nil {
			return field.ErrorList{field.Invalid(name, *p.LocalhostProfile, "can only be set when AppArmor type is Localhost")}
		}
		return nil
	case "":
		return field.ErrorList{field.Required(at.Child("type"), "type is required when appArmorProfile is set")}
	}
	return rule.OneOf(at.Child("type"), p.Type, corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault,
		corev1.AppArmorProfileTypeUnconfined)
}

// validateHostUsers checks what a user namespace of the Pod's own rules out, and what asks for one.
func validateHostUsers(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	if ptr.Deref(s.HostUsers, true) {
		eachContainer(s, path, func(c *corev1.Container, at *field.Path) {
			if sc := c.SecurityContext; sc != nil && ptr.Deref(sc.ProcMount, "") == corev1.UnmaskedProcMount {
				errs = append(errs, field.Invalid(at.Child("securityContext", "procMount"), sc.ProcMount, "`hostUsers` must be false to use `Unmasked`"))
			}
		})
		return errs
	}
	for _, f := range []struct {
		name string
		set  bool
	}{{"hostNetwork", s.HostNetwork}, {"HostPID", s.HostPID}, {"HostIPC", s.HostIPC}} {
		if f.set {
			errs = append(errs, field.Forbidden(path.Child(f.name), "when `hostUsers` is false"))
		}
	}
	return errs
}

// validateSecurity checks the security context of one container.
func validateSecurity(at *field.Path, sc *corev1.SecurityContext) field.ErrorList {
	if sc == nil {
		return nil
	}
	errs := user(at.Child("runAsUser"), sc.RunAsUser)
	errs = append(errs, group(at.Child("runAsGroup"), sc.RunAsGroup)...)
	if m := sc.ProcMount; m != nil {
		errs = append(errs, rule.Known(at.Child("procMount"), *m, corev1.DefaultProcMount, corev1.UnmaskedProcMount)...)
	}
	errs = append(errs, validateSeccomp(at.Child("seccompProfile"), sc.SeccompProfile)...)
	errs = append(errs, validateAppArmor(at.Child("appArmorProfile"), sc.AppArmorProfile)...)
	if ptr.Deref(sc.AllowPrivilegeEscalation, true) {
		return errs
	}
	if ptr.Deref(sc.Privileged, false) {
		errs = append(errs, field.Invalid(at, sc, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"))
	}
	if sc.Capabilities != nil {
		for _, c := range sc.Capabilities.Add {
			if c == "CAP_SYS_ADMIN" {
				errs = append(errs, field.Invalid(at, sc, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"))
			}
		}
	}
	return errs
}
