package eviction

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	podrule "carob.dev/carob/internal/api/pod"
)

const mi = 1 << 20

func TestThresholds(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want []Threshold
		err  string
	}{
		"nothing": {Config{}, nil, ""},
		"kubelet's defaults": {Config{Hard: map[string]string{"memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%"}}, []Threshold{
			{Signal: MemoryAvailable, Value: Amount{Fixed: 100 * mi}}, {Signal: AllocatableMemoryAvailable, Value: Amount{Fixed: 100 * mi}},
			{Signal: NodeFsAvailable, Value: Amount{Fraction: 0.1}}, {Signal: NodeFsInodesFree, Value: Amount{Fraction: 0.05}}}, ""},
		"soft, with grace and reclaim": {Config{Soft: map[string]string{"pid.available": "1000"}, SoftGrace: map[string]string{"pid.available": "1m30s"},
			MinReclaim: map[string]string{"pid.available": "10%"}}, []Threshold{
			{Signal: PIDAvailable, Value: Amount{Fixed: 1000}, Grace: 90 * time.Second, Soft: true, MinReclaim: Amount{Fraction: 0.1}}}, ""},
		"turned off":             {Config{Hard: map[string]string{"nodefs.available": "0%", "imagefs.available": "100%"}}, nil, ""},
		"unknown":                {Config{Hard: map[string]string{"disk": "1"}}, nil, "--eviction-hard: disk is no signal"},
		"not the user's to set":  {Config{Hard: map[string]string{"allocatableMemory.available": "1"}}, nil, "is no signal"},
		"not a quantity":         {Config{Hard: map[string]string{"memory.available": "lots"}}, nil, `--eviction-hard: memory.available: "lots" is no quantity`},
		"nothing left":           {Config{Hard: map[string]string{"memory.available": "0"}}, nil, "is not more than nothing"},
		"negative":               {Config{Hard: map[string]string{"memory.available": "-1Mi"}}, nil, "is no quantity"},
		"more than all":          {Config{Hard: map[string]string{"memory.available": "101%"}}, nil, "is not between"},
		"soft without grace":     {Config{Soft: map[string]string{"memory.available": "1Mi"}}, nil, "--eviction-soft-grace-period: memory.available has a soft threshold"},
		"soft with no time":      {Config{Soft: map[string]string{"memory.available": "1Mi"}, SoftGrace: map[string]string{"memory.available": "soon"}}, nil, "is not a time"},
		"grace of what is not":   {Config{SoftGrace: map[string]string{"x": "1s"}}, nil, "--eviction-soft-grace-period: x is no signal"},
		"reclaim of what is not": {Config{MinReclaim: map[string]string{"x": "1"}}, nil, "--eviction-minimum-reclaim: x is no signal"},
	} {
		got, err := c.cfg.Thresholds()
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, want %q", name, err, c.err)
		}
		if diff := cmp.Diff(c.want, got); c.err == "" && diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestAmount(t *testing.T) {
	for a, want := range map[Amount]int64{{Fixed: 5}: 5, {Fraction: 0.1}: 100, {Fraction: 0.1, Most: 60}: 60, {Fraction: 0.1, Most: 600}: 100} {
		if got := a.Of(1000); got != want {
			t.Errorf("%+v: %d, want %d", a, got, want)
		}
	}
}

func ptr[T any](v T) *T { return &v }

func fs(free, all, inodesFree, inodes uint64) *stats.FsStats {
	return &stats.FsStats{AvailableBytes: &free, CapacityBytes: &all, InodesFree: &inodesFree, Inodes: &inodes}
}

