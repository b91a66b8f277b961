package sys

import (
	"os"
	"strings"
	"sync"
)

// AppArmor says whether the kernel confines processes by AppArmor profiles.
var AppArmor = sync.OnceValue(func() bool {
	if _, err := os.Stat("/sys/kernel/security/apparmor"); err != nil {
		return false
	}
	raw, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(raw), "Y")
})

// SELinux says whether the kernel labels processes and files, in which case its file system is mounted.
var SELinux = sync.OnceValue(func() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
})

// AppArmorLoaded says whether the kernel has the profile.
func AppArmorLoaded(profile string) bool {
	raw, err := os.ReadFile("/sys/kernel/security/apparmor/profiles")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(raw)) { // name (mode)
		line = strings.TrimSpace(line)
		if i := strings.LastIndex(line, " ("); i >= 0 && line[:i] == profile {
			return true
		}
	}
	return false
}
