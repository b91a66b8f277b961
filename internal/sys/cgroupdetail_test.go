package sys

import (
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func files(m map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, text := range m {
		out[name] = &fstest.MapFile{Data: []byte(text + "\n")}
	}
	return out
}

func TestReadUnified(t *testing.T) {
	d := CgroupDetail{CgroupUsage: CgroupUsage{Limit: 1000}}
	d.readUnified(files(map[string]string{
		"cpu.stat":        "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 3\nthrottled_usec 2",
		"cpu.max":         "20000 100000",
		"cpu.weight":      "39",
		"memory.stat":     "file 5\nkernel 6\nfile_mapped 7\nactive_file 8\ninactive_file 9",
		"memory.peak":     "77",
		"memory.events":   "low 0\nhigh 0\nmax 11\noom 1\noom_kill 2",
		"memory.low":      "0",
		"memory.swap.max": "24",
		"pids.max":        "max",
		"io.stat":         "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n8:16 ",
		"hugetlb.2MB.max": "max", "hugetlb.2MB.current": "4", "hugetlb.2MB.rsvd.max": "max",
		"cpu.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=4",
	}))
	want := CgroupDetail{CgroupUsage: CgroupUsage{Limit: 1000}, CPUUser: 20000, CPUSystem: 10000, Throttled: 2000, Periods: 4, ThrottledPeriods: 3,
		Shares: 998, Quota: 20000, Period: 100000, Cache: 5, Kernel: 6, Mapped: 7, ActiveFile: 8, InactiveFile: 9, Peak: 77, LimitHits: 11, OOMKills: 2,
		SwapLimit: 1024, Devices: []DeviceIO{{8, 0, 1, 2, 3, 4}}, HugePages: []HugePages{{Size: "2MB", Usage: 4}},
		Pressure: map[string]Pressure{"cpu": {5, 4}}}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
}

func TestReadV1(t *testing.T) {
	all := map[string]map[string]string{
		"cpuacct": {"cpuacct.stat": "user 2\nsystem 1"},
		"cpu":     {"cpu.stat": "nr_periods 4\nnr_throttled 3\nthrottled_time 2", "cpu.shares": "1024", "cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"},
		"memory": {"memory.stat": "cache 0\ntotal_cache 5\ntotal_mapped_file 7\ntotal_active_file 8\ntotal_inactive_file 9", "memory.kmem.usage_in_bytes": "6",
			"memory.max_usage_in_bytes": "77", "memory.failcnt": "11", "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2",
			"memory.soft_limit_in_bytes": "9223372036854771712", "memory.memsw.limit_in_bytes": "1024"},
		"pids": {"pids.max": "32"},
		"blkio": {"blkio.throttle.io_service_bytes_recursive": "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3",
			"blkio.throttle.io_serviced_recursive": "8:0 Read 3\n8:0 Write 4\nTotal 7"},
		"hugetlb": {"hugetlb.2MB.limit_in_bytes": "9223372036854771712", "hugetlb.2MB.usage_in_bytes": "4", "hugetlb.2MB.max_usage_in_bytes": "8"},
	}
	var d CgroupDetail
	d.readV1(func(controller string) fs.FS { return files(all[controller]) })
	want := CgroupDetail{CPUUser: 20_000_000, CPUSystem: 10_000_000, Throttled: 2, Periods: 4, ThrottledPeriods: 3, Shares: 1024, Period: 100000, Cache: 5,
		Kernel: 6, Mapped: 7, ActiveFile: 8, InactiveFile: 9, Peak: 77, LimitHits: 11, OOMKills: 2, SwapLimit: 1024, PIDsMax: 32,
		Devices: []DeviceIO{{8, 0, 1, 2, 3, 4}}, HugePages: []HugePages{{"2MB", 4, 8}}}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
}
