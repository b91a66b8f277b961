package runtime

import (
	"context"
	"slices"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestMetrics holds that what is measured is what was announced, with a value for each label, and that a container that did something
// shows it.
func TestMetrics(t *testing.T) {
	b := newBench(t)
	pod := b.pod(b.podConfig("metrics"))
	c := containerConfig("sleeper", "sleep", "1000")
	c.Linux.Resources = &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 50000, MemoryLimitInBytes: 64 << 20}
	id := b.start(pod, c)
	descriptors, err := b.ListMetricDescriptors(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string][]string{}
	for _, d := range descriptors {
		if labels[d.Name] != nil || d.Help == "" {
			t.Errorf("%s: twice, or without help", d.Name)
		}
		labels[d.Name] = d.LabelKeys
	}
	pods, err := b.ListPodSandboxMetrics(context.Background())
	if err != nil || len(pods) != 1 || pods[0].PodSandboxId != pod || len(pods[0].ContainerMetrics) != 1 || pods[0].ContainerMetrics[0].ContainerId != id {
		t.Fatalf("%v: %v", err, pods)
	}
	values := map[string]uint64{}
	for _, m := range slices.Concat(pods[0].Metrics, pods[0].ContainerMetrics[0].Metrics) {
		if len(m.LabelValues) != len(labels[m.Name]) {
			t.Errorf("%s: labels %v have the values %v", m.Name, labels[m.Name], m.LabelValues)
		}
		values[m.Name] = m.Value.GetValue()
	}
	for name, want := range map[string]uint64{"container_spec_memory_limit_bytes": 64 << 20, "container_spec_cpu_quota": 50000, "container_spec_cpu_period": 100000,
		"container_processes": 1} {
		if values[name] != want {
			t.Errorf("%s is %d, want %d", name, values[name], want)
		}
	}
	for _, name := range []string{"container_memory_usage_bytes", "container_file_descriptors", "container_fs_limit_bytes",
		"container_fs_usage_bytes", "container_start_time_seconds", "container_last_seen", "container_ulimits_soft", "container_threads"} {
		if values[name] == 0 {
			t.Errorf("%s is 0 or absent", name)
		}
	}
}
