package criconf

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Limits of the resolver in C libraries, as Kubernetes holds them.
const (
	maxServers    = 3
	maxSearches   = 32
	maxSearchSize = 2048
)

// DNSInput decides a Pod's DNS.
type DNSInput struct {
	Pod *corev1.Pod
	// Host is the node's own configuration.
	Host *runtimeapi.DNSConfig
	// ClusterServers is the cluster's DNS; empty while it has none.
	ClusterServers []string
	ClusterDomain  string
}

// DNS is the Pod's resolver configuration, and what was left out of it, in Kubernetes' words, if anything.
func DNS(in DNSInput) (*runtimeapi.DNSConfig, string) {
	policy := in.Pod.Spec.DNSPolicy
	cluster := policy == corev1.DNSClusterFirstWithHostNet || policy == corev1.DNSClusterFirst && !in.Pod.Spec.HostNetwork
	out := &runtimeapi.DNSConfig{}
	switch {
	case policy == corev1.DNSNone:
	case cluster && len(in.ClusterServers) > 0:
		domain := in.ClusterDomain
		out.Servers = slices.Clone(in.ClusterServers)
		out.Searches = append([]string{in.Pod.Namespace + ".svc." + domain, "svc." + domain, domain}, in.Host.GetSearches()...)
		out.Options = []string{"ndots:5"}
	default:
		out.Servers, out.Searches, out.Options = slices.Clone(in.Host.GetServers()), slices.Clone(in.Host.GetSearches()), slices.Clone(in.Host.GetOptions())
	}
	if c := in.Pod.Spec.DNSConfig; c != nil {
		out.Servers = unique(append(out.Servers, c.Nameservers...))
		out.Searches = unique(append(out.Searches, c.Searches...))
		out.Options = mergeOptions(out.Options, c.Options)
	}
	return out, clip(out)
}

func unique(list []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(list, func(s string) bool {
		was := seen[s]
		seen[s] = true
		return was
	})
}

// mergeOptions puts the Pod's options over those of the same name.
func mergeOptions(have []string, add []corev1.PodDNSConfigOption) []string {
	for _, o := range add {
		have = slices.DeleteFunc(have, func(s string) bool {
			name, _, _ := strings.Cut(s, ":")
			return name == o.Name
		})
		if o.Value != nil && *o.Value != "" {
			have = append(have, o.Name+":"+*o.Value)
		} else {
			have = append(have, o.Name)
		}
	}
	return have
}

func clip(c *runtimeapi.DNSConfig) string {
	var notes []string
	if len(c.Servers) > maxServers {
		c.Servers = c.Servers[:maxServers]
		notes = append(notes, "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "+strings.Join(c.Servers, " "))
	}
	had := len(c.Searches)
	if had > maxSearches {
		c.Searches = c.Searches[:maxSearches]
	}
	for len(strings.Join(c.Searches, " ")) > maxSearchSize {
		c.Searches = c.Searches[:len(c.Searches)-1]
	}
	if len(c.Searches) < had {
		notes = append(notes, "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "+strings.Join(c.Searches, " "))
	}
	return strings.Join(notes, "; ")
}

// ParseResolvConf reads a resolv.conf: of search lines the last counts, as for the C library.
func ParseResolvConf(text string) *runtimeapi.DNSConfig {
	c := &runtimeapi.DNSConfig{}
	for line := range strings.Lines(text) {
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			c.Servers = append(c.Servers, f[1])
		case "search":
			c.Searches = nil
			for _, s := range f[1:] {
				if s != "." {
					s = strings.TrimSuffix(s, ".")
				}
				c.Searches = append(c.Searches, s)
			}
		case "options":
			c.Options = append(c.Options, f[1:]...)
		}
	}
	return c
}

// Hosts is the content of the Pod's /etc/hosts. host is the node's, used for a Pod on its network.
func Hosts(pod *corev1.Pod, ips []string, host []byte, clusterDomain string) []byte {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.Write(host)
	} else {
		b.WriteString("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n" +
			"fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		short, domain := Hostname(pod, clusterDomain)
		for _, ip := range ips {
			if domain != "" {
				fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, short, domain, short)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, short)
			}
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
		}
	}
	return []byte(b.String())
}
