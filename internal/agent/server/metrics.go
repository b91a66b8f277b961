package server

import (
	"net/http"
	"runtime"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"carob.dev/carob/internal/agent/podstate"
)

const (
	counter = "counter"
	gauge   = "gauge"
)

// ownMetrics are what the agent knows of itself, as far as kubelet has a name for it.
func (s *server) ownMetrics(w http.ResponseWriter, _ *http.Request) {
	var p page
	var now time.Time
	states := map[string]int{"running": 0, "exited": 0}
	phases := map[corev1.PodPhase]int{corev1.PodPending: 0, corev1.PodRunning: 0, corev1.PodSucceeded: 0, corev1.PodFailed: 0}
	pods := 0
	for _, v := range s.Pods.Views() {
		phases[v.Status.Phase]++
		if v.SandboxID != "" {
			pods++
		}
		for _, spec := range podstate.Containers(v.Pod) {
			switch i := v.Logs[spec.Name]; {
			case i.RunningID != "":
				states["running"]++
			case i.Newest >= 0:
				states["exited"]++
			}
		}
	}
	p.add("kubelet_running_pods", gauge, "Number of pods that have a running pod sandbox", float64(pods), now)
	for state, n := range states {
		p.add("kubelet_running_containers", gauge, "Number of containers currently running", float64(n), now, "container_state", state)
	}
	for phase, n := range phases {
		p.add("carob_pods", gauge, "Pods of the node by phase", float64(n), now, "phase", string(phase))
	}
	p.add("kubernetes_build_info", gauge, "The Kubernetes version whose behaviour this is", 1, now, "git_version", s.Version, "go_version", runtime.Version(),
		"platform", runtime.GOOS+"/"+runtime.GOARCH)
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	p.add("go_goroutines", gauge, "Number of goroutines that currently exist.", float64(runtime.NumGoroutine()), now)
	p.add("go_memstats_heap_inuse_bytes", gauge, "Number of heap bytes that are in use.", float64(mem.HeapInuse), now)
	p.add("go_memstats_sys_bytes", gauge, "Number of bytes obtained from system.", float64(mem.Sys), now)
	for _, c := range s.Meter.Claims(s.measured()) {
		add := func(name, help string, n *uint64) {
			if n != nil {
				p.add("kubelet_volume_stats_"+name, gauge, help, float64(*n), now, "namespace", c.PVCRef.Namespace, "persistentvolumeclaim", c.PVCRef.Name)
			}
		}
		add("capacity_bytes", "Capacity in bytes of the volume", c.CapacityBytes)
		add("available_bytes", "Number of available bytes in the volume", c.AvailableBytes)
		add("used_bytes", "Number of used bytes in the volume", c.UsedBytes)
		add("inodes", "Maximum number of inodes in the volume", c.Inodes)
		add("inodes_free", "Number of free inodes in the volume", c.InodesFree)
		add("inodes_used", "Number of used inodes in the volume", c.InodesUsed)
	}
	p.write(w)
}

// resourceMetrics are the processor, memory and swap of node, Pods and containers.
func (s *server) resourceMetrics(w http.ResponseWriter, r *http.Request) {
	sum := s.Meter.Counters(r.Context(), s.measured())
	var p page
	add := func(of, what string, cpu *stats.CPUStats, mem *stats.MemoryStats, swap *stats.SwapStats, labels ...string) {
		if cpu != nil {
			p.add(of+"_cpu_usage_seconds_total", counter, "Cumulative cpu time consumed by the "+what+" in core-seconds",
				float64(*cpu.UsageCoreNanoSeconds)/1e9, cpu.Time.Time, labels...)
		}
		if mem != nil {
			p.add(of+"_memory_working_set_bytes", gauge, "Current working set of the "+what+" in bytes", float64(*mem.WorkingSetBytes), mem.Time.Time, labels...)
		}
		if swap != nil {
			p.add(of+"_swap_usage_bytes", gauge, "Current swap usage of the "+what+" in bytes", float64(*swap.SwapUsageBytes), swap.Time.Time, labels...)
		}
	}
	add("node", "node", sum.Node.CPU, sum.Node.Memory, sum.Node.Swap)
	for _, pod := range sum.Pods {
		add("pod", "pod", pod.CPU, pod.Memory, pod.Swap, "namespace", pod.PodRef.Namespace, "pod", pod.PodRef.Name)
		for _, c := range pod.Containers {
			labels := []string{"container", c.Name, "namespace", pod.PodRef.Namespace, "pod", pod.PodRef.Name}
			add("container", "container", c.CPU, c.Memory, c.Swap, labels...)
			if !c.StartTime.IsZero() {
				p.add("container_start_time_seconds", gauge, "Start time of the container since unix epoch in seconds", float64(c.StartTime.UnixNano())/1e9,
					time.Time{}, labels...)
			}
		}
	}
	p.add("resource_scrape_error", gauge, "1 if there was an error while getting container metrics, 0 otherwise", 0, time.Time{})
	p.write(w)
}

// probeMetrics are the attempts of probes by their results.
func (s *server) probeMetrics(w http.ResponseWriter, _ *http.Request) {
	var p page
	for c, n := range s.Probes.All() {
		p.add("prober_probe_total", counter, "Cumulative number of a liveness, readiness or startup probe for a container by result.", float64(n), time.Time{},
			"container", c.Container, "namespace", c.Namespace, "pod", c.Pod, "pod_uid", string(c.UID), "probe_type", string(c.Kind), "result", c.Result)
	}
	p.write(w)
}

// runtimeMetrics are the runtime's own of containers, under the names that cAdvisor gave them, and the machine's. A runtime that has none is an error.
func (s *server) runtimeMetrics(w http.ResponseWriter, r *http.Request) {
	descriptors, err := s.Runtime.ListMetricDescriptors(r.Context())
	var sandboxes []*runtimeapi.PodSandboxMetrics
	if err == nil {
		sandboxes, err = s.Runtime.ListPodSandboxMetrics(r.Context())
	}
	if err != nil {
		http.Error(w, "the runtime's metrics: "+err.Error(), http.StatusInternalServerError)
		return
	}
	known := map[string]*runtimeapi.MetricDescriptor{}
	for _, d := range descriptors {
		known[d.GetName()] = d
	}
	var p page
	add := func(list []*runtimeapi.Metric) {
		for _, m := range list {
			d := known[m.GetName()]
			if d == nil || len(d.GetLabelKeys()) != len(m.GetLabelValues()) {
				continue
			}
			labels := make([]string, 0, 2*len(d.GetLabelKeys()))
			for i, k := range d.GetLabelKeys() {
				labels = append(labels, k, m.GetLabelValues()[i])
			}
			kind := gauge
			if m.GetMetricType() == runtimeapi.MetricType_COUNTER {
				kind = counter
			}
			var at time.Time
			if m.GetTimestamp() != 0 {
				at = time.Unix(0, m.GetTimestamp())
			}
			p.add(m.GetName(), kind, d.GetHelp(), float64(m.GetValue().GetValue()), at, labels...)
		}
	}
	for _, sb := range sandboxes {
		add(sb.GetMetrics())
		for _, c := range sb.GetContainerMetrics() {
			add(c.GetMetrics())
		}
	}
	p.add("machine_cpu_cores", gauge, "Number of logical CPU cores.", float64(s.CPUs), time.Time{})
	p.add("machine_memory_bytes", gauge, "Amount of memory installed on the machine.", float64(s.Memory), time.Time{})
	p.write(w)
}
