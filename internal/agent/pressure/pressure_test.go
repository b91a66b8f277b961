package pressure

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	testclock "k8s.io/utils/clock/testing"

	"carob.dev/carob/internal/agent/eviction"
	"carob.dev/carob/internal/agent/measure"
	"carob.dev/carob/internal/agent/podstate"
)

const mi = 1 << 20

// machine is a node whose memory and disk the test sets, with Pods on it. Ending one gives its memory back.
type machine struct {
	mu           sync.Mutex
	memory, disk uint64 // MiB free, of 1000
	images       uint64 // MiB that Free gives back
	oneDisk      bool
	pods         []measure.Pod
	uses         map[string]uint64 // MiB of memory by Pod
	stored       map[string]uint64 // MiB in the emptyDir of a Pod
	ended        []string
	ends         map[string]podstate.End
	freed        int
}

func (m *machine) Node(context.Context) (stats.NodeStats, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	free, used := m.memory*mi, (1000-m.memory)*mi
	disk, all := m.disk*mi, uint64(1000*mi)
	fs := &stats.FsStats{AvailableBytes: &disk, CapacityBytes: &all}
	return stats.NodeStats{Memory: &stats.MemoryStats{AvailableBytes: &free, WorkingSetBytes: &used}, Fs: fs, Runtime: &stats.RuntimeStats{ImageFs: fs}}, nil
}

func (m *machine) Summary(_ context.Context, pods []measure.Pod) (stats.Summary, time.Duration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var s stats.Summary
	for _, p := range pods {
		n := m.uses[p.Pod.Name] * mi
		s.Pods = append(s.Pods, stats.PodStats{PodRef: stats.PodReference{UID: string(p.Pod.UID)}, Memory: &stats.MemoryStats{WorkingSetBytes: &n}})
	}
	return s, 0, nil
}

func (m *machine) Ephemeral(_ context.Context, p measure.Pod) measure.Ephemeral {
	m.mu.Lock()
	defer m.mu.Unlock()
	return measure.Ephemeral{EmptyDirs: map[string]uint64{"e": m.stored[p.Pod.Name] * mi}}
}

func (m *machine) OneDisk(context.Context) bool { return m.oneDisk }

func (m *machine) list() []measure.Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]measure.Pod{}, m.pods...)
}

func (m *machine) end(uid types.UID, e podstate.End) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, p := range m.pods {
		if p.Pod.UID == uid {
			m.pods = append(m.pods[:i:i], m.pods[i+1:]...)
			m.ended = append(m.ended, p.Pod.Name)
			m.ends[p.Pod.Name] = e
			m.memory += m.uses[p.Pod.Name]
			c := make(chan struct{})
			close(c)
			return c
		}
	}
	return nil
}

func (m *machine) free(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.freed++
	m.disk += m.images
	m.images = 0
	return nil
}

func (m *machine) names() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.ended, " ")
}

func (m *machine) add(name string, uses uint64, change ...func(*corev1.Pod)) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	for _, f := range change {
		f(p)
	}
	m.uses[name] = uses
	m.pods = append(m.pods, measure.Pod{Pod: p, Status: &p.Status})
}

func newMachine() *machine {
	return &machine{memory: 500, disk: 500, oneDisk: true, uses: map[string]uint64{}, stored: map[string]uint64{}, ends: map[string]podstate.End{}}
}

func (m *machine) watch(t *testing.T, cfg eviction.Config, policy Policy) (*Watcher, *testclock.FakeClock, *record.FakeRecorder) {
	t.Helper()
	var err error
	if policy.Thresholds, err = cfg.Thresholds(); err != nil {
		t.Fatal(err)
	}
	clock, events := testclock.NewFakeClock(time.Unix(1_700_000_000, 0)), record.NewFakeRecorder(100)
	return New(Config{Policy: policy, Meter: m, Pods: m.list, End: m.end, Free: m.free, Changed: func() {}, Recorder: events, Node: &corev1.ObjectReference{},
		Log: slog.New(slog.DiscardHandler), Clock: clock}), clock, events
}

func priority(n int32) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.Priority = &n } }

// TestMemory: Pods go one by one, the one that uses most beyond its request first, the more important later, until there is enough; those of
// the system never.
func TestMemory(t *testing.T) {
	m := newMachine()
	m.memory = 40
	m.add("system", 300, priority(2_000_000_000))
	m.add("important", 200, priority(1000))
	m.add("small", 20)
	m.add("large", 50)
	w, clock, events := m.watch(t, eviction.Config{Hard: map[string]string{"memory.available": "100Mi"}}, Policy{Transition: time.Minute})
	for range 5 {
		w.look(t.Context())
	}
	if got := m.names(); got != "large small" {
		t.Errorf("ended %q", got)
	}
	e := m.ends["large"]
	if e.Reason != "Evicted" || !e.Disrupted || *e.Grace != time.Second || !strings.HasPrefix(e.Message, "The node was low on resource: memory. Threshold quantity: 100Mi, available: 40Mi. ") {
		t.Errorf("%+v", e)
	}
	if got := w.Conditions(); len(got) != 1 || got[0] != corev1.NodeMemoryPressure {
		t.Errorf("%v", got)
	}
	if first := <-events.Events; first != "Warning EvictionThresholdMet Attempting to reclaim memory" {
		t.Error(first)
	}
	clock.Step(time.Minute)
	w.look(t.Context())
	if got := w.Conditions(); len(got) != 0 {
		t.Errorf("after the transition: %v", got)
	}
	m.memory = 1
	for range 5 {
		w.look(t.Context())
	}
	if got := m.names(); got != "large small important" {
		t.Errorf("ended %q", got)
	}
}

