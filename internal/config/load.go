package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// setting is one thing that a user can set: by a key of the configuration file, by the environment (CAROB_ and the name in capitals,
// dashes as underscores), or by a flag of that name. A later one wins.
type setting struct {
	name, usage string
	get         func(*Config) string
	set         func(*Config, string) error
}

func settings() []setting {
	return slices.Concat(imageSettings(), logSettings(), nodeSettings(), evictionSettings(), shutdownSettings(), memorySettings(), staticSettings(), []setting{
		{"node-name", "name of this node: a DNS subdomain (default: the machine's host name)",
			func(c *Config) string { return c.NodeName },
			func(c *Config, v string) error { c.NodeName = v; return nil }},
		{"api-port", "TCP port of the API server",
			func(c *Config) string { return strconv.Itoa(int(c.APIBind.Port())) },
			func(c *Config, v string) error {
				p, err := port(v)
				c.APIBind = netip.AddrPortFrom(c.APIBind.Addr(), p)
				return err
			}},
		{"bind-address", "address that the API server listens on",
			func(c *Config) string { return c.APIBind.Addr().String() },
			func(c *Config, v string) error {
				a, err := netip.ParseAddr(v)
				c.APIBind = netip.AddrPortFrom(a, c.APIBind.Port())
				return err
			}},
		{"pod-cidr", "the cluster's range of Pod addresses",
			func(c *Config) string { return c.PodCIDR.String() },
			func(c *Config, v string) (err error) { c.PodCIDR, err = prefix(v); return err }},
		{"node-cidr-mask-size", "prefix length of one node's share of the Pod range",
			func(c *Config) string { return strconv.Itoa(c.NodeCIDRMaskSize) },
			func(c *Config, v string) (err error) { c.NodeCIDRMaskSize, err = strconv.Atoi(v); return err }},
		{"service-cidr", "the range of Services' cluster addresses",
			func(c *Config) string { return c.ServiceCIDR.String() },
			func(c *Config, v string) (err error) { c.ServiceCIDR, err = prefix(v); return err }},
		{"max-pods", "number of Pods that this node takes",
			func(c *Config) string { return strconv.Itoa(c.MaxPods) },
			func(c *Config, v string) (err error) { c.MaxPods, err = strconv.Atoi(v); return err }},
		{"max-container-restart-period", "longest wait before a container that ends again and again is started again, 1s to 5m",
			func(c *Config) string { return c.MaxContainerRestartPeriod.String() },
			func(c *Config, v string) (err error) {
				c.MaxContainerRestartPeriod, err = time.ParseDuration(v)
				return err
			}},
		{"cgroup-driver", "who makes the cgroups of Pods: cgroupfs, for this program itself, or systemd; with --runtime-endpoint it is as that runtime says",
			func(c *Config) string { return c.CgroupDriver },
			func(c *Config, v string) error {
				if v != "cgroupfs" && v != "systemd" {
					return errors.New("must be cgroupfs or systemd")
				}
				c.CgroupDriver = v
				return nil
			}},
		{"warm-sandboxes", "number of sandboxes that are kept ready for Pods to come, at most; 0 for none",
			func(c *Config) string { return strconv.Itoa(c.WarmSandboxes) },
			func(c *Config, v string) (err error) { c.WarmSandboxes, err = strconv.Atoi(v); return err }},
		{"log-level", "debug, info, warn or error",
			func(c *Config) string { return c.LogLevel },
			func(c *Config, v string) error { c.LogLevel = v; return nil }},
		{"kubeconfig", "file to write the admin's kubeconfig to",
			func(c *Config) string { return c.Kubeconfig },
			func(c *Config, v string) error { c.Kubeconfig = v; return nil }},
		{"registry-config-dir", "folder of <registry>/hosts.toml files, as containerd's certs.d",
			func(c *Config) string { return c.RegistryConfigDir },
			func(c *Config, v string) error { c.RegistryConfigDir = v; return nil }},
		{"datastore-endpoint", "etcd servers to use instead of the embedded store, separated by commas",
			func(c *Config) string { return strings.Join(c.DatastoreEndpoints, ",") },
			func(c *Config, v string) error { c.DatastoreEndpoints = list(v); return nil }},
		{"runtime-endpoint", "socket of a CRI runtime to use instead of the embedded one, as unix:///run/containerd/containerd.sock",
			func(c *Config) string { return c.RuntimeEndpoint },
			func(c *Config, v string) error { c.RuntimeEndpoint = v; return nil }},
		{"image-endpoint", "socket of that runtime's image service (default: the same)",
			func(c *Config) string { return c.ImageEndpoint },
			func(c *Config, v string) error { c.ImageEndpoint = v; return nil }},
		{"oci-runtime", "handlers and their OCI runtimes, as crun=/usr/bin/crun,runc=runc; the first is the default",
			func(c *Config) string { return formatRuntimes(c.OCIRuntimes) },
			func(c *Config, v string) (err error) { c.OCIRuntimes, err = parseRuntimes(v); return err }},
		{"allowed-unsafe-sysctls", "sysctls that Pods may set besides the safe ones, separated by commas; a * at the end stands for any rest",
			func(c *Config) string { return strings.Join(c.AllowedUnsafeSysctls, ",") },
			func(c *Config, v string) error { c.AllowedUnsafeSysctls = list(v); return nil }},
		{"cdi-spec-dirs", "folders of CDI specifications of devices, separated by commas; the later ones win",
			func(c *Config) string { return strings.Join(c.CDISpecDirs, ",") },
			func(c *Config, v string) error { c.CDISpecDirs = list(v); return nil }},
	})
}

