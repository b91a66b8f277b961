package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// measurement is one that can be run by its name.
type measurement struct {
	name, what string
	run        func(context.Context, *bench) ([]Result, error)
	// long says that it runs only when it is named.
	long bool
}

// Result is one line of the table.
type Result struct {
	Measurement string  `json:"measurement"`
	What        string  `json:"what"`
	Unit        string  `json:"unit"`
	Median      float64 `json:"median"`
	Least       float64 `json:"least"`
	Most        float64 `json:"most"`
	Runs        int     `json:"runs"`
	// Budget is what the median must not exceed, or with AtLeast must reach; 0 for none.
	Budget  float64 `json:"budget,omitempty"`
	AtLeast bool    `json:"atLeast,omitempty"`
}

func (r Result) pass() bool {
	if r.AtLeast {
		return r.Median >= r.Budget
	}
	return r.Median <= r.Budget
}

func (r Result) number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f %s", v, r.Unit)
	case v >= 10:
		return fmt.Sprintf("%.1f %s", v, r.Unit)
	}
	return fmt.Sprintf("%.2f %s", v, r.Unit)
}

func (r Result) line() string {
	return fmt.Sprintf("%s: %s (%s to %s)", r.What, r.number(r.Median), r.number(r.Least), r.number(r.Most))
}

// summary is the result of several values of the same thing.
func summary(what, unit string, budget float64, values ...float64) Result {
	slices.Sort(values)
	r := Result{What: what, Unit: unit, Budget: budget, Runs: len(values)}
	if len(values) == 0 {
		return r
	}
	r.Least, r.Most, r.Median = values[0], values[len(values)-1], values[len(values)/2]
	if n := len(values); n%2 == 0 {
		r.Median = (values[n/2-1] + values[n/2]) / 2
	}
	return r
}

// millis is the result of several durations.
func millis(what string, budget float64, values []time.Duration) Result {
	var list []float64
	for _, v := range values {
		list = append(list, float64(v)/float64(time.Millisecond))
	}
	return summary(what, "ms", budget, list...)
}

// measurements are all there are, in the order in which they run best: each uses the Carob that the one before left.
var measurements = []measurement{
	{name: "binary", what: "size of the program", run: binarySize},
	{name: "floor", what: "the kernel's own work: a process in new namespaces with a veth", run: kernelFloor},
	{name: "crun", what: "the OCI runtime alone", run: crunAlone},
	{name: "fsync", what: "the disk's own time to make 4 KiB durable", run: fsyncTime},
	{name: "start", what: "cold start until usable", run: coldStart},
	{name: "restart", what: "start on existing state", run: restart},
	{name: "memory", what: "memory of a fresh, idle Carob", run: memoryFresh},
	{name: "cpu", what: "idle processor time without Pods, over 60 s", run: cpuEmpty},
	{name: "disk", what: "idle disk writes, over 120 s", run: diskWrites},
	{name: "create", what: "create to Running of one Pod over the API", run: createPod},
	{name: "trace", what: "where the time of a create goes, stage by stage", run: traceCreate},
	{name: "delete", what: "delete of a Pod until it is gone", run: deletePod},
	{name: "exit", what: "exit of a container until a watch of the Pod tells it", run: exitTold},
	{name: "seen", what: "update of a ConfigMap until a running Pod's file has it", run: configMapSeen},
	{name: "probes", what: "200 Pods that are probed every second", run: probes},
	{name: "configmap", what: "durable creates, 1 and 16 writers", run: configMaps},
	{name: "replicas30", what: "a Deployment of 30 replicas until all are Ready", run: replicas(30, 1500, 3)},
	{name: "replicas100", what: "a Deployment of 100 replicas until all are Ready", run: replicas(100, 5000, 1)},
	{name: "pods30", what: "with 30 Pods: memory, per-Pod overhead, idle processor time", run: thirtyPods},
	{name: "kubectl", what: "memory after kubectl has explained and applied", run: memoryKubectl},
	{name: "import", what: "an image of 200 MB from its archive, beside containerd where that was built (make containerd)", run: importTimes},
	{name: "runtime", what: "the Pod runtime without API and agent: one Pod up and down, cold and warm, 30 at once, and where the time goes", run: runtimeAlone},
	{name: "runtime500", what: "the Pod runtime with many Pods (-pods, 500)", run: runtimeDensity, long: true},
	{name: "density", what: "many Pods on one node (-pods, 500): created, listed, deleted", run: density, long: true},
}