func TestObserve(t *testing.T) {
	n := stats.NodeStats{
		Memory: &stats.MemoryStats{AvailableBytes: ptr(uint64(3)), WorkingSetBytes: ptr(uint64(5))}, Fs: fs(1, 10, 2, 20),
		Runtime:          &stats.RuntimeStats{ImageFs: fs(3, 30, 0, 0), ContainerFs: fs(4, 40, 5, 50)},
		Rlimit:           &stats.RlimitStats{MaxPID: ptr(int64(100)), NumOfRunningProcesses: ptr(int64(30))},
		SystemContainers: []stats.ContainerStats{{Name: "pods", Memory: &stats.MemoryStats{AvailableBytes: ptr(uint64(1)), WorkingSetBytes: ptr(uint64(1))}}},
	}
	want := Observations{MemoryAvailable: {3, 8}, AllocatableMemoryAvailable: {1, 2}, NodeFsAvailable: {1, 10}, NodeFsInodesFree: {2, 20},
		ImageFsAvailable: {3, 30}, ContainerFsAvailable: {4, 40}, ContainerFsInodesFree: {5, 50}, PIDAvailable: {70, 100}}
	if diff := cmp.Diff(want, Observe(n)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Observations{}, Observe(stats.NodeStats{})); diff != "" {
		t.Error(diff)
	}
}

// TestLook walks a node through pressure: what is free at a second, and what follows.
func TestLook(t *testing.T) {
	hard := Threshold{Signal: MemoryAvailable, Value: Amount{Fixed: 100}, MinReclaim: Amount{Fixed: 50}}
	soft := Threshold{Signal: NodeFsAvailable, Value: Amount{Fraction: 0.2}, Grace: 30 * time.Second, Soft: true}
	list := []Threshold{soft, hard}
	const transition = 60
	type step struct {
		at, memory, disk int64
		conditions       string
		due              string
		next             int64 // seconds; 0 for never
	}
	for name, steps := range map[string][]step{
		"all is well": {{0, 100, 20, "", "", 0}},
		"a hard threshold acts at once, and until enough is had back": {{0, 99, 100, "MemoryPressure", "memory.available", 60},
			{10, 120, 100, "MemoryPressure", "memory.available", 70}, {20, 150, 100, "MemoryPressure", "", 70}, {69, 150, 100, "MemoryPressure", "", 70}, {70, 150, 100, "", "", 0}},
		"a soft one waits": {{0, 200, 19, "DiskPressure", "", 30}, {29, 200, 19, "DiskPressure", "", 30}, {30, 200, 19, "DiskPressure", "nodefs.available", 90}},
		"a soft one that was kept for a moment begins anew": {{0, 200, 19, "DiskPressure", "", 30}, {20, 200, 20, "DiskPressure", "", 60}, {30, 200, 19, "DiskPressure", "", 60},
			{59, 200, 19, "DiskPressure", "", 60}, {60, 200, 19, "DiskPressure", "nodefs.available", 120}},
		"memory comes first": {{0, 99, 19, "DiskPressure MemoryPressure", "memory.available", 30}, {30, 99, 19, "DiskPressure MemoryPressure", "memory.available nodefs.available", 90}},
	} {
		var s State
		start := time.Unix(1_700_000_000, 0)
		for i, x := range steps {
			v := s.Look(list, Observations{MemoryAvailable: {x.memory, 1000}, NodeFsAvailable: {x.disk, 100}}, transition*time.Second, start.Add(time.Duration(x.at)*time.Second))
			var conditions, due []string
			for _, c := range v.Conditions {
				conditions = append(conditions, string(c))
			}
			for _, d := range v.Due {
				due = append(due, string(d.Signal))
			}
			next := int64(0)
			if !v.Next.IsZero() {
				next = int64(v.Next.Sub(start).Seconds())
			}
			got := step{x.at, x.memory, x.disk, strings.Join(conditions, " "), strings.Join(due, " "), next}
			if got != x {
				t.Errorf("%s: step %d: %+v, want %+v", name, i, got, x)
			}
		}
	}
}

