package sys

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// CgroupDetail is all that a cgroup counts, with what is below it. What this machine does not count is zero, or left out of the lists.
type CgroupDetail struct {
	CgroupUsage
	// CPUUser and CPUSystem are parts of CPU, Throttled is how long the quota held it back; in nanoseconds.
	CPUUser, CPUSystem, Throttled uint64
	// Periods and ThrottledPeriods count the quota's periods.
	Periods, ThrottledPeriods uint64
	// Shares, Quota and Period are the processor's limits; Quota is 0 where there is none.
	Shares, Quota, Period uint64
	// Cache, Kernel, Mapped, ActiveFile, InactiveFile and Peak are kinds of memory in bytes, LimitHits how often the limit was met.
	Cache, Kernel, Mapped, ActiveFile, InactiveFile, Peak, LimitHits uint64
	// Reservation and SwapLimit are in bytes, 0 for none. The latter is of memory and swap together.
	Reservation, SwapLimit uint64
	OOMKills               uint64
	// PIDsMax is 0 where there is no limit.
	PIDsMax   uint64
	Devices   []DeviceIO
	HugePages []HugePages
	// Pressure is by cpu, memory and io.
	Pressure map[string]Pressure
}

// DeviceIO is what passed between a cgroup and a block device.
type DeviceIO struct {
	Major, Minor                             uint64
	ReadBytes, WriteBytes, ReadOps, WriteOps uint64
}

// HugePages are those of one size, named as the kernel does (2MB), in bytes.
type HugePages struct {
	Size        string
	Usage, Peak uint64
}

// Pressure is how long some, or all, of a cgroup's tasks waited, in microseconds.
type Pressure struct{ Some, Full uint64 }

// CgroupDetails reads all that a cgroup counts. The error wraps fs.ErrNotExist if it does not exist.
func CgroupDetails(path string) (CgroupDetail, error) {
	c, err := CgroupLayout()
	if err != nil {
		return CgroupDetail{}, err
	}
	var d CgroupDetail
	if d.CgroupUsage, err = CgroupStats(path); err != nil {
		return d, err
	}
	if c.Unified {
		d.readUnified(os.DirFS(c.Folder("", path)))
	} else {
		d.readV1(func(controller string) fs.FS {
			if folder := c.Folder(controller, path); folder != "" {
				return os.DirFS(folder)
			}
			return os.DirFS("/nonexistent")
		})
	}
	return d, nil
}

func text(dir fs.FS, name string) string {
	raw, _ := fs.ReadFile(dir, name)
	return strings.TrimSpace(string(raw))
}

// count reads a number; "max", an unlimited v1 value and a missing file are 0.
func count(dir fs.FS, name string) uint64 {
	n, err := strconv.ParseUint(text(dir, name), 10, 64)
	if err != nil || n >= noLimit {
		return 0
	}
	return n
}

func (d *CgroupDetail) readUnified(dir fs.FS) {
	cpu := flatKeyed(text(dir, "cpu.stat"))
	d.CPUUser, d.CPUSystem, d.Throttled = cpu["user_usec"]*1000, cpu["system_usec"]*1000, cpu["throttled_usec"]*1000
	d.Periods, d.ThrottledPeriods = cpu["nr_periods"], cpu["nr_throttled"]
	if quota, period, ok := strings.Cut(text(dir, "cpu.max"), " "); ok {
		d.Quota, _ = strconv.ParseUint(quota, 10, 64)
		d.Period, _ = strconv.ParseUint(period, 10, 64)
	}
	if weight := count(dir, "cpu.weight"); weight > 0 {
		d.Shares = 2 + (weight-1)*262142/9999 // the inverse of how OCI runtimes turn shares into a weight
	}
	mem := flatKeyed(text(dir, "memory.stat"))
	d.Cache, d.Kernel, d.Mapped, d.ActiveFile, d.InactiveFile = mem["file"], mem["kernel"], mem["file_mapped"], mem["active_file"], mem["inactive_file"]
	d.Peak = count(dir, "memory.peak")
	events := flatKeyed(text(dir, "memory.events"))
	d.LimitHits, d.OOMKills = events["max"], events["oom_kill"]
	d.Reservation = count(dir, "memory.low")
	if swap := text(dir, "memory.swap.max"); d.Limit > 0 && swap != "" && swap != "max" {
		d.SwapLimit = d.Limit + count(dir, "memory.swap.max")
	}
	d.PIDsMax = count(dir, "pids.max")
	d.Devices = parseIOStat(text(dir, "io.stat"))
	d.HugePages = hugePages(dir, func(size string) string { return "hugetlb." + size + ".current" }, func(size string) string { return "hugetlb." + size + ".max_usage" })
	d.Pressure = map[string]Pressure{}
	for _, of := range []string{"cpu", "memory", "io"} {
		if p, ok := parsePressure(text(dir, of+".pressure")); ok {
			d.Pressure[of] = p
		}
	}
}