// TestSoft: a soft threshold waits for its grace period, and gives Pods time.
func TestSoft(t *testing.T) {
	m := newMachine()
	m.memory = 40
	m.add("a", 20)
	w, clock, _ := m.watch(t, eviction.Config{Soft: map[string]string{"memory.available": "100Mi"}, SoftGrace: map[string]string{"memory.available": "30s"}},
		Policy{Transition: time.Minute, MaxGrace: 7 * time.Second})
	w.look(t.Context())
	clock.Step(29 * time.Second)
	w.look(t.Context())
	if got := m.names(); got != "" {
		t.Errorf("too early: %q", got)
	}
	clock.Step(time.Second)
	w.look(t.Context())
	if e := m.ends["a"]; m.names() != "a" || *e.Grace != 7*time.Second {
		t.Errorf("%q %+v", m.names(), e)
	}
}

// TestDisk: what nobody uses goes first, and Pods only if that is not enough; the usual threshold of a disk for images says nothing where
// there is none, and a chosen one does.
func TestDisk(t *testing.T) {
	for name, c := range map[string]struct {
		disk, images    uint64
		oneDisk, chosen bool
		ended           string
		freed           int
	}{
		"enough":                              {200, 0, true, false, "", 0},
		"images are enough":                   {90, 60, true, false, "", 1},
		"images are not":                      {90, 5, true, false, "a", 1},
		"no disk for images":                  {120, 60, true, false, "", 0},
		"a disk for images":                   {120, 0, false, false, "a", 1},
		"no disk for images, but it was said": {120, 0, true, true, "a", 1},
	} {
		m := newMachine()
		m.disk, m.images, m.oneDisk = c.disk, c.images, c.oneDisk
		m.add("a", 1)
		w, _, _ := m.watch(t, eviction.Config{Hard: map[string]string{"nodefs.available": "10%", "imagefs.available": "15%"}}, Policy{Implied: !c.chosen, Transition: time.Minute})
		w.begin(t.Context())
		w.look(t.Context())
		if m.names() != c.ended || m.freed != c.freed {
			t.Errorf("%s: ended %q, freed %d times", name, m.names(), m.freed)
		}
	}
}

// TestOwnLimit: a Pod that keeps more than it may goes, whatever the node has left, and its status calls it no disruption.
func TestOwnLimit(t *testing.T) {
	m := newMachine()
	limited := func(p *corev1.Pod) {
		q := resource.MustParse("10Mi")
		p.Spec.Volumes = []corev1.Volume{{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &q}}}}
	}
	m.add("within", 1, limited)
	m.add("over", 1, limited)
	m.add("free", 1)
	m.stored = map[string]uint64{"within": 10, "over": 11, "free": 500}
	w, _, events := m.watch(t, eviction.Config{}, Policy{})
	w.look(t.Context())
	if e := m.ends["over"]; m.names() != "over" || e.Disrupted || e.Message != `Usage of EmptyDir volume "e" exceeds the limit "10Mi". ` {
		t.Errorf("%q %+v", m.names(), e)
	}
	if got := <-events.Events; got != `Warning Evicted Usage of EmptyDir volume "e" exceeds the limit "10Mi". ` {
		t.Errorf("%q", got)
	}
}

// TestRun: after a Pod has ended it looks again at once, else every ten seconds.
func TestRun(t *testing.T) {
	m := newMachine()
	m.memory = 10
	m.add("a", 30)
	m.add("b", 30)
	m.add("c", 30)
	w, clock, _ := m.watch(t, eviction.Config{Hard: map[string]string{"memory.available": "60Mi"}}, Policy{Transition: time.Minute})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	settled := func(want string) {
		t.Helper()
		for range 2000 {
			if m.names() == want && clock.Waiters() == 1 {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatalf("ended %q, want %q", m.names(), want)
	}
	settled("a b")
	m.mu.Lock()
	m.memory = 10
	m.mu.Unlock()
	clock.Step(lookEvery)
	settled("a b c")
	cancel()
	<-done
}

// TestMemoryShort: the kernel takes the trigger, and the listening ends.
func TestMemoryShort(t *testing.T) {
	_, stop := memoryShort(slog.New(slog.DiscardHandler))
	stop()
}
