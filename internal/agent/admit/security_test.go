package admit

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func TestSecurity(t *testing.T) {
	sysctl := func(name string, change ...func(*corev1.PodSpec)) *corev1.Pod {
		return pod(func(s *corev1.PodSpec) {
			s.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: name, Value: "1"}}}
			for _, c := range change {
				c(s)
			}
		})
	}
	forbidden := func(why string) *Rejection {
		return &Rejection{Reason: "SysctlForbidden", Message: "Pod was rejected: forbidden sysctl: " + why}
	}
	ownUsers := func(s *corev1.PodSpec) { s.HostUsers = ptr.To(false) }
	profile := func(kind corev1.AppArmorProfileType) *corev1.Pod {
		return pod(func(s *corev1.PodSpec) {
			s.Containers[0].SecurityContext = &corev1.SecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: kind}}
		})
	}
	node := Security{UnsafeSysctls: []string{"kernel.msg*", "net.core.somaxconn", "user.*"}}
	for name, tt := range map[string]struct {
		node Security
		pod  *corev1.Pod
		want *Rejection
	}{
		"nothing":            {node, pod(nil), nil},
		"safe":               {Security{}, sysctl("kernel.shm_rmid_forced"), nil},
		"safe with slashes":  {Security{}, sysctl("net/ipv4/tcp_rmem"), nil},
		"unsafe":             {Security{}, sysctl("net.core.somaxconn"), forbidden(`"net.core.somaxconn" not allowlisted`)},
		"allowed":            {node, sysctl("net.core.somaxconn"), nil},
		"allowed by begin":   {node, sysctl("kernel.msgmax"), nil},
		"longer than one":    {node, sysctl("net.core.somaxconn2"), forbidden(`"net.core.somaxconn2" not allowlisted`)},
		"the machine's":      {node, sysctl("kernel.panic"), forbidden(`"kernel.panic" not allowlisted`)},
		"of the host's IPC":  {node, sysctl("kernel.msgmax", func(s *corev1.PodSpec) { s.HostIPC = true }), forbidden(`"kernel.msgmax" not allowed with host IPC enabled`)},
		"of the host's net":  {Security{}, sysctl("net.ipv4.tcp_rmem", func(s *corev1.PodSpec) { s.HostNetwork = true }), forbidden(`"net.ipv4.tcp_rmem" not allowed with host Net enabled`)},
		"of the host's user": {node, sysctl("user.max_net_namespaces"), forbidden(`"user.max_net_namespaces" not allowed with host User enabled`)},
		"of its own user":    {node, sysctl("user.max_net_namespaces", ownUsers), nil},
		"default profile":    {node, profile(corev1.AppArmorProfileTypeRuntimeDefault), nil},
		"profile":            {node, profile(corev1.AppArmorProfileTypeLocalhost), &Rejection{Reason: "AppArmor", Message: "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host"}},
		"profile, enforced":  {Security{AppArmor: true}, profile(corev1.AppArmorProfileTypeLocalhost), nil},
	} {
		if d := cmp.Diff(tt.want, tt.node.Check(tt.pod)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestCheckSysctls(t *testing.T) {
	if err := CheckSysctls([]string{"net.core.somaxconn", "kernel.msg*", "kernel/shm*", "net.*", "fs.mqueue.*", "kernel.sem"}); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "*", "kernel.*", "kernel.panic", "net*", "net.*.x*"} {
		if err := CheckSysctls([]string{bad}); err == nil || !strings.Contains(err.Error(), `"`+bad+`"`) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
