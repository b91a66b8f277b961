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

// SELinux says whether the kernel labels processes and files by an SELinux policy.
var SELinux = sync.OnceValue(func() bool {
	raw, err := os.ReadFile("/proc/filesystems")
	if err != nil || !strings.Contains(string(raw), "selinuxfs") {
		return false
	}
	_, err = os.Stat("/sys/fs/selinux/enforce") // a kernel without a loaded policy has no such file
	return err == nil
})