// candidate is a Pod that asks for and uses memory and disk, in MiB.
func candidate(name string, priority int32, asks, memory, disk, processes int64) Candidate {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Priority: &priority, Containers: []corev1.Container{{Name: "c"}},
		Volumes: []corev1.Volume{{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}}}
	if asks > 0 {
		q := *resource.NewQuantity(asks*mi, resource.BinarySI)
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"memory": q, "ephemeral-storage": q}
	}
	half := &stats.FsStats{UsedBytes: ptr(uint64(disk * mi / 2)), InodesUsed: ptr(uint64(disk))}
	mem := &stats.MemoryStats{WorkingSetBytes: ptr(uint64(memory * mi))}
	return Candidate{Pod: p, Stats: &stats.PodStats{Memory: mem, ProcessStats: &stats.ProcessStats{ProcessCount: ptr(uint64(processes))},
		Containers:  []stats.ContainerStats{{Name: "c", Memory: mem, Rootfs: half, Logs: &stats.FsStats{UsedBytes: ptr(uint64(0)), InodesUsed: ptr(uint64(0))}}},
		VolumeStats: []stats.VolumeStats{{Name: "e", FsStats: *half}}}}
}

func TestRank(t *testing.T) {
	unknown := Candidate{Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "unknown"}}}
	list := []Candidate{
		candidate("within", 0, 100, 90, 90, 5), candidate("besteffort", 0, 0, 20, 20, 9), candidate("over", 0, 100, 150, 150, 1),
		candidate("over-important", 10, 100, 500, 500, 50), candidate("within-important", 10, 100, 10, 10, 3), unknown,
	}
	for signal, want := range map[Signal]string{
		MemoryAvailable:  "unknown over besteffort over-important within within-important",
		NodeFsAvailable:  "unknown over besteffort over-important within within-important",
		NodeFsInodesFree: "unknown besteffort over within over-important within-important",
		PIDAvailable:     "unknown besteffort within over over-important within-important",
	} {
		ranked := append([]Candidate{}, list...)
		Rank(signal, ranked, false)
		var names []string
		for _, c := range ranked {
			names = append(names, c.Pod.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s, want %s", signal, got, want)
		}
	}
	// With a disk of their own for images and containers, the node's disk is only what logs and volumes take.
	if a, b := used(NodeFsAvailable, list[0], true), used(ImageFsAvailable, list[0], true); a != 45*mi || b != 45*mi {
		t.Errorf("%d %d", a, b)
	}
}

