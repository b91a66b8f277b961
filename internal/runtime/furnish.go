package runtime

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/failpoint"
	"carob.dev/carob/internal/network"
	"carob.dev/carob/internal/runtime/oci"
	"carob.dev/carob/internal/sys"
)

// nameSandbox gives the Pod its host name and sets the sysctls of its network.
func (r *Runtime) nameSandbox(rec *sandboxRecord) error {
	return sys.InNamespaces(rec.PausePID, []string{"net", "uts"}, func() error {
		if err := sys.SetHostname(oci.Hostname(rec.Config, r.node.Hostname)); err != nil {
			return fmt.Errorf("set hostname: %w", err)
		}
		if len(rec.IPs) == 0 {
			openToAll()
		}
		return setSysctls(rec.Config.GetLinux().GetSysctls(), ofNetwork)
	})
}

// openToAll lets a Pod's processes use any port and send pings without privileges: the network of the calling thread is their own.
func openToAll() {
	os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
	os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0)
}

// connect gives the Pod an address.
func (r *Runtime) connect(ctx context.Context, rec *sandboxRecord) error {
	req := network.Request{SandboxID: rec.ID}
	for _, p := range rec.Config.GetPortMappings() {
		if p.GetHostPort() == 0 {
			continue
		}
		hp := network.HostPort{Protocol: p.GetProtocol().String(), HostPort: uint16(p.GetHostPort()), ContainerPort: uint16(p.GetContainerPort())}
		if p.GetHostIp() != "" {
			var err error
			if hp.HostIP, err = netip.ParseAddr(p.GetHostIp()); err != nil {
				return status.Errorf(codes.InvalidArgument, "port mapping: %v", err)
			}
		}
		req.HostPorts = append(req.HostPorts, hp)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", rec.PausePID))
	if err != nil {
		return err
	}
	defer ns.Close()
	req.NetNS = ns
	result, err := r.attach(ctx, req)
	rec.IPs = result.IPs
	return err
}

// tuneIPC sets the sysctls that belong to the Pod's own IPC namespace.
func tuneIPC(rec *sandboxRecord, opt *runtimeapi.NamespaceOption) error {
	ours := map[string]string{}
	for key, value := range rec.Config.GetLinux().GetSysctls() {
		if !ofNetwork(key) {
			ours[key] = value
		}
	}
	if len(ours) == 0 {
		return nil
	}
	if !ownIPC(opt) {
		return status.Errorf(codes.InvalidArgument, "sysctls of IPC cannot be set for a Pod in the host's IPC namespace")
	}
	return sys.InNamespaces(rec.PausePID, []string{"ipc"}, func() error {
		if err := asRoot(rec); err != nil {
			return err
		}
		return setSysctls(ours, func(string) bool { return true })
	})
}

func setSysctls(all map[string]string, ours func(string) bool) error {
	for key, value := range all {
		if !ours(key) {
			continue
		}
		if err := os.WriteFile(filepath.Join("/proc/sys", sysctlPath(key)), []byte(value), 0); err != nil {
			return fmt.Errorf("set sysctl %s: %w", key, err)
		}
	}
	return nil
}

// sysctlPath is where a sysctl is below /proc/sys. Whichever of . and / comes first in its name divides the parts; the other one stands for
// itself, as in net.ipv4.conf.eth0/100.rp_filter.
func sysctlPath(name string) string {
	if i := strings.IndexAny(name, "./"); i < 0 || name[i] == '/' {
		return name
	}
	return strings.NewReplacer(".", "/", "/", ".").Replace(name)
}

func ofNetwork(name string) bool { return strings.HasPrefix(sysctlPath(name), "net/") }

// writeSandboxFiles writes the files that containers get mounted.
func (r *Runtime) writeSandboxFiles(rec *sandboxRecord) error {
	dir := r.cfg.sandboxDir(rec.ID)
	hostname := oci.Hostname(rec.Config, r.node.Hostname)
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		hosts = []byte("127.0.0.1\tlocalhost\n::1\tlocalhost\n")
	}
	resolv, err := resolvConf(rec.Config.GetDnsConfig())
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{"hostname": []byte(hostname + "\n"), "hosts": hosts, "resolv.conf": resolv} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
		failpoint.Hit("runtime/sandbox/file")
	}
	return nil
}

// makeShm makes the /dev/shm of a Pod with its own IPC, in pause's mount namespace: there it is in nobody's way and ends with pause. Containers
// get copies.
func makeShm(rec *sandboxRecord) error {
	o := sys.Tmpfs{Size: shmSize, Mode: 0o1777}
	if u := oci.Users(rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()); u != nil {
		o.UID, o.GID = u.GetUids()[0].GetHostId(), u.GetGids()[0].GetHostId()
	}
	return sys.MountTmpfsOver(rec.PausePID, o)
}

// resolvConf is the file for a Pod's DNS; without a configuration, the machine's.
func resolvConf(dns *runtimeapi.DNSConfig) ([]byte, error) {
	if dns == nil {
		data, err := os.ReadFile("/etc/resolv.conf")
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		return data, err
	}
	var b strings.Builder
	if len(dns.GetSearches()) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(dns.GetSearches(), " "))
	}
	for _, s := range dns.GetServers() {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(dns.GetOptions()) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(dns.GetOptions(), " "))
	}
	return []byte(b.String()), nil
}