// Source collects what a command line says; Load puts it together with the file and the environment.
type Source struct {
	root, file string
	// recall says that the settings of the Carob that ran last are the defaults.
	recall bool
	flags  *pflag.FlagSet
}

// remembered is the file in Root that holds the settings of the Carob that ran last.
const remembered = "settings.yaml"

// Remember writes the settings down, so that commands which are told no more than the root act on the Carob that is there.
func (c Config) Remember(write func(path string, data []byte) error) error {
	all := map[string]string{}
	for _, s := range settings() {
		if v := s.get(&c); v != "" {
			all[s.name] = v
		}
	}
	raw, err := yaml.Marshal(all)
	if err != nil {
		return err
	}
	return write(c.Path(remembered), raw)
}

// Remembered returns the settings of the Carob of this root that ran last; ok is false if none did.
func (c Config) Remembered() (_ Config, ok bool, err error) {
	path := c.Path(remembered)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return Config{}, false, nil
	}
	values, err := readFile(path)
	if err != nil {
		return Config{}, false, err
	}
	old := Default(c.Root)
	for _, s := range settings() {
		if v, there := values[s.name]; there {
			if err := s.set(&old, v); err != nil {
				return Config{}, false, fmt.Errorf("%s: %s: %w", path, s.name, err)
			}
		}
	}
	return old, true, nil
}

// AddRootFlag adds --root alone, for commands that act on a Carob that is there already: it knows its settings.
func AddRootFlag(fs *pflag.FlagSet) *Source {
	s := addRootFlag(fs)
	s.recall = true
	return s
}

func addRootFlag(fs *pflag.FlagSet) *Source {
	s := &Source{flags: fs}
	fs.StringVar(&s.root, "root", envOr("CAROB_ROOT", DefaultRoot), "folder for all of this Carob's state; it also names its cgroups, links and sockets")
	return s
}

// AddFlags adds --root, --config and a flag for every setting.
func AddFlags(fs *pflag.FlagSet) *Source {
	s := addRootFlag(fs)
	fs.StringVar(&s.file, "config", os.Getenv("CAROB_CONFIG"), "YAML file of settings, named as the flags are")
	def := Default(DefaultRoot)
	for _, set := range settings() {
		fs.String(set.name, set.get(&def), set.usage)
	}
	return s
}

// Load makes the Config: defaults, then the file, then the environment, then flags. An unknown key of the file, a value that does not
// parse and values that contradict each other are errors that name the setting.
func (s *Source) Load() (Config, error) {
	root, err := filepath.Abs(s.root)
	if err != nil {
		return Config{}, fmt.Errorf("--root %q: %w", s.root, err)
	}
	c := Default(root)
	if host, err := os.Hostname(); err == nil {
		c.NodeName = strings.ToLower(host)
	}
	if s.recall {
		if _, err := os.Stat(c.Path(remembered)); err == nil {
			s.file = c.Path(remembered)
		}
	}
	fromFile, err := readFile(s.file)
	if err != nil {
		return Config{}, err
	}
	for _, set := range settings() {
		if v, ok := fromFile[set.name]; ok {
			if err := set.set(&c, v); err != nil {
				return Config{}, fmt.Errorf("%s: %s: %w", s.file, set.name, err)
			}
		}
		env := "CAROB_" + strings.ToUpper(strings.ReplaceAll(set.name, "-", "_"))
		if v, ok := os.LookupEnv(env); ok {
			if err := set.set(&c, v); err != nil {
				return Config{}, fmt.Errorf("$%s: %w", env, err)
			}
		}
		if f := s.flags.Lookup(set.name); f != nil && f.Changed {
			if err := set.set(&c, f.Value.String()); err != nil {
				return Config{}, fmt.Errorf("--%s: %w", set.name, err)
			}
		}
	}
	return c, c.Validate()
}