func TestCritical(t *testing.T) {
	annotated := func(k, v string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{k: v}}}
	}
	for name, c := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"plain": {&corev1.Pod{}, false}, "static": {annotated("kubernetes.io/config.source", "file"), true}, "from the API": {annotated("kubernetes.io/config.source", "api"), false},
		"mirror": {annotated("kubernetes.io/config.mirror", "x"), true}, "system": {&corev1.Pod{Spec: corev1.PodSpec{Priority: ptr(int32(2_000_000_000))}}, true},
		"important": {&corev1.Pod{Spec: corev1.PodSpec{Priority: ptr(int32(1_000_000_000))}}, false},
	} {
		if got := podrule.Critical(c.pod); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestMessage(t *testing.T) {
	due := []Threshold{{Signal: MemoryAvailable, Value: Amount{Fixed: 100 * mi}}}
	text, notes := Message(due, Observations{MemoryAvailable: {50 * mi, 1000 * mi}}, candidate("p", 0, 10, 20, 0, 1))
	want := "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using 20Mi, request is 10Mi, has larger consumption of memory. "
	if text != want {
		t.Errorf("%q", text)
	}
	if diff := cmp.Diff(map[string]string{"offending_containers": "c", "offending_containers_usage": "20Mi", "starved_resource": "memory"}, notes); diff != "" {
		t.Error(diff)
	}
	text, _ = Message([]Threshold{{Signal: NodeFsInodesFree, Value: Amount{Fraction: 0.05}}}, Observations{NodeFsInodesFree: {10, 1000}}, candidate("p", 0, 10, 20, 0, 1))
	if want := "The node was low on resource: inodes. Threshold quantity: 50, available: 10. "; text != want {
		t.Errorf("%q", text)
	}
	text, _ = Message([]Threshold{{Signal: ImageFsAvailable, Value: Amount{Fraction: 0.15}}}, Observations{}, candidate("p", 0, 0, 0, 8, 1))
	if want := "The node was low on resource: ephemeral-storage. Container c was using 4Mi, request is 0, has larger consumption of ephemeral-storage. "; text != want {
		t.Errorf("%q", text)
	}
}

func TestRefuse(t *testing.T) {
	memory, disk := []corev1.NodeConditionType{corev1.NodeMemoryPressure}, []corev1.NodeConditionType{corev1.NodeDiskPressure}
	tolerant := &corev1.Pod{Spec: corev1.PodSpec{Tolerations: []corev1.Toleration{{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists}}}}
	critical := &corev1.Pod{Spec: corev1.PodSpec{Priority: ptr(int32(2_000_000_000))}}
	for name, c := range map[string]struct {
		pod        *corev1.Pod
		qos        corev1.PodQOSClass
		conditions []corev1.NodeConditionType
		want       string
	}{
		"no pressure":              {&corev1.Pod{}, corev1.PodQOSBestEffort, nil, ""},
		"memory, best effort":      {&corev1.Pod{}, corev1.PodQOSBestEffort, memory, "The node had condition: [MemoryPressure]. "},
		"memory, burstable":        {&corev1.Pod{}, corev1.PodQOSBurstable, memory, ""},
		"memory, tolerant":         {tolerant, corev1.PodQOSBestEffort, memory, ""},
		"disk":                     {&corev1.Pod{}, corev1.PodQOSGuaranteed, disk, "The node had condition: [DiskPressure]. "},
		"disk, tolerant of memory": {tolerant, corev1.PodQOSBestEffort, disk, "The node had condition: [DiskPressure]. "},
		"disk, critical":           {critical, corev1.PodQOSBestEffort, disk, ""},
		"both, burstable":          {&corev1.Pod{}, corev1.PodQOSBurstable, append(disk, memory...), "The node had condition: [DiskPressure MemoryPressure]. "},
	} {
		if got := Refuse(c.pod, c.qos, c.conditions); got != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestOver(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	limit := func(n string) corev1.ResourceRequirements {
		return corev1.ResourceRequirements{Limits: corev1.ResourceList{"ephemeral-storage": resource.MustParse(n)}}
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Resources: limit("10Mi")}, {Name: "b", Resources: limit("20Mi")}},
		InitContainers: []corev1.Container{{Name: "i", Resources: limit("1Mi")}, {Name: "s", RestartPolicy: &always, Resources: limit("5Mi")}},
		Volumes: []corev1.Volume{{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: ptr(resource.MustParse("3Mi"))}}},
			{Name: "m", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: ptr(resource.MustParse("1Mi"))}}}}}}
	for name, c := range map[string]struct {
		have Stored
		want string
	}{
		"at every limit":        {Stored{Containers: map[string]int64{"a": 10 * mi, "b": 20 * mi, "s": 5 * mi}, EmptyDirs: map[string]int64{"e": 3 * mi}, Total: 35 * mi}, ""},
		"an emptyDir":           {Stored{EmptyDirs: map[string]int64{"e": 3*mi + 1}}, `Usage of EmptyDir volume "e" exceeds the limit "3Mi". `},
		"one in memory":         {Stored{EmptyDirs: map[string]int64{"m": 5 * mi}}, ""},
		"the whole":             {Stored{Total: 35*mi + 1}, "Pod ephemeral local storage usage exceeds the total limit of containers 35Mi. "},
		"a container":           {Stored{Containers: map[string]int64{"a": 10*mi + 1}}, `Container a exceeded its local ephemeral storage limit "10Mi". `},
		"a sidecar":             {Stored{Containers: map[string]int64{"s": 6 * mi}}, `Container s exceeded its local ephemeral storage limit "5Mi". `},
		"an init container may": {Stored{Containers: map[string]int64{"i": 6 * mi}}, ""},
	} {
		if got := Over(pod, c.have); got != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if Limited(&corev1.Pod{}) || !Limited(pod) {
		t.Error("which Pods have limits")
	}
}
