package sys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Resources are the limits of a cgroup. Zero values leave things as they are.
type Resources struct {
	// CPUShares is v1's cpu.shares, 2 to 262144; it becomes cpu.weight on v2.
	CPUShares uint64
	// CPUQuota is the processor time, in microseconds, that may be used in each CPUPeriod; negative for no limit.
	CPUQuota  int64
	CPUPeriod uint64
	// Memory is the limit in bytes; negative for none.
	Memory int64
	// PIDs is the greatest number of processes and threads; negative for no limit.
	PIDs int64
	// CPUs and Mems are lists of processors and memory nodes, such as 0-3.
	CPUs, Mems string
	// HugePages maps a page size (2MB) to a limit in bytes.
	HugePages map[string]uint64
	// Unified are files of cgroup v2 with what to write to them. Refused on v1.
	Unified map[string]string
}

type setting struct{ controller, file, value string }

// CPUWeight turns cpu.shares into cgroup v2's cpu.weight, linearly from 2…262144 to 1…10000, as the OCI runtimes do.
func CPUWeight(shares uint64) uint64 {
	if shares == 0 {
		return 0
	}
	shares = min(max(shares, 2), 262144)
	return 1 + (shares-2)*9999/262142
}

// settings lists the files to write for r, in order.
func (r Resources) settings(unified bool) ([]setting, error) {
	var s []setting
	add := func(controller, v1, v2, value string) {
		if file := map[bool]string{true: v2, false: v1}[unified]; file != "" {
			s = append(s, setting{controller, file, value})
		}
	}
	period := r.CPUPeriod
	if period == 0 {
		period = 100000
	}
	if r.CPUShares != 0 {
		add("cpu", "cpu.shares", "", strconv.FormatUint(r.CPUShares, 10))
		add("cpu", "", "cpu.weight", strconv.FormatUint(CPUWeight(r.CPUShares), 10))
	}
	if r.CPUQuota != 0 {
		quota, max := strconv.FormatInt(r.CPUQuota, 10), strconv.FormatInt(r.CPUQuota, 10)
		if r.CPUQuota < 0 {
			quota, max = "-1", "max"
		}
		add("cpu", "cpu.cfs_period_us", "", strconv.FormatUint(period, 10))
		add("cpu", "cpu.cfs_quota_us", "", quota)
		add("cpu", "", "cpu.max", max+" "+strconv.FormatUint(period, 10))
	}
	if r.Memory != 0 {
		limit, v2 := strconv.FormatInt(r.Memory, 10), strconv.FormatInt(r.Memory, 10)
		if r.Memory < 0 {
			limit, v2 = "-1", "max"
		}
		add("memory", "memory.limit_in_bytes", "memory.max", limit)
		if unified {
			s[len(s)-1].value = v2
		}
	}
	if r.PIDs != 0 {
		v := strconv.FormatInt(r.PIDs, 10)
		if r.PIDs < 0 {
			v = "max"
		}
		add("pids", "pids.max", "pids.max", v)
	}
	if r.CPUs != "" {
		add("cpuset", "cpuset.cpus", "cpuset.cpus", r.CPUs)
	}
	if r.Mems != "" {
		add("cpuset", "cpuset.mems", "cpuset.mems", r.Mems)
	}
	for size, limit := range r.HugePages {
		add("hugetlb", "hugetlb."+size+".limit_in_bytes", "hugetlb."+size+".max", strconv.FormatUint(limit, 10))
	}
	for file, value := range r.Unified {
		if !unified {
			return nil, fmt.Errorf("%s is a file of cgroup v2, this machine has v1", file)
		}
		if strings.ContainsRune(file, '/') {
			return nil, fmt.Errorf("%q is not the name of a cgroup file", file)
		}
		controller, _, _ := strings.Cut(file, ".")
		s = append(s, setting{controller, file, value})
	}
	return s, nil
}

// CgroupUpdate sets limits of an existing cgroup. A limit whose controller this machine lacks is an error that names it.
func CgroupUpdate(path string, r Resources) error {
	c, err := CgroupLayout()
	if err != nil {
		return err
	}
	list, err := r.settings(c.Unified)
	if err != nil {
		return fmt.Errorf("limit cgroup %s: %w", path, err)
	}
	for _, s := range list {
		dir := c.Folder(s.controller, path)
		if dir == "" {
			return fmt.Errorf("limit cgroup %s: this machine has no %s controller for %s", path, s.controller, s.file)
		}
		err := write(dir, s)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) && !exists(filepath.Join(dir, s.file)) {
			return fmt.Errorf("limit cgroup %s: the %s controller is not there for %s", path, s.controller, s.file)
		}
		if err != nil {
			return fmt.Errorf("limit cgroup %s: set %s to %s: %w", path, s.file, s.value, err)
		}
	}
	return nil
}

// write sets one file. Where v1 limits memory and swap together, too, that limit follows the one of memory: it may never be the lower one.
func write(dir string, s setting) error {
	const both = "memory.memsw.limit_in_bytes"
	set := func(file string) error { return os.WriteFile(filepath.Join(dir, file), []byte(s.value), 0) }
	if s.file != "memory.limit_in_bytes" {
		return set(s.file)
	}
	before, err := os.ReadFile(filepath.Join(dir, both))
	have, _ := strconv.ParseUint(strings.TrimSpace(string(before)), 10, 64)
	if err != nil || have >= noLimit {
		return set(s.file)
	}
	want, err := strconv.ParseInt(s.value, 10, 64)
	if err == nil && want >= 0 && uint64(want) <= have {
		return errors.Join(set(s.file), set(both))
	}
	return errors.Join(set(both), set(s.file))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
