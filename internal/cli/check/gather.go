package check

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/config"
	"carob.dev/carob/internal/health"
	"carob.dev/carob/internal/network"
	"carob.dev/carob/internal/network/nft"
	"carob.dev/carob/internal/runtime/remote"
	"carob.dev/carob/internal/sys"
	"carob.dev/carob/internal/sys/systemd"
)

// patience is how long programs that are asked may take.
const patience = 10 * time.Second

// Gather reads the facts of this host. Where this Carob is running its port is its own, and not tried.
func Gather(c config.Config, running bool) Facts {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	f := Facts{UID: os.Geteuid(), MissingCaps: missingCaps(), Runtimes: map[string]error{}, Cgroups: cgroups(), Root: disk(c.Root)}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		f.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	if c.RuntimeEndpoint == "" && c.CgroupDriver == "systemd" {
		f.Systemd = systemd.Check(ctx)
	}
	if c.RuntimeEndpoint != "" {
		f.Endpoint = connects(ctx, c)
		f.Root.Type, f.Root.NoExec = "", false // containers have their files elsewhere
	} else {
		usual := config.Default(c.Root).OCIRuntimes
		for handler, program := range c.OCIRuntimes {
			if handler != "" && program == usual[handler] && program != c.OCIRuntimes[""] {
				continue // nobody asked for it
			}
			f.Runtimes[program] = runs(ctx, program)
		}
	}
	if f.UID == 0 && len(f.MissingCaps) == 0 && c.RuntimeEndpoint == "" {
		f.Overlay = tryOverlay()
		f.Veth = sys.InNewNetwork(tryVeth)
		f.NFT = sys.InNewNetwork(func() error { return tryNFT(c) })
		f.Sysctl = unix.Access("/proc/sys/net/ipv4/ip_forward", unix.W_OK)
		if f.Sysctl != nil {
			f.Sysctl = fmt.Errorf("/proc/sys/net/ipv4/ip_forward: %w", f.Sysctl)
		}
		if f.NFT == nil {
			f.Firewall = firewall(ctx, c)
		}
	}
	f.Addresses = addresses(c)
	if !running {
		f.API = listens(c.APIBind.String())
		if c.Node.Bind.Port() != 0 {
			f.Agent = listens(c.Node.Bind.String())
		}
	}
	return f
}

// needCaps are the capabilities without which no Pod can be made, by number.
var needCaps = map[string]uint{
	"CAP_CHOWN": unix.CAP_CHOWN, "CAP_KILL": unix.CAP_KILL, "CAP_SETUID": unix.CAP_SETUID, "CAP_SETGID": unix.CAP_SETGID,
	"CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN, "CAP_SYS_CHROOT": unix.CAP_SYS_CHROOT, "CAP_MKNOD": unix.CAP_MKNOD,
}

func missingCaps() []string {
	var data [2]unix.CapUserData
	if unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]) != nil {
		return nil
	}
	var missing []string
	for name, n := range needCaps {
		if data[n/32].Effective&(1<<(n%32)) == 0 {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	return missing
}

// connects tries the runtime that is used instead of Carob's own.
func connects(ctx context.Context, c config.Config) error {
	client, err := remote.Dial(ctx, remote.Config{Endpoint: c.RuntimeEndpoint, ImageEndpoint: c.ImageEndpoint, Owner: c.CgroupRoot(),
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if client.Systemd {
		err = systemd.Check(ctx)
	}
	return errors.Join(err, client.Close())
}

func runs(ctx context.Context, program string) error {
	path, err := exec.LookPath(program)
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, path, "--version").CombinedOutput(); err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("%s --version: %w: %s", path, err, first)
	}
	return nil
}

func cgroups() Cgroups {
	var c Cgroups
	if raw, err := os.ReadFile("/proc/cgroups"); err == nil {
		for line := range strings.Lines(string(raw)) {
			switch f := strings.Fields(line); {
			case len(f) != 4 || f[0] == "#subsys_name":
			case f[3] == "1":
				c.Enabled = append(c.Enabled, f[0])
			default:
				c.Disabled = append(c.Disabled, f[0])
			}
		}
	}
	layout, err := sys.CgroupLayout()
	switch {
	case err != nil:
		c.Err = err
	case layout.Unified:
		raw, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
		c.Usable, c.Err = strings.Fields(string(raw)), err
		if err == nil {
			c.Err = writable("/sys/fs/cgroup")
		}
	case len(layout.V1) == 0:
		c.Err = errors.New("no cgroup file system is mounted below /sys/fs/cgroup")
	default:
		c.V1 = true
		for ctl, dir := range layout.V1 {
			c.Usable = append(c.Usable, ctl)
			c.Err = errors.Join(c.Err, writable(dir))
		}
	}
	return c
}

func writable(dir string) error {
	if err := unix.Access(dir, unix.W_OK); errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}

// tryOverlay asks for the file system without mounting it.
func tryOverlay() error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return errors.New("the kernel has it neither built in nor as a module that it can load")
	}
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func tryVeth() error {
	return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "check0", TxQLen: -1}, PeerName: "check1"})
}

// tryNFT sets up the very rules that Pods with host ports need.
func tryNFT(c config.Config) error {
	return nft.Apply(nft.Plan(nft.Input{
		Table: c.NFTable(), Group: 1, PodCIDRs: []netip.Prefix{c.PodCIDR.Masked()},
		Ports: []nft.Port{{Protocol: "TCP", HostPort: 80, Target: netip.AddrPortFrom(c.PodCIDR.Addr().Next(), 80)}},
	}))
}

func firewall(ctx context.Context, c config.Config) []health.Problem {
	var out []health.Problem
	for _, p := range network.Problems(ctx, network.Config{
		NFTable: c.NFTable(), Dir: c.Path("network"), PodCIDRs: []netip.Prefix{c.PodCIDR}, NodeCIDRs: []netip.Prefix{nodeCIDR(c)},
		Log: slog.New(slog.DiscardHandler),
	}) {
		out = append(out, *p)
	}
	return out
}

func nodeCIDR(c config.Config) netip.Prefix {
	return netip.PrefixFrom(c.PodCIDR.Addr(), c.NodeCIDRMaskSize)
}

func listens(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return l.Close()
}

// addresses are those of links that are up and not loopback; Pods' links have none.
func addresses(c config.Config) []netip.Prefix {
	own := nodeCIDR(c).Addr().Next()
	links, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var out []netip.Prefix
	for _, link := range links {
		if strings.HasPrefix(link.Name, "cb") {
			continue
		}
		list, _ := link.Addrs()
		for _, a := range list {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() != own && !p.Addr().IsLoopback() {
				out = append(out, p)
			}
		}
	}
	return out
}
