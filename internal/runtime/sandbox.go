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

	"carob.dev/carob/internal/network"
	"carob.dev/carob/internal/runtime/oci"
	"carob.dev/carob/internal/runtime/shim"
	"carob.dev/carob/internal/runtime/shim/wire"
	"carob.dev/carob/internal/sys"
)

// shmSize is the size of a Pod's /dev/shm in bytes.
const shmSize = 64 << 20

// RunPodSandbox starts the shim and pause, connects the Pod, and prepares what its containers share. On an error nothing is left.
func (r *Runtime) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	if err := checkSandbox(config); err != nil {
		return "", status.Error(codes.InvalidArgument, err.Error())
	}
	if _, _, err := r.binary(handler); err != nil {
		return "", err
	}
	id := newID()
	m := config.GetMetadata()
	name := fmt.Sprintf("pod/%s/%s/%s/%d", m.GetNamespace(), m.GetName(), m.GetUid(), m.GetAttempt())
	if err := r.reserve(name, id); err != nil {
		return "", err
	}
	sb := &sandbox{turn: newTurn(), rec: sandboxRecord{Version: recordVersion, ID: id, Boot: r.boot, CreatedAt: r.cfg.Clock.Now().UnixNano(),
		Handler: handler, Config: config}}
	if err := r.makeSandbox(ctx, sb); err != nil {
		undo := r.destroySandbox(context.WithoutCancel(ctx), sb)
		r.release(name)
		return "", fmt.Errorf("run sandbox of Pod %s/%s: %w", m.GetNamespace(), m.GetName(), errors.Join(err, undo))
	}
	r.tell(runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, id, sb)
	return id, nil
}

func checkSandbox(c *runtimeapi.PodSandboxConfig) error {
	sc := c.GetLinux().GetSecurityContext()
	switch {
	case c.GetMetadata().GetName() == "" || c.GetMetadata().GetUid() == "":
		return errors.New("sandbox config: metadata needs name and uid")
	case c.GetWindows() != nil:
		return errors.New("sandbox config: windows: not supported on Linux")
	case sc.GetNamespaceOptions().GetUsernsOptions() != nil && sc.GetNamespaceOptions().GetUsernsOptions().GetMode() == runtimeapi.NamespaceMode_POD:
		return errors.New("sandbox config: userns_options: user namespaces are not supported")
	case sc.GetSelinuxOptions().GetType() != "" || sc.GetSelinuxOptions().GetLevel() != "":
		return errors.New("sandbox config: selinux_options: SELinux is not supported")
	case len(c.GetHostname()) > 64:
		return errors.New("sandbox config: hostname is longer than the kernel's 64 bytes")
	}
	for key := range c.GetLinux().GetSysctls() {
		if strings.HasPrefix(key, "net.") && sc.GetNamespaceOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE {
			return fmt.Errorf("sandbox config: sysctl %q cannot be set in the host's network", key)
		}
		if !namespaced(key) {
			return fmt.Errorf("sandbox config: sysctl %q belongs to no namespace of a Pod", key)
		}
		if strings.Contains(key, "..") || strings.HasPrefix(key, "/") {
			return fmt.Errorf("sandbox config: sysctl %q", key)
		}
	}
	return nil
}

// namespaced says whether a sysctl is a Pod's own: anything else would change the machine.
func namespaced(key string) bool {
	key = strings.ReplaceAll(key, "/", ".")
	for _, prefix := range []string{"net.", "kernel.shm", "kernel.msg", "fs.mqueue."} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return key == "kernel.sem"
}

// reserve claims a name, so that two requests for the same attempt do not make two.
func (r *Runtime) reserve(name, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if other, ok := r.names[name]; ok {
		return status.Errorf(codes.AlreadyExists, "name %q is reserved for %q", name, other)
	}
	r.names[name] = id
	return nil
}

func (r *Runtime) release(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.names, name)
}

func (r *Runtime) makeSandbox(ctx context.Context, sb *sandbox) error {
	rec := &sb.rec
	if err := os.Mkdir(r.cfg.sandboxDir(rec.ID), 0o711); err != nil {
		return err
	}
	if err := r.saveSandbox(*rec); err != nil {
		return err
	}
	if err := r.startShim(ctx, sb); err != nil {
		return err
	}
	opt := rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	reply, err := sb.client.Ask(ctx, wire.Frame{Op: wire.OpSandbox, Args: sandboxNamespaces(opt)})
	if err != nil {
		return fmt.Errorf("start pause: %w", err)
	}
	rec.PausePID = reply.Pid
	if opt.GetNetwork() != runtimeapi.NamespaceMode_NODE {
		if err := r.connect(ctx, rec); err != nil {
			return err
		}
	}
	if err := tuneIPC(rec, opt); err != nil {
		return err
	}
	if err := r.writeSandboxFiles(rec); err != nil {
		return err
	}
	r.mu.Lock()
	dead := sb.dead
	rec.Made, rec.Ready = true, !dead
	r.mu.Unlock()
	if dead {
		return errors.New("pause has ended before the Pod was made")
	}
	if err := r.keepSandbox(sb); err != nil {
		return err
	}
	r.mu.Lock()
	r.sandboxes[rec.ID] = sb
	r.mu.Unlock()
	return nil
}

