package oci

import (
	"fmt"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Profile is the profile of a kind (seccomp, apparmor) that a security context asks for: p, or where that is nil, what the field that came
// before it says: runtime/default, unconfined or localhost/<name>. Nil if neither says anything.
func Profile(kind string, p *runtimeapi.SecurityProfile, old string) (*runtimeapi.SecurityProfile, error) {
	if p != nil || old == "" {
		return p, nil
	}
	name, local := strings.CutPrefix(old, "localhost/")
	switch {
	case old == "runtime/default":
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case old == "unconfined":
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	case local && name != "":
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: name}, nil
	}
	return nil, fmt.Errorf("%s: profile %q: want runtime/default, unconfined or localhost/<name>", kind, old)
}

// Seccomp is the seccomp profile that a security context asks for, nil for none.
func Seccomp(sc *runtimeapi.LinuxContainerSecurityContext) (*runtimeapi.SecurityProfile, error) {
	return Profile("seccomp", sc.GetSeccomp(), sc.GetSeccompProfilePath())
}

// appArmorDefault is the profile that containers have which name none, if the machine's administrator has loaded it.
const appArmorDefault = "carob-default"

// apparmor is the name of the profile that the container runs under; empty for none.
func apparmor(node Node, sc *runtimeapi.LinuxContainerSecurityContext) (string, error) {
	p, err := Profile("apparmor", sc.GetApparmor(), sc.GetApparmorProfile())
	switch {
	case err != nil:
		return "", err
	case sc.GetPrivileged(), p.GetProfileType() == runtimeapi.SecurityProfile_Unconfined:
		return "", nil
	case p.GetProfileType() == runtimeapi.SecurityProfile_RuntimeDefault: // or nil
		if node.AppArmor != nil && node.AppArmor(appArmorDefault) {
			return appArmorDefault, nil
		}
		return "", nil
	}
	name := strings.TrimPrefix(p.GetLocalhostRef(), "localhost/")
	switch {
	case node.AppArmor == nil:
		return "", fmt.Errorf("apparmor: profile %q: AppArmor is not enabled on this machine", name)
	case !node.AppArmor(name):
		return "", fmt.Errorf("apparmor: profile %q is not loaded into the kernel", name)
	}
	return name, nil
}
