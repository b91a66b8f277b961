// Package check finds what is wrong with a host before it bites: each finding is a coded problem with its fix.
//
// Gather reads the facts, Decide judges them and is a pure function. It may import sys, network and runtime/remote.
package check

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"carob.dev/carob/internal/config"
	"carob.dev/carob/internal/health"
)

// Facts are what Decide looks at.
type Facts struct {
	UID int
	// MissingCaps are the capabilities that root needs and does not have, as in a container that is not privileged.
	MissingCaps []string
	// Kernel is the release, such as 6.1.0-30-amd64.
	Kernel string
	// Runtimes maps a program to the error of running it with --version; nil when it ran.
	Runtimes map[string]error
	Cgroups  Cgroups
	// Overlay, Veth and NFT say what using each of them once, in a namespace that is thrown away, ended with. The kernel loads its modules
	// for that where it can, as it does for Pods.
	Overlay, Veth, NFT error
	// Sysctl is why kernel settings of the network cannot be written.
	Sysctl error
	// API and Agent are what listening on the ports of the API and of the node's server ended with.
	API, Agent error
	Root       Disk
	// Addresses are those of all links that are not a Carob's own.
	Addresses []netip.Prefix
	// Firewall are problems that the network found.
	Firewall []health.Problem
	// Endpoint is what connecting to the runtime at --runtime-endpoint ended with. With one, nothing is told of what only Carob's own needs.
	Endpoint error
	// Systemd is why systemd cannot be asked for cgroups, where it is to make them.
	Systemd error
}

// Cgroups are the facts about control groups.
type Cgroups struct {
	// Usable are the controllers mounted where Carob uses them; Enabled those that the kernel has on, Disabled those that it was told to leave
	// off when it booted.
	Usable, Enabled, Disabled []string
	// V1 is whether controllers are mounted one by one.
	V1 bool
	// Err says why cgroups cannot be used at all.
	Err error
}

// Disk is the file system that the state folder is on, or will be.
type Disk struct {
	// FreeBytes and FreeInodes are what is free; InodesKnown is whether the file system counts inodes.
	FreeBytes, FreeInodes uint64
	InodesKnown           bool
	ReadOnly, NoExec      bool
	// Mount is where it is mounted, Type its name where it is one that overlay's upper folder cannot be on, else empty.
	Mount, Type string
	// Err is why nothing could be told.
	Err error
}

// needed are the cgroup controllers without which a Pod's limits cannot hold.
var needed = []string{"cpu", "cpuset", "memory", "pids"}

// The least that the state folder needs, and what it should have.
const (
	leastBytes, leastInodes = 64 << 20, 1000
	lowBytes                = 1 << 30
)

// Decide says what is wrong, errors first.
func Decide(c config.Config, f Facts) []health.Problem {
	var l list
	l.privileges(f)
	if len(l) > 0 {
		return l // all else fails for that reason
	}
	l.runtimes(f)
	l.endpoint(f.Endpoint)
	l.endpoint(f.Systemd)
	l.cgroups(f.Cgroups)
	l.kernel(f)
	l.ports(c, f)
	l.disk(c, f.Root)
	l.addresses(c, f.Addresses)
	l = append(l, f.Firewall...)
	slices.SortStableFunc(l, func(a, b health.Problem) int {
		return strings.Compare(string(a.Severity)+a.Code, string(b.Severity)+b.Code)
	})
	return l
}

type list []health.Problem

func (l *list) add(s health.Severity, code, what, why, fix string) {
	*l = append(*l, health.Problem{Code: code, Severity: s, What: what, Why: why, Fix: fix})
}

func (l *list) privileges(f Facts) {
	switch {
	case f.UID != 0:
		l.add(health.Error, "NotRoot", "carob must run as root", fmt.Sprintf("it runs as user %d, which may make neither namespaces nor cgroups", f.UID),
			"sudo carob up")
	case len(f.MissingCaps) > 0:
		l.add(health.Error, "NotPrivileged", "carob lacks privileges", "root lacks "+strings.Join(f.MissingCaps, ", ")+", as in a container",
			"run it on the machine itself, or in a privileged container (docker run --privileged --cgroupns=private)")
	}
}

func (l *list) runtimes(f Facts) {
	for _, program := range slices.Sorted(maps.Keys(f.Runtimes)) {
		if err := f.Runtimes[program]; err != nil {
			l.add(health.Error, "NoOCIRuntime", "the OCI runtime "+program+" cannot be used", err.Error(),
				"apt-get install "+filepath.Base(program)+", or name another with --oci-runtime")
		}
	}
}

func (l *list) endpoint(err error) {
	if p, ok := health.As(err); ok {
		*l = append(*l, *p)
	} else if err != nil {
		l.add(health.Error, "NoCRI", "the container runtime cannot be used", err.Error(), "look at its log")
	}
}