// anticipateMove is for the OCI runtime, which will soon move a container into its cgroup. pid is the shim or pause. It goes on beside the
// caller.
func (r *Runtime) anticipateMove(sandboxID string, pid int) {
	r.beside.Go(func() { sys.CgroupAnticipateMove(r.cfg.shimCgroup(sandboxID), pid) })
}

func sandboxNamespaces(opt *runtimeapi.NamespaceOption) []string {
	var ns []string
	if opt.GetNetwork() != runtimeapi.NamespaceMode_NODE {
		ns = append(ns, "net", "uts")
	}
	if opt.GetIpc() != runtimeapi.NamespaceMode_NODE {
		ns = append(ns, "ipc")
	}
	if opt.GetPid() == runtimeapi.NamespaceMode_POD {
		ns = append(ns, "pid")
	}
	return ns
}

func (r *Runtime) startShim(ctx context.Context, sb *sandbox) error {
	id := sb.rec.ID
	if err := os.MkdirAll(r.cfg.shimDir(id), 0o700); err != nil {
		return err
	}
	cgroup := r.cfg.shimCgroup(id)
	if err := sys.CgroupCreate(cgroup, sys.Resources{}); err != nil {
		return err
	}
	spec := shim.Spec{Binary: r.shim, Dir: r.cfg.shimDir(id), Socket: r.cfg.shimSocket(id), Boot: r.boot,
		Within: func(start func() error) error { return sys.BornInCgroup(cgroup, start) }}
	if r.cgroups.Unified {
		folder, err := os.Open(r.cgroups.Folder("", cgroup))
		if err != nil {
			return err
		}
		defer folder.Close()
		spec.Cgroup = folder
	}
	client, pid, err := shim.Start(spec, func(f wire.Frame) { r.heard(sb, f) }, func() { r.lost(sb) })
	if err != nil {
		return err
	}
	r.anticipateMove(id, pid)
	r.mu.Lock()
	sb.client = client
	r.mu.Unlock()
	// Once it answers it can be found by its socket; before that, it ends by itself if this process does.
	_, err = client.Ask(ctx, wire.Frame{Op: wire.OpHello})
	return err
}

// connect names the Pod, sets its sysctls, and gives it an address.
func (r *Runtime) connect(ctx context.Context, rec *sandboxRecord) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", rec.PausePID))
	if err != nil {
		return err
	}
	defer ns.Close()
	req := network.Request{SandboxID: rec.ID, NetNS: ns}
	for _, p := range rec.Config.GetPortMappings() {
		if p.GetHostPort() == 0 {
			continue
		}
		hp := network.HostPort{Protocol: p.GetProtocol().String(), HostPort: uint16(p.GetHostPort()), ContainerPort: uint16(p.GetContainerPort())}
		if p.GetHostIp() != "" {
			if hp.HostIP, err = netip.ParseAddr(p.GetHostIp()); err != nil {
				return status.Errorf(codes.InvalidArgument, "port mapping: %v", err)
			}
		}
		req.HostPorts = append(req.HostPorts, hp)
	}
	err = sys.InNamespaces(rec.PausePID, []string{"net", "uts"}, func() error {
		if err := sys.SetHostname(oci.Hostname(rec.Config, r.node.Hostname)); err != nil {
			return fmt.Errorf("set hostname: %w", err)
		}
		// A Pod's processes may use any port and send pings without privileges: the network is their own.
		os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
		os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0)
		return setSysctls(rec.Config.GetLinux().GetSysctls(), func(key string) bool { return strings.HasPrefix(key, "net.") })
	})
	if err != nil {
		return err
	}
	result, err := r.cfg.Network.Attach(ctx, req)
	rec.IPs = result.IPs
	return err
}

// tuneIPC sets the sysctls that belong to the Pod's own IPC namespace.
func tuneIPC(rec *sandboxRecord, opt *runtimeapi.NamespaceOption) error {
	ours := map[string]string{}
	for key, value := range rec.Config.GetLinux().GetSysctls() {
		if !strings.HasPrefix(key, "net.") {
			ours[key] = value
		}
	}
	if len(ours) == 0 {
		return nil
	}
	if opt.GetIpc() == runtimeapi.NamespaceMode_NODE {
		return status.Errorf(codes.InvalidArgument, "sysctls of IPC cannot be set for a Pod in the host's IPC namespace")
	}
	return sys.InNamespaces(rec.PausePID, []string{"ipc"}, func() error { return setSysctls(ours, func(string) bool { return true }) })
}

func setSysctls(all map[string]string, ours func(string) bool) error {
	for key, value := range all {
		if !ours(key) {
			continue
		}
		path := filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
		if strings.Contains(key, "/") {
			path = filepath.Join("/proc/sys", key)
		}
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return fmt.Errorf("set sysctl %s: %w", key, err)
		}
	}
	return nil
}

// writeSandboxFiles writes the files that containers get mounted and, for a Pod with its own IPC, its /dev/shm.
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
	}
	if rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetIpc() == runtimeapi.NamespaceMode_NODE {
		return nil
	}
	if err := os.MkdirAll(r.cfg.shmDir(rec.ID), 0o711); err != nil {
		return err
	}
	return sys.MountTmpfs(r.cfg.shmDir(rec.ID), shmSize, 0o1777)
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
