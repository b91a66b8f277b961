package check

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"carob.dev/carob/internal/config"
	"carob.dev/carob/internal/health"
)

// fit are the facts of a host on which nothing is wrong.
func fit() Facts {
	return Facts{
		Kernel: "6.1.0-30-amd64", Runtimes: map[string]error{"crun": nil},
		Cgroups:   Cgroups{Usable: []string{"cpuset", "cpu", "io", "memory", "pids"}, Enabled: []string{"cpuset", "cpu", "io", "memory", "pids"}},
		Root:      Disk{FreeBytes: 10 << 30, FreeInodes: 1 << 20, InodesKnown: true, Mount: "/"},
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.1.10/24")},
	}
}

func TestDecide(t *testing.T) {
	without := func(controller string) func(*Facts) {
		return func(f *Facts) {
			var left []string
			for _, c := range f.Cgroups.Usable {
				if c != controller {
					left = append(left, c)
				}
			}
			f.Cgroups.Usable = left
		}
	}
	both := func(fs ...func(*Facts)) func(*Facts) {
		return func(f *Facts) {
			for _, g := range fs {
				g(f)
			}
		}
	}
	for name, tc := range map[string]struct {
		change func(*Facts)
		// want are "severity code: fix".
		want []string
	}{
		"fit":      {func(*Facts) {}, nil},
		"not root": {func(f *Facts) { f.UID = 1000; f.Overlay = syscall.EPERM; f.NFT = syscall.EPERM }, []string{"error NotRoot: sudo carob up"}},
		"container without privileges": {func(f *Facts) { f.MissingCaps = []string{"CAP_SYS_ADMIN"}; f.Veth = syscall.EPERM }, []string{
			"error NotPrivileged: run it on the machine itself, or in a privileged container (docker run --privileged --cgroupns=private)"}},
		"no crun": {func(f *Facts) { f.Runtimes["crun"] = errors.New("not found in $PATH") }, []string{
			"error NoOCIRuntime: apt-get install crun, or name another with --oci-runtime"}},
		"crun by path": {func(f *Facts) { f.Runtimes = map[string]error{"/opt/crun": syscall.ENOENT} }, []string{
			"error NoOCIRuntime: apt-get install crun, or name another with --oci-runtime"}},
		"no container runtime": {func(f *Facts) {
			f.Endpoint = fmt.Errorf("x: %w", &health.Problem{Code: "NoRuntime", Severity: health.Error, What: "nobody answers", Why: "there is no socket", Fix: "start it"})
		}, []string{"error NoRuntime: start it"}},
		"a container runtime with a problem of its own": {func(f *Facts) { f.Endpoint = errors.New("disk full") }, []string{"error NoCRI: look at its log"}},
		"no cgroups": {func(f *Facts) { f.Cgroups = Cgroups{Err: errors.New("none is mounted")} }, []string{
			"error NoCgroups: mount -t cgroup2 none /sys/fs/cgroup"}},
		"cgroups read-only": {func(f *Facts) { f.Cgroups.Err = syscall.EROFS }, []string{
			"error NoCgroups: mount -o remount,rw /sys/fs/cgroup"}},
		"memory controller off": {both(without("memory"), func(f *Facts) { f.Cgroups.Enabled = nil; f.Cgroups.Disabled = []string{"memory"} }), []string{
			"error NoCgroupController: take cgroup_disable=memory off the kernel's command line, or add cgroup_enable=memory to it, and boot again"}},
		"pids controller not built": {both(without("pids"), func(f *Facts) { f.Cgroups.Enabled = []string{"cpu", "cpuset", "memory"} }), []string{
			"error NoCgroupController: boot a kernel that has it, such as the distribution's own"}},
		"v1 controller not mounted": {both(without("cpuset"), func(f *Facts) { f.Cgroups.V1 = true }), []string{
			"error NoCgroupController: mkdir -p /sys/fs/cgroup/cpuset && mount -t cgroup -o cpuset cgroup /sys/fs/cgroup/cpuset"}},
		"controller not handed down": {without("cpu"), []string{
			"error NoCgroupController: boot with cgroup_no_v1=all on the kernel's command line; in a container, let the host hand down all controllers"}},
		"no overlay": {func(f *Facts) { f.Overlay = syscall.ENODEV }, []string{
			"error NoOverlay: modprobe -a overlay; if the modules of the running kernel, 6.1.0-30-amd64, are gone after an upgrade, boot again; if it never had them, boot one that has"}},
		"no veth": {func(f *Facts) { f.Veth = syscall.EOPNOTSUPP }, []string{
			"error NoVeth: modprobe -a veth; if the modules of the running kernel, 6.1.0-30-amd64, are gone after an upgrade, boot again; if it never had them, boot one that has"}},
		"no nftables": {func(f *Facts) { f.NFT = syscall.EINVAL }, []string{
			"error NoNFTables: modprobe -a nf_tables nft_chain_nat nft_masq nft_fib_inet; if the modules of the running kernel, 6.1.0-30-amd64, are gone after an upgrade, boot again; if it never had them, boot one that has"}},
		"settings read-only": {func(f *Facts) { f.Sysctl = syscall.EROFS }, []string{"error SysctlReadOnly: mount -o remount,rw /proc/sys"}},
		"port in use": {func(f *Facts) { f.API = fmt.Errorf("listen: %w", syscall.EADDRINUSE) }, []string{
			"error PortInUse: end the program that listens there (ss -ltnp 'sport = :6443'), or choose another with --api-port"}},
		"no such address": {func(f *Facts) { f.API = fmt.Errorf("listen: %w", syscall.EADDRNOTAVAIL) }, []string{
			"error NoSuchAddress: bind it to one that ip address shows, or to all: 0.0.0.0"}},
		"disk full": {func(f *Facts) { f.Root.FreeBytes = 1 << 20 }, []string{
			"error DiskFull: make room on / (du -xh / | sort -h | tail), or choose another folder with --root"}},
		"no inodes": {func(f *Facts) { f.Root.FreeInodes = 3 }, []string{
			"error DiskFull: make room on / (du -xh / | sort -h | tail), or choose another folder with --root"}},
		"inodes not counted": {func(f *Facts) { f.Root.FreeInodes = 0; f.Root.InodesKnown = false }, nil},
		"disk low": {func(f *Facts) { f.Root.FreeBytes = 500 << 20 }, []string{
			"warning DiskLow: make room on / (du -xh / | sort -h | tail)"}},
		"root read-only": {func(f *Facts) { f.Root.ReadOnly = true }, []string{
			"error RootReadOnly: mount -o remount,rw /, or choose another folder with --root"}},
		"root noexec": {func(f *Facts) { f.Root.NoExec = true; f.Root.Mount = "/var" }, []string{
			"error RootNoExec: mount -o remount,exec /var, or choose another folder with --root"}},
		"root on NFS": {func(f *Facts) { f.Root.Type = "NFS" }, []string{
			"error RootNoOverlay: choose a folder on ext4, xfs, btrfs or tmpfs with --root (in a container: a volume)"}},
		"root unusable": {func(f *Facts) { f.Root = Disk{Err: syscall.ENOTDIR} }, []string{"error RootUnusable: choose another folder with --root"}},
		"no address": {func(f *Facts) { f.Addresses = []netip.Prefix{netip.MustParsePrefix("fe80::1/64")} }, []string{
			"warning NoAddress: connect a network, or give a link an address: ip addr add 192.168.1.10/24 dev LINK"}},
		"range in use": {func(f *Facts) { f.Addresses = append(f.Addresses, netip.MustParsePrefix("10.0.0.7/8")) }, []string{
			"warning RangeInUse: choose another with --pod-cidr, such as 10.142.0.0/16",
			"warning RangeInUse: choose another with --service-cidr, such as 10.142.0.0/16"}},
		"firewall that drops, errors first": {func(f *Facts) {
			f.Firewall = []health.Problem{{Code: "ForwardingBlocked", Severity: health.Warning, Fix: "ufw route allow from 10.42.0.0/16"}}
			f.Veth = syscall.EOPNOTSUPP
			f.Kernel = "6.1"
		}, []string{
			"error NoVeth: modprobe -a veth; if the modules of the running kernel, 6.1, are gone after an upgrade, boot again; if it never had them, boot one that has",
			"warning ForwardingBlocked: ufw route allow from 10.42.0.0/16"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := fit()
			tc.change(&f)
			var got []string
			for _, p := range Decide(config.Default(config.DefaultRoot), f) {
				got = append(got, string(p.Severity)+" "+p.Code+": "+p.Fix)
				if p.Code != "ForwardingBlocked" && (p.What == "" || p.Why == "") {
					t.Errorf("%s lacks what or why: %+v", p.Code, p)
				}
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// This host is asked for real: what is tried must leave nothing and, for root, work.
func TestGather(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	c := config.Default(t.TempDir())
	f := Gather(c, true)
	for what, err := range map[string]error{"overlay": f.Overlay, "veth": f.Veth, "nftables": f.NFT, "cgroups": f.Cgroups.Err, "root": f.Root.Err} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if f.Kernel == "" || f.Root.FreeBytes == 0 || !strings.HasPrefix(c.Root, f.Root.Mount) {
		t.Errorf("facts are missing: %+v", f)
	}
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name(), "check") {
			t.Errorf("a link was left: %s", l.Name())
		}
	}
}
