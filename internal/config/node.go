package config

import (
	"errors"
	"net/netip"
	"path/filepath"
	"strconv"
)

// Node says how the node's agent works. The names of its settings are kubelet's where it has such.
type Node struct {
	// Bind is the address of the agent's own server (logs, exec, statistics), as 10250 is kubelet's. With port 0 there is none.
	Bind netip.AddrPort
	// KubeletDir is the name by which CSI drivers, whose manifests say /var/lib/kubelet, know the root: a symbolic link that the agent makes.
	// Empty: they must be told the root itself.
	KubeletDir string
	Eviction   Eviction
	Shutdown   Shutdown
	Memory     Memory
	// KubeReserved and SystemReserved are what of cpu, memory, ephemeral-storage and pid is never given to Pods, as quantities.
	KubeReserved, SystemReserved map[string]string
	// PodMaxPIDs is how many processes and threads a Pod may have; -1 for as many as there can be.
	PodMaxPIDs int64
}

func defaultNode(root string) Node {
	n := Node{Bind: netip.MustParseAddrPort("0.0.0.0:10250"), PodMaxPIDs: -1, Eviction: defaultEviction()}
	if root == DefaultRoot {
		n.KubeletDir = "/var/lib/kubelet"
	}
	return n
}

func nodeSettings() []setting {
	return []setting{
		{"agent-port", "TCP port of the node's own server, which is kubelet's HTTPS API; 0 for none",
			func(c *Config) string { return strconv.Itoa(int(c.Node.Bind.Port())) },
			func(c *Config, v string) error {
				if v == "0" {
					c.Node.Bind = netip.AddrPortFrom(c.Node.Bind.Addr(), 0)
					return nil
				}
				p, err := port(v)
				c.Node.Bind = netip.AddrPortFrom(c.Node.Bind.Addr(), p)
				return err
			}},
		{"agent-bind-address", "address that the node's own server listens on",
			func(c *Config) string { return c.Node.Bind.Addr().String() },
			func(c *Config, v string) error {
				a, err := netip.ParseAddr(v)
				c.Node.Bind = netip.AddrPortFrom(a, c.Node.Bind.Port())
				return err
			}},
		{"kubelet-dir", "folder that CSI drivers expect the node's state in: a link to the root, made if nothing is there; empty for none, as for any root but the default",
			func(c *Config) string { return c.Node.KubeletDir },
			func(c *Config, v string) error {
				if v != "" && !filepath.IsAbs(v) {
					return errors.New("must be an absolute path")
				}
				c.Node.KubeletDir = v
				return nil
			}},
	}
}
