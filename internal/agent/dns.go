package agent

import (
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/agent/criconf"
)

// dns is the Pod's resolver configuration, and what was left out of it.
func (a *Agent) dns(pod *corev1.Pod) (*runtimeapi.DNSConfig, string) {
	return criconf.DNS(criconf.DNSInput{Pod: pod, Host: hostDNS(), ClusterServers: a.cfg.ClusterDNS, ClusterDomain: a.cfg.ClusterDomain})
}

// hostDNS is the node's resolver configuration. Where that is a stub on the loopback, which Pods cannot reach, it is the one behind it.
func hostDNS() *runtimeapi.DNSConfig {
	raw, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return &runtimeapi.DNSConfig{}
	}
	c := criconf.ParseResolvConf(string(raw))
	for _, s := range c.Servers {
		if !strings.HasPrefix(s, "127.") && s != "::1" {
			return c
		}
	}
	if raw, err := os.ReadFile("/run/systemd/resolve/resolv.conf"); err == nil && len(c.Servers) > 0 {
		return criconf.ParseResolvConf(string(raw))
	}
	return c
}
