package runtime

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/sys"
)

// metric is one of the container metrics that Kubernetes' users know from cAdvisor, under the same name. Values are whole numbers, as the
// CRI has it: times are full seconds.
type metric struct {
	name, help string
	kind       runtimeapi.MetricType
	// labels are those beyond the ones that all have.
	labels []string
	// read takes the samples out of what was measured; none where it does not apply.
	read func(m *measured) []sample
}

// sample is a value, with the values of a metric's own labels.
type sample struct {
	value  uint64
	labels []string
}

// measured is what is known of a container, or of a Pod as a whole.
type measured struct {
	sys.CgroupDetail
	now, startedAt int64
	pids           []int
	// mount is where the writable layer's file system is mounted; used, its part, in bytes.
	mount             string
	used              uint64
	disk              unix.Statfs_t
	files, sockets    uint64
	openFiles         uint64
	interfaces        []sys.Interface
	isPod, hasProcess bool
}

// commonLabels are what every metric has, in this order.
var commonLabels = []string{"pod", "namespace", "container", "id", "image"}

const nanos = 1_000_000_000

func one(f func(m *measured) uint64) func(*measured) []sample {
	return func(m *measured) []sample { return []sample{{value: f(m)}} }
}

func ofDisk(f func(m *measured) uint64) func(*measured) []sample {
	return func(m *measured) []sample {
		if m.isPod {
			return nil
		}
		return []sample{{f(m), []string{m.mount}}}
	}
}

func ofDevices(f func(d sys.DeviceIO) uint64) func(*measured) []sample {
	return func(m *measured) (list []sample) {
		for _, d := range m.Devices {
			list = append(list, sample{f(d), []string{deviceName(d)}})
		}
		return list
	}
}

func deviceName(d sys.DeviceIO) string {
	number := strconv.FormatUint(d.Major, 10) + ":" + strconv.FormatUint(d.Minor, 10)
	if to, err := filepath.EvalSymlinks("/sys/dev/block/" + number); err == nil {
		return "/dev/" + filepath.Base(to)
	}
	return number
}

func ofInterfaces(f func(i sys.Interface) uint64) func(*measured) []sample {
	return func(m *measured) (list []sample) {
		for _, i := range m.interfaces {
			list = append(list, sample{f(i), []string{i.Name}})
		}
		return list
	}
}

func ofPressure(of string, f func(p sys.Pressure) uint64) func(*measured) []sample {
	return func(m *measured) []sample {
		p, ok := m.Pressure[of]
		if !ok {
			return nil
		}
		return []sample{{value: f(p) / 1_000_000}}
	}
}

func blkioUsage(m *measured) (list []sample) {
	for _, d := range m.Devices {
		for op, n := range map[string]uint64{"Read": d.ReadBytes, "Write": d.WriteBytes} {
			list = append(list, sample{n, []string{deviceName(d), strconv.FormatUint(d.Major, 10), strconv.FormatUint(d.Minor, 10), op}})
		}
	}
	return list
}

func memoryFailures(m *measured) []sample {
	return []sample{{m.Faults, []string{"pgfault", "hierarchy"}}, {m.MajorFaults, []string{"pgmajfault", "hierarchy"}}}
}

func hugePages(f func(h sys.HugePages) uint64) func(*measured) []sample {
	return func(m *measured) (list []sample) {
		for _, h := range m.HugePages {
			list = append(list, sample{f(h), []string{h.Size}})
		}
		return list
	}
}

func openFiles(m *measured) []sample {
	if !m.hasProcess {
		return nil
	}
	return []sample{{m.openFiles, []string{"max_open_files"}}}
}

// ListMetricDescriptors tells which metrics ListPodSandboxMetrics can answer with.
func (r *Runtime) ListMetricDescriptors(context.Context) ([]*runtimeapi.MetricDescriptor, error) {
	var list []*runtimeapi.MetricDescriptor
	for _, m := range metrics {
		list = append(list, &runtimeapi.MetricDescriptor{Name: m.name, Help: m.help, LabelKeys: slices.Concat(commonLabels, m.labels)})
	}
	return list, nil
}

// ListPodSandboxMetrics measures every ready Pod and each of its running containers.
func (r *Runtime) ListPodSandboxMetrics(context.Context) ([]*runtimeapi.PodSandboxMetrics, error) {
	r.mu.Lock()
	var ready []*sandbox
	for _, sb := range r.sandboxes {
		if sb.rec.Ready {
			ready = append(ready, sb)
		}
	}
	r.mu.Unlock()
	var list []*runtimeapi.PodSandboxMetrics
	for _, sb := range ready {
		m, err := r.sandboxMetrics(sb)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

func (r *Runtime) sandboxMetrics(sb *sandbox) (*runtimeapi.PodSandboxMetrics, error) {
	r.mu.Lock()
	rec := sb.rec
	r.mu.Unlock()
	out := &runtimeapi.PodSandboxMetrics{PodSandboxId: rec.ID}
	meta := rec.Config.GetMetadata()
	labels := func(container, cgroup, image string) []string {
		return []string{meta.GetName(), meta.GetNamespace(), container, cgroup, image}
	}
	cgroup := path.Dir(r.containerCgroup(sb, "x"))
	m := &measured{now: r.cfg.Clock.Now().UnixNano(), startedAt: rec.CreatedAt, isPod: true}
	switch err := m.readCgroup(cgroup); {
	case err == nil:
		if rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() != runtimeapi.NamespaceMode_NODE {
			if m.interfaces, err = sys.InterfaceUsage(rec.PausePID); err != nil {
				m.interfaces = nil // pause has just ended
			}
		}
		out.Metrics = m.all(labels("", cgroup, ""))
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	for _, c := range r.runningContainers("", rec.ID, nil) {
		r.mu.Lock()
		rec := c.rec
		r.mu.Unlock()
		m, err := r.measure(&rec)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just ended
		}
		if err != nil {
			return nil, err
		}
		out.ContainerMetrics = append(out.ContainerMetrics, &runtimeapi.ContainerMetrics{ContainerId: rec.ID,
			Metrics: m.all(labels(rec.Config.GetMetadata().GetName(), rec.Cgroup, rec.Config.GetImage().GetImage()))})
	}
	return out, nil
}

func (m *measured) readCgroup(cgroup string) (err error) {
	if m.CgroupDetail, err = sys.CgroupDetails(cgroup); err != nil {
		return err
	}
	m.pids, err = sys.CgroupProcs(cgroup)
	for _, pid := range m.pids {
		files, sockets := sys.Descriptors(pid)
		m.files, m.sockets = m.files+files, m.sockets+sockets
	}
	return err
}

func (r *Runtime) measure(rec *containerRecord) (*measured, error) {
	m := &measured{now: r.cfg.Clock.Now().UnixNano(), startedAt: rec.StartedAt, mount: r.cfg.Root}
	if err := m.readCgroup(rec.Cgroup); err != nil {
		return nil, err
	}
	m.openFiles, m.hasProcess = sys.OpenFilesLimit(rec.PID)
	m.used, _, _ = sys.DiskUsage(filepath.Join(r.cfg.containerDir(rec.ID), "upper"))
	return m, unix.Statfs(r.cfg.Root, &m.disk)
}

// all is every metric that applies, with the values of the common labels before its own.
func (m *measured) all(labels []string) []*runtimeapi.Metric {
	var list []*runtimeapi.Metric
	for _, def := range metrics {
		for _, s := range def.read(m) {
			list = append(list, &runtimeapi.Metric{Name: def.name, MetricType: def.kind, LabelValues: slices.Concat(labels, s.labels), Value: value(s.value)})
		}
	}
	return list
}
