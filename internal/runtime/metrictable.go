package runtime

import (
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/sys"
)

const (
	counter = runtimeapi.MetricType_COUNTER
	gauge   = runtimeapi.MetricType_GAUGE
)

// metrics are all that there are, in the order of their names' groups. A file system's or device's metric has the label device, an
// interface's the label interface.
var metrics = []metric{
	{"container_cpu_usage_seconds_total", "Processor time used, in seconds.", counter, nil, one(func(m *measured) uint64 { return m.CPU / nanos })},
	{"container_cpu_user_seconds_total", "Processor time used in user mode, in seconds.", counter, nil, one(func(m *measured) uint64 { return m.CPUUser / nanos })},
	{"container_cpu_system_seconds_total", "Processor time used in the kernel, in seconds.", counter, nil, one(func(m *measured) uint64 { return m.CPUSystem / nanos })},
	{"container_cpu_cfs_periods_total", "Periods of the processor quota that have passed.", counter, nil, one(func(m *measured) uint64 { return m.Periods })},
	{"container_cpu_cfs_throttled_periods_total", "Periods in which the processor quota was used up.", counter, nil, one(func(m *measured) uint64 { return m.ThrottledPeriods })},
	{"container_cpu_cfs_throttled_seconds_total", "How long the processor quota held it back, in seconds.", counter, nil, one(func(m *measured) uint64 { return m.Throttled / nanos })},
	{"container_spec_cpu_period", "Length of a period of the processor quota, in microseconds.", gauge, nil, one(func(m *measured) uint64 { return m.Period })},
	{"container_spec_cpu_quota", "Processor quota in a period, in microseconds; absent where there is none.", gauge, nil, func(m *measured) []sample {
		if m.Quota == 0 {
			return nil
		}
		return []sample{{value: m.Quota}}
	}},
	{"container_spec_cpu_shares", "Share of the processor, relative to 1024.", gauge, nil, one(func(m *measured) uint64 { return m.Shares })},

	{"container_memory_usage_bytes", "All memory that is charged, in bytes.", gauge, nil, one(func(m *measured) uint64 { return m.Memory })},
	{"container_memory_max_usage_bytes", "The most memory that was ever charged, in bytes.", gauge, nil, one(func(m *measured) uint64 { return m.Peak })},
	{"container_memory_working_set_bytes", "Memory that cannot be taken back easily, in bytes.", gauge, nil, one(func(m *measured) uint64 { return m.WorkingSet })},
	{"container_memory_rss", "Anonymous memory, in bytes.", gauge, nil, one(func(m *measured) uint64 { return m.RSS })},
	{"container_memory_cache", "Pages of files, in bytes.", gauge, nil, one(func(m *measured) uint64 { return m.Cache })},
	{"container_memory_mapped_file", "Pages of files that are mapped, in bytes.", gauge, nil, one(func(m *measured) uint64 { return m.Mapped })},
	{"container_memory_total_active_file_bytes", "Pages of files in use lately, in bytes.", gauge, nil, one(func(m *measured) uint64 { return m.ActiveFile })},
	{"container_memory_total_inactive_file_bytes", "Pages of files not in use lately, in bytes.", gauge, nil, one(func(m *measured) uint64 { return m.InactiveFile })},
	{"container_memory_kernel_usage", "Memory of the kernel for it, in bytes.", gauge, nil, one(func(m *measured) uint64 { return m.Kernel })},
	{"container_memory_swap", "Swap in use, in bytes.", gauge, nil, one(func(m *measured) uint64 { return m.Swap })},
	{"container_memory_failcnt", "How often the memory limit was met.", counter, nil, one(func(m *measured) uint64 { return m.LimitHits })},
	{"container_memory_failures_total", "Page faults.", counter, []string{"failure_type", "scope"}, memoryFailures},
	{"container_oom_events_total", "Processes killed for want of memory.", counter, nil, one(func(m *measured) uint64 { return m.OOMKills })},
	{"container_spec_memory_limit_bytes", "Memory limit in bytes, 0 for none.", gauge, nil, one(func(m *measured) uint64 { return m.Limit })},
	{"container_spec_memory_reservation_limit_bytes", "Memory reservation in bytes, 0 for none.", gauge, nil, one(func(m *measured) uint64 { return m.Reservation })},
	{"container_spec_memory_swap_limit_bytes", "Limit of memory and swap together in bytes, 0 for none.", gauge, nil, one(func(m *measured) uint64 { return m.SwapLimit })},
	{"container_hugetlb_usage_bytes", "Huge pages in use, in bytes.", gauge, []string{"pagesize"}, hugePages(func(h sys.HugePages) uint64 { return h.Usage })},
	{"container_hugetlb_max_usage_bytes", "The most huge pages that were ever in use, in bytes.", gauge, []string{"pagesize"}, hugePages(func(h sys.HugePages) uint64 { return h.Peak })},

	{"container_pressure_cpu_waiting_seconds_total", "How long some tasks waited for a processor, in seconds.", counter, nil, ofPressure("cpu", func(p sys.Pressure) uint64 { return p.Some })},
	{"container_pressure_cpu_stalled_seconds_total", "How long all tasks waited for a processor, in seconds.", counter, nil, ofPressure("cpu", func(p sys.Pressure) uint64 { return p.Full })},
	{"container_pressure_memory_waiting_seconds_total", "How long some tasks waited for memory, in seconds.", counter, nil, ofPressure("memory", func(p sys.Pressure) uint64 { return p.Some })},
	{"container_pressure_memory_stalled_seconds_total", "How long all tasks waited for memory, in seconds.", counter, nil, ofPressure("memory", func(p sys.Pressure) uint64 { return p.Full })},
	{"container_pressure_io_waiting_seconds_total", "How long some tasks waited for a disk, in seconds.", counter, nil, ofPressure("io", func(p sys.Pressure) uint64 { return p.Some })},
	{"container_pressure_io_stalled_seconds_total", "How long all tasks waited for a disk, in seconds.", counter, nil, ofPressure("io", func(p sys.Pressure) uint64 { return p.Full })},

	{"container_fs_limit_bytes", "Size of the file system of the writable layer, in bytes.", gauge, []string{"device"}, ofDisk(func(m *measured) uint64 { return m.disk.Blocks * uint64(m.disk.Bsize) })},
	{"container_fs_usage_bytes", "What the writable layer takes, in bytes.", gauge, []string{"device"}, ofDisk(func(m *measured) uint64 { return m.used })},
	{"container_fs_inodes_total", "Inodes of the file system of the writable layer.", gauge, []string{"device"}, ofDisk(func(m *measured) uint64 { return m.disk.Files })},
	{"container_fs_inodes_free", "Free inodes of the file system of the writable layer.", gauge, []string{"device"}, ofDisk(func(m *measured) uint64 { return m.disk.Ffree })},
	{"container_fs_reads_bytes_total", "Bytes read from a device.", counter, []string{"device"}, ofDevices(func(d sys.DeviceIO) uint64 { return d.ReadBytes })},
	{"container_fs_reads_total", "Reads from a device.", counter, []string{"device"}, ofDevices(func(d sys.DeviceIO) uint64 { return d.ReadOps })},
	{"container_fs_writes_bytes_total", "Bytes written to a device.", counter, []string{"device"}, ofDevices(func(d sys.DeviceIO) uint64 { return d.WriteBytes })},
	{"container_fs_writes_total", "Writes to a device.", counter, []string{"device"}, ofDevices(func(d sys.DeviceIO) uint64 { return d.WriteOps })},
	{"container_blkio_device_usage_total", "Bytes that passed between it and a device, by operation.", counter, []string{"device", "major", "minor", "operation"}, blkioUsage},

	{"container_network_receive_bytes_total", "Bytes received.", counter, []string{"interface"}, ofInterfaces(func(i sys.Interface) uint64 { return i.RxBytes })},
	{"container_network_receive_packets_total", "Packets received.", counter, []string{"interface"}, ofInterfaces(func(i sys.Interface) uint64 { return i.RxPackets })},
	{"container_network_receive_packets_dropped_total", "Received packets that were dropped.", counter, []string{"interface"}, ofInterfaces(func(i sys.Interface) uint64 { return i.RxDropped })},
	{"container_network_receive_errors_total", "Errors in receiving.", counter, []string{"interface"}, ofInterfaces(func(i sys.Interface) uint64 { return i.RxErrors })},
	{"container_network_transmit_bytes_total", "Bytes sent.", counter, []string{"interface"}, ofInterfaces(func(i sys.Interface) uint64 { return i.TxBytes })},
	{"container_network_transmit_packets_total", "Packets sent.", counter, []string{"interface"}, ofInterfaces(func(i sys.Interface) uint64 { return i.TxPackets })},
	{"container_network_transmit_packets_dropped_total", "Packets to be sent that were dropped.", counter, []string{"interface"}, ofInterfaces(func(i sys.Interface) uint64 { return i.TxDropped })},
	{"container_network_transmit_errors_total", "Errors in sending.", counter, []string{"interface"}, ofInterfaces(func(i sys.Interface) uint64 { return i.TxErrors })},

	{"container_processes", "Processes.", gauge, nil, one(func(m *measured) uint64 { return uint64(len(m.pids)) })},
	{"container_threads", "Threads.", gauge, nil, one(func(m *measured) uint64 { return m.PIDs })},
	{"container_threads_max", "The most threads there may be, 0 for no limit.", gauge, nil, one(func(m *measured) uint64 { return m.PIDsMax })},
	{"container_file_descriptors", "Open files.", gauge, nil, one(func(m *measured) uint64 { return m.files })},
	{"container_sockets", "Open sockets.", gauge, nil, one(func(m *measured) uint64 { return m.sockets })},
	{"container_ulimits_soft", "Soft limits of the first process.", gauge, []string{"ulimit"}, openFiles},
	{"container_last_seen", "When this was measured, in seconds since 1970.", gauge, nil, one(func(m *measured) uint64 { return uint64(m.now / nanos) })},
	{"container_start_time_seconds", "When it was started, in seconds since 1970.", gauge, nil, one(func(m *measured) uint64 { return uint64(m.startedAt / nanos) })},
}