func readFile(path string) (map[string]string, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	raw := map[string]any{}
	if err := yaml.UnmarshalStrict(bytes.TrimSpace(data), &raw); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	known := settings()
	out := map[string]string{}
	for k, v := range raw {
		if !slices.ContainsFunc(known, func(s setting) bool { return s.name == k }) {
			return nil, fmt.Errorf("%s: unknown setting %q", path, k)
		}
		switch v := v.(type) {
		case []any:
			parts := make([]string, len(v))
			for i := range v {
				parts[i] = fmt.Sprint(v[i])
			}
			out[k] = strings.Join(parts, ",")
		case string, float64, int64, bool:
			out[k] = fmt.Sprint(v)
		default:
			return nil, fmt.Errorf("%s: %s: want a string, a number or a list", path, k)
		}
	}
	return out, nil
}

// subdomain is RFC 1123's, as Kubernetes asks of node names.
var subdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// Validate tells all that is wrong with the values, each by its setting's name.
func (c Config) Validate() error {
	var errs []error
	bad := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("--%s: %s", name, fmt.Sprintf(format, args...)))
	}
	if len(c.Root) > 200 {
		bad("root", "the path has %d bytes; 200 are the most", len(c.Root))
	}
	if c.Root == "/" {
		bad("root", "must not be the root of the file system")
	}
	if len(c.NodeName) > 253 || !subdomain.MatchString(c.NodeName) {
		bad("node-name", "%q is not a lower-case DNS subdomain (RFC 1123), such as node-1.example.com", c.NodeName)
	}
	if c.APIBind.Port() == 0 {
		bad("api-port", "must be from 1 to 65535")
	}
	if c.PodCIDR.IsValid() && (c.NodeCIDRMaskSize < c.PodCIDR.Bits() || c.NodeCIDRMaskSize > c.PodCIDR.Addr().BitLen()-2) {
		bad("node-cidr-mask-size", "%d must be from %d (that of --pod-cidr) to %d", c.NodeCIDRMaskSize, c.PodCIDR.Bits(), c.PodCIDR.Addr().BitLen()-2)
	}
	if c.PodCIDR.Overlaps(c.ServiceCIDR) {
		bad("service-cidr", "%s overlaps --pod-cidr %s", c.ServiceCIDR, c.PodCIDR)
	}
	if c.MaxPods < 1 {
		bad("max-pods", "must be at least 1")
	}
	if p := c.MaxContainerRestartPeriod; p < time.Second || p > 5*time.Minute {
		bad("max-container-restart-period", "%s must be from 1s to 5m", p)
	}
	if c.WarmSandboxes < 0 {
		bad("warm-sandboxes", "must not be negative")
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		bad("log-level", "%q is none of debug, info, warn, error", c.LogLevel)
	}
	for _, e := range []struct{ name, value string }{{"runtime-endpoint", c.RuntimeEndpoint}, {"image-endpoint", c.ImageEndpoint}} {
		if path, ok := strings.CutPrefix(e.value, "unix://"); e.value != "" && (!ok || !filepath.IsAbs(path)) {
			bad(e.name, "%q is not a socket such as unix:///run/containerd/containerd.sock", e.value)
		}
	}
	if c.ImageEndpoint != "" && c.RuntimeEndpoint == "" {
		bad("image-endpoint", "has a meaning only with --runtime-endpoint")
	}
	c.Images.validate(bad)
	c.ContainerLogs.validate(bad)
	c.Node.validate(bad)
	c.Static.validate(bad)
	return errors.Join(errs...)
}

func port(v string) (uint16, error) {
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port from 1 to 65535", v)
	}
	return uint16(n), nil
}

func prefix(v string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(v)
	if err != nil {
		return p, fmt.Errorf("%q is not a range such as 10.42.0.0/16", v)
	}
	return p.Masked(), nil
}

func list(v string) []string {
	return slices.DeleteFunc(strings.Split(v, ","), func(s string) bool { return s == "" })
}

func parseRuntimes(v string) (map[string]string, error) {
	out := map[string]string{}
	for _, part := range list(v) {
		name, path, ok := strings.Cut(part, "=")
		if !ok || name == "" || path == "" {
			return nil, fmt.Errorf("%q is not HANDLER=PROGRAM", part)
		}
		if len(out) == 0 {
			out[""] = path
		}
		out[name] = path
	}
	if len(out) == 0 {
		return nil, errors.New("at least one HANDLER=PROGRAM is needed")
	}
	return out, nil
}

func formatRuntimes(m map[string]string) string {
	var first, rest []string
	for name, path := range m {
		switch {
		case name == "":
		case path == m[""] && len(first) == 0:
			first = []string{name + "=" + path}
		default:
			rest = append(rest, name+"="+path)
		}
	}
	sort.Strings(rest)
	return strings.Join(append(first, rest...), ",")
}

func envOr(key, def string) string {
	if v := os.Getenv(key); v != "" {
		return v
	}
	return def
}

// Args are the flags that make this Config again.
func (c Config) Args() []string {
	args := []string{"--root=" + c.Root}
	for _, s := range settings() {
		args = append(args, "--"+s.name+"="+s.get(&c))
	}
	return args
}