func (l *list) cgroups(c Cgroups) {
	if c.Err != nil {
		fix := "mount -t cgroup2 none /sys/fs/cgroup"
		if len(c.Usable) > 0 {
			fix = "mount -o remount,rw /sys/fs/cgroup"
		}
		l.add(health.Error, "NoCgroups", "cgroups cannot be used", c.Err.Error(), fix)
		return
	}
	for _, want := range needed {
		if slices.Contains(c.Usable, want) {
			continue
		}
		why, fix := "the kernel was built without it", "boot a kernel that has it, such as the distribution's own"
		switch {
		case slices.Contains(c.Disabled, want):
			why = "the kernel has it off"
			fix = fmt.Sprintf("take cgroup_disable=%[1]s off the kernel's command line, or add cgroup_enable=%[1]s to it, and boot again", want)
		case slices.Contains(c.Enabled, want) && c.V1:
			why = "it is not mounted"
			fix = fmt.Sprintf("mkdir -p /sys/fs/cgroup/%[1]s && mount -t cgroup -o %[1]s cgroup /sys/fs/cgroup/%[1]s", want)
		case slices.Contains(c.Enabled, want):
			why = "the cgroups above hand it not down, or it is in use as cgroup v1"
			fix = "boot with cgroup_no_v1=all on the kernel's command line; in a container, let the host hand down all controllers"
		}
		l.add(health.Error, "NoCgroupController", "the cgroup controller "+want+" is missing", why, fix)
	}
}

func (l *list) kernel(f Facts) {
	for _, k := range []struct {
		err             error
		code, what, mod string
	}{
		{f.Overlay, "NoOverlay", "the overlay file system cannot be used", "overlay"},
		{f.Veth, "NoVeth", "veth links cannot be made", "veth"},
		{f.NFT, "NoNFTables", "nftables cannot be used", "nf_tables nft_chain_nat nft_masq nft_fib_inet"},
	} {
		if k.err != nil {
			l.add(health.Error, k.code, k.what, k.err.Error(), fmt.Sprintf("modprobe -a %s; if the modules of the running kernel, %s, are gone after an upgrade, boot again; "+
				"if it never had them, boot one that has", k.mod, f.Kernel))
		}
	}
	if f.Sysctl != nil {
		l.add(health.Error, "SysctlReadOnly", "network settings of the kernel cannot be written", f.Sysctl.Error(), "mount -o remount,rw /proc/sys")
	}
}

func (l *list) ports(c config.Config, f Facts) {
	for _, s := range []struct {
		what, setting string
		at            netip.AddrPort
		err           error
	}{{"the API server", "--api-port", c.APIBind, f.API}, {"the node's server", "--agent-port", c.Node.Bind, f.Agent}} {
		switch {
		case s.err == nil:
		case errors.Is(s.err, syscall.EADDRNOTAVAIL):
			l.add(health.Error, "NoSuchAddress", fmt.Sprintf("%s cannot listen on %s", s.what, s.at), "no link of this machine has that address",
				"bind it to one that ip address shows, or to all: 0.0.0.0")
		default:
			l.add(health.Error, "PortInUse", fmt.Sprintf("%s cannot listen on %s", s.what, s.at), s.err.Error(),
				fmt.Sprintf("end the program that listens there (ss -ltnp 'sport = :%d'), or choose another with %s", s.at.Port(), s.setting))
		}
	}
}

func (l *list) disk(c config.Config, d Disk) {
	const other = "choose another folder with --root"
	free := fmt.Sprintf("%d MiB", d.FreeBytes>>20)
	if d.InodesKnown {
		free += fmt.Sprintf(" and %d inodes", d.FreeInodes)
	}
	where := fmt.Sprintf("%s is mounted on %s", c.Root, d.Mount)
	switch {
	case d.Err != nil:
		l.add(health.Error, "RootUnusable", "the state folder "+c.Root+" cannot be used", d.Err.Error(), other)
	case d.ReadOnly:
		l.add(health.Error, "RootReadOnly", "the state folder "+c.Root+" cannot be written", where+", which is read-only",
			"mount -o remount,rw "+d.Mount+", or "+other)
	case d.NoExec:
		l.add(health.Error, "RootNoExec", "no program can be run from the state folder "+c.Root, where+" with noexec",
			"mount -o remount,exec "+d.Mount+", or "+other)
	case d.Type != "":
		l.add(health.Error, "RootNoOverlay", "containers cannot have their files in the state folder "+c.Root, where+", which is "+d.Type+
			": overlay cannot write there", "choose a folder on ext4, xfs, btrfs or tmpfs with --root (in a container: a volume)")
	case d.FreeBytes < leastBytes || d.InodesKnown && d.FreeInodes < leastInodes:
		l.add(health.Error, "DiskFull", "only "+free+" are free for "+c.Root, fmt.Sprintf("at least %d MiB and %d inodes are needed", leastBytes>>20, leastInodes),
			"make room on "+d.Mount+" (du -xh "+d.Mount+" | sort -h | tail), or "+other)
	case d.FreeBytes < lowBytes:
		l.add(health.Warning, "DiskLow", "only "+free+" are free for "+c.Root, "images and logs go there",
			"make room on "+d.Mount+" (du -xh "+d.Mount+" | sort -h | tail)")
	}
}

func (l *list) addresses(c config.Config, addresses []netip.Prefix) {
	if !slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return p.Addr().IsGlobalUnicast() }) {
		l.add(health.Warning, "NoAddress", "no link of this machine has an address", "the node will be known by an address that only its own Pods reach",
			"connect a network, or give a link an address: ip addr add 192.168.1.10/24 dev LINK")
	}
	for _, r := range []struct {
		prefix netip.Prefix
		flag   string
	}{{c.PodCIDR, "--pod-cidr"}, {c.ServiceCIDR, "--service-cidr"}} {
		for _, a := range addresses {
			if r.prefix.IsValid() && a.Overlaps(r.prefix) {
				l.add(health.Warning, "RangeInUse", fmt.Sprintf("the range %s (%s) overlaps a network of this machine, %s", r.prefix, r.flag, a),
					"one of them will not be reached from here", "choose another with "+r.flag+", such as 10.142.0.0/16")
			}
		}
	}
}
