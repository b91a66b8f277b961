// Package config is the one typed description of what a Carob process should be: where its state lives, what its node
// is called, which ranges its networks use.
//
// It may be imported by every package and imports nothing of the project. A Config is made once, by the command line,
// and never changes afterwards.
package config

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"path/filepath"
	"time"
)

// DefaultRoot is the state folder of a Carob that was given none.
const DefaultRoot = "/var/lib/carob"

// Config says what one Carob process is. The zero value is not usable; start from Default.
type Config struct {
	// Root is the absolute folder that holds everything that outlives a reboot.
	Root string
	// NodeName is the node's name in the API: any DNS subdomain.
	NodeName string
	// APIBind is the address that the API server listens on. Port 0 is refused.
	APIBind netip.AddrPort
	// Static says where the Pods are that the node runs by itself.
	Static Static
	// Node says how the node's agent works.
	Node Node
	// PodCIDR is the cluster's range of Pod addresses; the node's own range is cut from it.
	PodCIDR netip.Prefix
	// NodeCIDRMaskSize is the prefix length of one node's share of PodCIDR.
	NodeCIDRMaskSize int
	// ServiceCIDR is the range of ClusterIPs.
	ServiceCIDR netip.Prefix
	// MaxPods is the number of Pods that the node takes.
	MaxPods int
	// MaxContainerRestartPeriod is the longest wait before a container that ends again and again is started again.
	MaxContainerRestartPeriod time.Duration
	// CgroupDriver is who makes cgroups: cgroupfs (this program, by their folders) or systemd. Of another runtime it is what that says.
	CgroupDriver string
	// WarmSandboxes is how many sandboxes are kept ready for Pods to come, at most; 0 for none.
	WarmSandboxes int
	// LogLevel is one of debug, info, warn, error.
	LogLevel string
	// Kubeconfig is where the admin's kubeconfig is written.
	Kubeconfig string
	// RegistryConfigDir holds <registry host>/hosts.toml files, laid out as containerd's certs.d is.
	RegistryConfigDir string
	// DatastoreEndpoints are the etcd servers to use instead of the embedded store; empty for the embedded one.
	DatastoreEndpoints []string
	// RuntimeEndpoint is the socket of another CRI runtime to use instead of the embedded one, as unix:///path; empty for the embedded one.
	// ImageEndpoint is that of its image service, empty for the same.
	RuntimeEndpoint, ImageEndpoint string
	// OCIRuntimes maps a handler's name (as RuntimeClass names it) to the path of a program with the OCI runtime
	// command line. The handler "" is the default.
	OCIRuntimes map[string]string
	// Images says how the node gets its images, and when it drops them.
	Images Images
	// ContainerLogs says how much of each container's log is kept.
	ContainerLogs ContainerLogs
	// AllowedUnsafeSysctls are sysctls, or beginnings of names that end with *, that Pods may set besides the safe ones.
	AllowedUnsafeSysctls []string
	// CDISpecDirs are the folders of CDI specifications, those that win last.
	CDISpecDirs []string
}

// Default returns the Config of a Carob whose state is in root, which must be absolute.
func Default(root string) Config {
	root = filepath.Clean(root)
	return Config{
		Root:                      root,
		APIBind:                   netip.MustParseAddrPort("0.0.0.0:6443"),
		Node:                      defaultNode(root),
		PodCIDR:                   netip.MustParsePrefix("10.42.0.0/16"),
		NodeCIDRMaskSize:          24,
		ServiceCIDR:               netip.MustParsePrefix("10.43.0.0/16"),
		MaxPods:                   110,
		CgroupDriver:              "cgroupfs",
		WarmSandboxes:             4,
		LogLevel:                  "info",
		MaxContainerRestartPeriod: 5 * time.Minute,
		Kubeconfig:                "/etc/carob/admin.kubeconfig",
		RegistryConfigDir:         "/etc/carob/certs.d",
		Images:                    defaultImages(),
		ContainerLogs:             ContainerLogs{MaxSize: 10 << 20, MaxFiles: 5},
		OCIRuntimes:               map[string]string{"": "crun", "crun": "crun", "runc": "runc"},
		CDISpecDirs:               []string{"/etc/cdi", "/var/run/cdi"},
	}
}

// ID tells this Carob from others on the machine: empty for the default root, else the first 8 hex digits of the
// SHA-256 of the root's path. It is part of every name that the kernel sees.
func (c Config) ID() string {
	if c.Root == DefaultRoot {
		return ""
	}
	sum := sha256.Sum256([]byte(c.Root))
	return hex.EncodeToString(sum[:4])
}

// RunDir is the folder for sockets and for facts that matter only until the next reboot: /run/carob or /run/carob-<id>.
func (c Config) RunDir() string { return "/run/" + c.CgroupRoot() }

// CgroupRoot is the name of the top cgroup that all of this Carob's Pods and shims live under: carob or carob-<id>.
func (c Config) CgroupRoot() string {
	if id := c.ID(); id != "" {
		return "carob-" + id
	}
	return "carob"
}

// NFTable is the name of the one nftables table that is this Carob's: carob or carob_<id>.
func (c Config) NFTable() string {
	if id := c.ID(); id != "" {
		return "carob_" + id
	}
	return "carob"
}

// Path joins the elements below Root.
func (c Config) Path(elem ...string) string {
	return filepath.Join(append([]string{c.Root}, elem...)...)
}
