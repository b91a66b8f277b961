package sys

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// CgroupUsage is what the processes of a cgroup have used. Missing controllers leave zeros.
type CgroupUsage struct {
	// CPU is the processor time in nanoseconds.
	CPU uint64
	// Memory is everything charged, WorkingSet what cannot be reclaimed easily (all but inactive file pages), RSS the anonymous pages;
	// in bytes. Limit is 0 where there is none.
	Memory, WorkingSet, RSS, Limit uint64
	// Swap is in bytes.
	Swap uint64
	// Faults and MajorFaults count page faults.
	Faults, MajorFaults uint64
	// PIDs is the number of processes and threads.
	PIDs uint64
}

// noLimit is where v1's idea of an unlimited cgroup begins.
const noLimit = 1 << 62

// CgroupStats reads the usage of a cgroup with all below it. The error wraps fs.ErrNotExist if it does not exist.
func CgroupStats(path string) (CgroupUsage, error) {
	c, err := CgroupLayout()
	if err != nil {
		return CgroupUsage{}, err
	}
	probe := c.Folder("memory", path)
	if probe == "" {
		probe = c.Folder("cpu", path)
	}
	if _, err := os.Stat(probe); err != nil {
		return CgroupUsage{}, fmt.Errorf("read usage of cgroup %s: %w", path, err)
	}
	read := func(controller, file string) string {
		raw, _ := os.ReadFile(filepath.Join(c.Folder(controller, path), file))
		return strings.TrimSpace(string(raw))
	}
	number := func(controller, file string) uint64 {
		n, _ := strconv.ParseUint(read(controller, file), 10, 64)
		return n
	}
	var u CgroupUsage
	u.PIDs = number("pids", "pids.current")
	mem := flatKeyed(read("memory", "memory.stat"))
	if c.Unified {
		u.CPU = flatKeyed(read("cpu", "cpu.stat"))["usage_usec"] * 1000
		u.Memory, u.Limit, u.Swap = number("memory", "memory.current"), number("memory", "memory.max"), number("memory", "memory.swap.current")
		u.RSS, u.Faults, u.MajorFaults = mem["anon"], mem["pgfault"], mem["pgmajfault"]
		u.WorkingSet = u.Memory - min(u.Memory, mem["inactive_file"])
		return u, nil
	}
	u.CPU = number("cpuacct", "cpuacct.usage")
	u.Memory, u.Limit = number("memory", "memory.usage_in_bytes"), number("memory", "memory.limit_in_bytes")
	if u.Limit >= noLimit {
		u.Limit = 0
	}
	u.RSS, u.Faults, u.MajorFaults, u.Swap = mem["total_rss"], mem["total_pgfault"], mem["total_pgmajfault"], mem["total_swap"]
	u.WorkingSet = u.Memory - min(u.Memory, mem["total_inactive_file"])
	return u, nil
}

// flatKeyed reads the kernel's "key value" lines.
func flatKeyed(text string) map[string]uint64 {
	m := map[string]uint64{}
	for line := range strings.Lines(text) {
		k, v, ok := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(v, 10, 64); ok && err == nil {
			m[k] = n
		}
	}
	return m
}
