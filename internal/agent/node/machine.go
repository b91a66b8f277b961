package node

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/sys"
)

// Machine is what the agent knows of the machine it runs on.
type Machine struct {
	CPUs int
	// Memory, Swap and Storage are sizes in bytes; Storage is that of the file system of the root folder.
	Memory, Swap, Storage int64
	// HugePages maps a page size in bytes to the bytes of memory set aside for it.
	HugePages map[int64]int64
	// Unified is true on cgroup v2.
	Unified                                         bool
	MachineID, SystemUUID, BootID, Kernel, OS, Arch string
	Hostname                                        string
}

// ReadMachine looks at the machine. root is the folder whose file system holds what Pods write.
func ReadMachine(root string) (Machine, error) {
	m := Machine{CPUs: runtime.NumCPU(), Arch: runtime.GOARCH, OS: "Linux", HugePages: map[int64]int64{}}
	mem, err := meminfo()
	if err != nil {
		return m, err
	}
	m.Memory, m.Swap = mem["MemTotal"], mem["SwapTotal"]
	if m.Memory == 0 {
		return m, fmt.Errorf("read the machine: /proc/meminfo does not tell its memory")
	}
	for dir := root; ; dir = filepath.Dir(dir) {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err == nil {
			m.Storage = int64(fs.Blocks) * fs.Bsize
			break
		} else if dir == "/" {
			return m, fmt.Errorf("read the machine: file system of %s: %w", root, err)
		}
	}
	layout, err := sys.CgroupLayout()
	if err != nil {
		return m, err
	}
	m.Unified = layout.Unified
	readHugePages("/sys/kernel/mm/hugepages", m.HugePages)
	m.MachineID = first("/etc/machine-id", "/var/lib/dbus/machine-id")
	m.SystemUUID = first("/sys/class/dmi/id/product_uuid", "/proc/sys/kernel/random/boot_id")
	m.BootID = first("/proc/sys/kernel/random/boot_id")
	m.Kernel = first("/proc/sys/kernel/osrelease")
	m.OS = osName(m.OS)
	m.Hostname, err = os.Hostname()
	return m, err
}

func first(paths ...string) string {
	for _, p := range paths {
		if raw, err := os.ReadFile(p); err == nil {
			if s := strings.TrimSpace(string(raw)); s != "" {
				return s
			}
		}
	}
	return ""
}

func meminfo() (map[string]int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return nil, fmt.Errorf("read the machine: %w", err)
	}
	defer f.Close()
	all := map[string]int64{}
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) >= 2 {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			all[strings.TrimSuffix(fields[0], ":")] = n << 10
		}
	}
	return all, nil
}

func readHugePages(dir string, into map[int64]int64) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		n, _ := strconv.ParseInt(first(filepath.Join(dir, e.Name(), "nr_hugepages")), 10, 64)
		into[kb<<10] = n * kb << 10
	}
}

func osName(otherwise string) string {
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(raw)) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
				return strings.Trim(v, `"'`)
			}
		}
	}
	return otherwise
}
