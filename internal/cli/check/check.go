// Package check finds what is wrong with a host before it bites: each finding is a coded problem with its fix.
//
// Gather reads the facts, Decide judges them and is a pure function.
package check

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/config"
	"carob.dev/carob/internal/health"
)

// Facts are what Decide looks at.
type Facts struct {
	UID int
	// Kernel is the release, such as 6.1.0-30-amd64.
	Kernel string
	// Runtimes maps a program to the error of looking it up; nil when it was found.
	Runtimes map[string]error
	// Controllers are the cgroup controllers that Pods need and that are there; CgroupErr says why none could be read.
	Controllers []string
	CgroupErr   error
	// Filesystems are the kernel's, of /proc/filesystems.
	Filesystems []string
	// NFTErr is what listing nftables' tables said.
	NFTErr error
	// PortErr is what listening on the API's port said.
	PortErr error
	// FreeBytes is the free space for Root, FreeInodes likewise; RootErr is why that could not be told.
	FreeBytes, FreeInodes uint64
	RootErr               error
	// HasAddress is whether some link has an address that is not loopback.
	HasAddress bool
	// SwapOn is whether swap is in use.
	SwapOn bool
}

// needed are the cgroup controllers without which a Pod's limits cannot hold.
var needed = []string{"cpu", "cpuset", "memory", "pids"}

// Gather reads the facts of this host. A port is tried only when running is false.
func Gather(c config.Config, running bool) Facts {
	f := Facts{UID: os.Geteuid(), Runtimes: map[string]error{}}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		f.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	for _, program := range c.OCIRuntimes {
		_, err := exec.LookPath(program)
		f.Runtimes[program] = err
	}
	f.Controllers, f.CgroupErr = controllers()
	if raw, err := os.ReadFile("/proc/filesystems"); err == nil {
		for line := range strings.Lines(string(raw)) {
			fields := strings.Fields(line)
			f.Filesystems = append(f.Filesystems, fields[len(fields)-1])
		}
	}
	if conn, err := nftables.New(); err != nil {
		f.NFTErr = err
	} else {
		_, f.NFTErr = conn.ListTables()
	}
	if !running {
		if l, err := net.Listen("tcp", c.APIBind.String()); err != nil {
			f.PortErr = err
		} else {
			l.Close()
		}
	}
	f.FreeBytes, f.FreeInodes, f.RootErr = space(c.Root)
	f.HasAddress = hasAddress()
	if raw, err := os.ReadFile("/proc/swaps"); err == nil {
		f.SwapOn = strings.Count(string(raw), "\n") > 1
	}
	return f
}

func controllers() ([]string, error) {
	if raw, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return strings.Fields(string(raw)), nil
	}
	raw, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(raw)) {
		if m := strings.Fields(line); len(m) > 3 && m[2] == "cgroup" {
			found = append(found, strings.Split(m[3], ",")...)
		}
	}
	if len(found) == 0 {
		return nil, errors.New("no cgroup file system is mounted at /sys/fs/cgroup")
	}
	return found, nil
}

// space asks the nearest folder above root that exists.
func space(root string) (bytes, inodes uint64, err error) {
	for dir := root; ; dir = filepath.Dir(dir) {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if err == nil {
			return st.Bavail * uint64(st.Bsize), st.Ffree, nil
		}
		if !errors.Is(err, unix.ENOENT) || dir == "/" {
			return 0, 0, err
		}
	}
}

func hasAddress() bool {
	addrs, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(addrs, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().IsGlobalUnicast()
	})
}

// Decide says what is wrong, errors first.
func Decide(c config.Config, f Facts) []health.Problem {
	var out []health.Problem
	add := func(s health.Severity, code, what, why, fix string) {
		out = append(out, health.Problem{Code: code, Severity: s, What: what, Why: why, Fix: fix})
	}
	if f.UID != 0 {
		add(health.Error, "NotRoot", "carob must run as root", fmt.Sprintf("it runs as user %d, which may make neither namespaces nor cgroups", f.UID), "sudo carob up")
		return out // nothing else can be told without being root
	}
	for program, err := range f.Runtimes {
		if err != nil {
			add(health.Error, "NoOCIRuntime", "the OCI runtime "+program+" was not found", err.Error(),
				"apt-get install "+filepath.Base(program)+", or name another with --oci-runtime")
		}
	}
	if f.CgroupErr != nil {
		add(health.Error, "NoCgroups", "cgroups cannot be used", f.CgroupErr.Error(), "mount -t cgroup2 none /sys/fs/cgroup")
	} else {
		for _, want := range needed {
			if !slices.Contains(f.Controllers, want) {
				add(health.Error, "NoCgroupController", "the cgroup controller "+want+" is missing", "the kernel has it off",
					"boot with cgroup_enable="+want+" on the kernel's command line")
			}
		}
	}
	if !slices.Contains(f.Filesystems, "overlay") {
		add(health.Error, "NoOverlay", "the kernel has no overlay file system", "it is neither built in nor loaded", "modprobe overlay")
	}
	if f.NFTErr != nil {
		add(health.Error, "NoNFTables", "nftables cannot be used", f.NFTErr.Error(), "modprobe nf_tables, as root")
	}
	if f.PortErr != nil {
		add(health.Error, "PortInUse", fmt.Sprintf("the API server cannot listen on %s", c.APIBind), f.PortErr.Error(),
			fmt.Sprintf("end the program that listens there (ss -ltnp 'sport = :%d'), or choose another with --api-port", c.APIBind.Port()))
	}
	switch {
	case f.RootErr != nil:
		add(health.Error, "RootUnusable", "the state folder "+c.Root+" cannot be used", f.RootErr.Error(), "choose another with --root")
	case f.FreeBytes < 64<<20 || f.FreeInodes < 1000 && f.FreeInodes > 0:
		add(health.Error, "DiskFull", fmt.Sprintf("%d MiB and %d inodes are free for %s", f.FreeBytes>>20, f.FreeInodes, c.Root), "at least 64 MiB and 1000 inodes are needed", "free some space, or choose another folder with --root")
	case f.FreeBytes < 1<<30:
		add(health.Warning, "DiskLow", fmt.Sprintf("only %d MiB are free for %s", f.FreeBytes>>20, c.Root), "images and logs go there", "free some space")
	}
	if !f.HasAddress {
		add(health.Warning, "NoAddress", "no link of this machine has an address", "the node will be known as 127.0.0.1, and Pods cannot reach it by that", "connect a network, or give a link an address")
	}
	slices.SortStableFunc(out, func(a, b health.Problem) int {
		return strings.Compare(string(a.Severity)+a.Code, string(b.Severity)+b.Code)
	})
	return out
}