func (d *CgroupDetail) readV1(folder func(controller string) fs.FS) {
	tick := uint64(10_000_000) // USER_HZ is 100 wherever Linux runs Go
	acct := flatKeyed(text(folder("cpuacct"), "cpuacct.stat"))
	d.CPUUser, d.CPUSystem = acct["user"]*tick, acct["system"]*tick
	cpu := folder("cpu")
	stat := flatKeyed(text(cpu, "cpu.stat"))
	d.Periods, d.ThrottledPeriods, d.Throttled = stat["nr_periods"], stat["nr_throttled"], stat["throttled_time"]
	d.Shares, d.Quota, d.Period = count(cpu, "cpu.shares"), count(cpu, "cpu.cfs_quota_us"), count(cpu, "cpu.cfs_period_us")
	memory := folder("memory")
	mem := flatKeyed(text(memory, "memory.stat"))
	d.Cache, d.Mapped, d.ActiveFile, d.InactiveFile = mem["total_cache"], mem["total_mapped_file"], mem["total_active_file"], mem["total_inactive_file"]
	d.Kernel, d.Peak, d.LimitHits = count(memory, "memory.kmem.usage_in_bytes"), count(memory, "memory.max_usage_in_bytes"), count(memory, "memory.failcnt")
	d.OOMKills = flatKeyed(text(memory, "memory.oom_control"))["oom_kill"]
	d.Reservation, d.SwapLimit = count(memory, "memory.soft_limit_in_bytes"), count(memory, "memory.memsw.limit_in_bytes")
	d.PIDsMax = count(folder("pids"), "pids.max")
	blkio := folder("blkio")
	d.Devices = parseBlkio(text(blkio, "blkio.throttle.io_service_bytes_recursive"), text(blkio, "blkio.throttle.io_serviced_recursive"))
	d.HugePages = hugePages(folder("hugetlb"), func(size string) string { return "hugetlb." + size + ".usage_in_bytes" },
		func(size string) string { return "hugetlb." + size + ".max_usage_in_bytes" })
}

// hugePages finds the sizes by their limits' files.
func hugePages(dir fs.FS, usage, peak func(size string) string) []HugePages {
	var list []HugePages
	for _, pattern := range []string{"hugetlb.*.max", "hugetlb.*.limit_in_bytes"} {
		files, _ := fs.Glob(dir, pattern)
		for _, f := range files {
			size, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(f), "hugetlb."), ".")
			if strings.Contains(f, ".rsvd.") {
				continue
			}
			list = append(list, HugePages{Size: size, Usage: count(dir, usage(size)), Peak: count(dir, peak(size))})
		}
	}
	return list
}

// parseIOStat reads v2's io.stat: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0".
func parseIOStat(text string) []DeviceIO {
	var list []DeviceIO
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		var io DeviceIO
		if len(f) < 2 {
			continue
		}
		if n, err := fmt.Sscanf(f[0], "%d:%d", &io.Major, &io.Minor); n != 2 || err != nil {
			continue
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			n, _ := strconv.ParseUint(v, 10, 64)
			switch k {
			case "rbytes":
				io.ReadBytes = n
			case "wbytes":
				io.WriteBytes = n
			case "rios":
				io.ReadOps = n
			case "wios":
				io.WriteOps = n
			}
		}
		list = append(list, io)
	}
	return list
}

// parseBlkio reads v1's "8:0 Read 1" lines of bytes and of operations.
func parseBlkio(bytes, ops string) []DeviceIO {
	var list []DeviceIO
	add := func(text string, set func(io *DeviceIO, op string, n uint64)) {
		for line := range strings.Lines(text) {
			var major, minor, n uint64
			var op string
			if found, _ := fmt.Sscanf(line, "%d:%d %s %d", &major, &minor, &op, &n); found != 4 {
				continue
			}
			i := slices.IndexFunc(list, func(io DeviceIO) bool { return io.Major == major && io.Minor == minor })
			if i < 0 {
				list, i = append(list, DeviceIO{Major: major, Minor: minor}), len(list)
			}
			set(&list[i], op, n)
		}
	}
	add(bytes, func(io *DeviceIO, op string, n uint64) {
		switch op {
		case "Read":
			io.ReadBytes = n
		case "Write":
			io.WriteBytes = n
		}
	})
	add(ops, func(io *DeviceIO, op string, n uint64) {
		switch op {
		case "Read":
			io.ReadOps = n
		case "Write":
			io.WriteOps = n
		}
	})
	return list
}

// parsePressure reads "some avg10=0.00 avg60=0.00 avg300=0.00 total=5" and the same of full.
func parsePressure(text string) (p Pressure, ok bool) {
	for line := range strings.Lines(text) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		_, total, found := strings.Cut(rest, "total=")
		n, err := strconv.ParseUint(total, 10, 64)
		if !found || err != nil {
			continue
		}
		switch kind {
		case "some":
			p.Some, ok = n, true
		case "full":
			p.Full = n
		}
	}
	return p, ok
}

// Descriptors counts the open files of a process, and how many of them are sockets.
func Descriptors(pid int) (files, sockets uint64) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		files++
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			sockets++
		}
	}
	return files, sockets
}

// OpenFilesLimit is the soft limit of a process's open files; false where it is not known.
func OpenFilesLimit(pid int) (uint64, bool) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			n, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
