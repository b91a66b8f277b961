package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	critest "k8s.io/cri-api/pkg/apis/testing"
	utilexec "k8s.io/utils/exec"

	"carob.dev/carob/internal/agent/criconf"
	"carob.dev/carob/internal/agent/volume"
)

// bench is an agent with everything around it in memory.
type bench struct {
	t       *testing.T
	client  *fake.Clientset
	runtime *fakeRuntime
	volumes *fakeVolumes
	events  *record.FakeRecorder
	cfg     Config
	agent   *Agent
	stop    func()
}

func newBench(t *testing.T, objects ...*corev1.Pod) *bench {
	t.Helper()
	dir := t.TempDir()
	images := critest.NewFakeImageService()
	images.SetFakeImages([]string{"busybox:latest"})
	b := &bench{t: t, client: fake.NewClientset(), runtime: newFakeRuntime(), volumes: &fakeVolumes{}, events: record.NewFakeRecorder(1000)}
	b.cfg = Config{NodeName: "n1", Client: b.client, Runtime: b.runtime, Images: images, Root: filepath.Join(dir, "root"), RunDir: filepath.Join(dir, "run"),
		NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, CgroupNames: criconf.Cgroups{Root: "carob-test"}, Recorder: b.events, Log: slog.New(slog.DiscardHandler),
		Volumes: b.volumes, Cgroups: fakeCgroups{}}
	for _, p := range objects {
		if _, err := b.client.CoreV1().Pods(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *bench) start() {
	b.t.Helper()
	var err error
	if b.agent, err = New(b.cfg); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.agent.Run(ctx) }()
	b.stop = func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			b.t.Errorf("the agent ended with %v", err)
		}
		b.stop = func() {}
	}
}

func pod(name string, policy corev1.RestartPolicy, containers ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID("uid-" + name)},
		Spec: corev1.PodSpec{NodeName: "n1", RestartPolicy: policy}}
	for _, c := range containers {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c, Image: "busybox", ImagePullPolicy: corev1.PullIfNotPresent})
	}
	return p
}

func (b *bench) create(p *corev1.Pod) {
	b.t.Helper()
	if _, err := b.client.CoreV1().Pods(p.Namespace).Create(b.t.Context(), p, metav1.CreateOptions{}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) get(name string) *corev1.Pod {
	p, err := b.client.CoreV1().Pods("ns").Get(b.t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// until waits for something to come true.
func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	b.t.Fatalf("%s: not within ten seconds", what)
}

func (b *bench) untilPod(name, what string, ok func(*corev1.Pod) bool) {
	b.t.Helper()
	b.until(name+" "+what, func() bool {
		p := b.get(name)
		return p != nil && ok(p)
	})
}

// delete marks the Pod as Kubernetes' API server does.
func (b *bench) delete(name string, grace int64) {
	b.t.Helper()
	p := b.get(name)
	now := metav1.Now()
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &grace
	if _, err := b.client.CoreV1().Pods("ns").Update(b.t.Context(), p, metav1.UpdateOptions{}); err != nil {
		b.t.Fatal(err)
	}
}

func running(n int) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		ready := 0
		for _, c := range p.Status.ContainerStatuses {
			if c.Ready {
				ready++
			}
		}
		return p.Status.Phase == corev1.PodRunning && ready == n
	}
}

func (b *bench) eventTexts() string {
	var all []string
	for {
		select {
		case e := <-b.events.Events:
			all = append(all, e)
		default:
			return strings.Join(all, "\n")
		}
	}
}

func TestPodLivesAndIsDeleted(t *testing.T) {
	b := newBench(t)
	b.create(pod("p", corev1.RestartPolicyAlways, "a", "b"))
	b.untilPod("p", "runs", running(2))
	p := b.get("p")
	if p.Status.PodIP != "10.0.0.1" || p.Status.HostIP != "192.0.2.1" || !strings.HasPrefix(p.Status.ContainerStatuses[0].ContainerID, "carob://a-") {
		t.Errorf("status %+v", p.Status)
	}
	if !b.runtime.exits("a", 1) {
		t.Fatal("a does not run")
	}
	b.untilPod("p", "restarts a", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 1 && running(2)(p) })
	b.delete("p", 5)
	b.until("p is gone", func() bool { return b.get("p") == nil })
	b.until("its record is gone", func() bool {
		left, _ := filepath.Glob(filepath.Join(b.cfg.RunDir, "agent", "*"))
		return len(left) == 0
	})
	// Torn down once or twice: a Pod that has ended may be released before it is removed.
	if torn := slices.Compact(b.volumes.torn); len(b.runtime.sandboxes)+len(b.runtime.containers) != 0 || !slices.Equal(torn, []types.UID{"uid-p"}) {
		t.Errorf("left: %v %v, torn down: %v", b.runtime.sandboxes, b.runtime.containers, b.volumes.torn)
	}
	events := b.eventTexts()
	for _, want := range []string{"Normal Pulled Container image \"busybox\" already present on machine", "Normal Created Container created", "Normal Started Container started",
		"Normal Killing Stopping container a"} {
		if !strings.Contains(events, want) {
			t.Errorf("no event %q in\n%s", want, events)
		}
	}
}

func TestAgentRestartAdopts(t *testing.T) {
	b := newBench(t)
	b.create(pod("p", corev1.RestartPolicyAlways, "a"))
	b.create(pod("gone", corev1.RestartPolicyAlways, "c"))
	b.untilPod("p", "runs", running(1))
	b.untilPod("gone", "runs", running(1))
	b.runtime.exits("a", 1)
	b.untilPod("p", "restarts", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 1 && running(1)(p) })
	id := b.get("p").Status.ContainerStatuses[0].ContainerID
	b.stop()
	if err := b.client.CoreV1().Pods("ns").Delete(t.Context(), "gone", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.until("what is left of the deleted Pod is gone", func() bool {
		b.runtime.mu.Lock()
		defer b.runtime.mu.Unlock()
		return len(b.runtime.sandboxes) == 1
	})
	b.untilPod("p", "runs on", running(1))
	if cs := b.get("p").Status.ContainerStatuses[0]; cs.ContainerID != id || cs.RestartCount != 1 {
		t.Errorf("not adopted: %+v, want %s", cs, id)
	}
}

// TestRecordIsLost has the agent start again with nothing but what the runtime and the API know.
func TestRecordIsLost(t *testing.T) {
	b := newBench(t)
	b.create(pod("p", corev1.RestartPolicyAlways, "a"))
	b.untilPod("p", "runs", running(1))
	for id := range b.runtime.sandboxes {
		b.runtime.pauseDies(id)
	}
	b.untilPod("p", "runs in a second sandbox", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 1 && running(1)(p) })
	id := b.get("p").Status.ContainerStatuses[0].ContainerID
	forget := func() {
		b.stop()
		if err := os.RemoveAll(b.cfg.RunDir); err != nil {
			t.Fatal(err)
		}
	}
	forget()
	b.start()
	b.until("it is told of again", func() bool { v, ok := b.agent.View("ns", "p", ""); return ok && v.Logs["a"].RunningID != "" })
	if v, _ := b.agent.View("ns", "p", ""); "carob://"+v.Logs["a"].RunningID != id || len(b.runtime.containers) != 1 {
		t.Errorf("what ran was not taken up: %+v, %d containers", v.Logs, len(b.runtime.containers))
	}
	forget()
	b.runtime.sandboxes, b.runtime.containers = map[string]*runtimeapi.PodSandboxStatus{}, map[string]*fakeContainer{}
	b.start()
	b.untilPod("p", "starts again", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 2 && running(1)(p) })
}

// TestEndsWhileItStarts ends agents at any point of their start: that is no failure.
func TestEndsWhileItStarts(t *testing.T) {
	b := newBench(t)
	b.create(pod("p", corev1.RestartPolicyAlways, "a"))
	b.untilPod("p", "runs", running(1))
	for i := range 100 {
		b.stop()
		b.start()
		for known := false; i%2 == 0 && !known; runtime.Gosched() { // as soon as it took up the Pod, in every other round
			_, known = b.agent.View("ns", "p", "")
		}
		time.Sleep(time.Duration(i/2) * 50 * time.Microsecond)
	}
}

// TestHostsFileIsThere has the agent end after it made a sandbox, and before it wrote the file.
func TestHostsFileIsThere(t *testing.T) {
	b := newBench(t)
	b.create(pod("p", corev1.RestartPolicyAlways, "a"))
	b.untilPod("p", "runs", running(1))
	b.stop()
	file := filepath.Join(b.cfg.Root, "pods", "uid-p", "etc-hosts")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	b.runtime.exits("a", 1)
	b.start()
	b.untilPod("p", "runs again", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 1 && running(1)(p) })
	if raw, err := os.ReadFile(file); !strings.Contains(string(raw), "10.0.0.1\tp\n") {
		t.Errorf("the Pod's hosts: %q %v", raw, err)
	}
}

// TestUnwellIsStoppedByTheNextLife has the agent end while it stops a container that failed its probe.
func TestUnwellIsStoppedByTheNextLife(t *testing.T) {
	b := newBench(t)
	b.runtime.exec = func(context.Context, []string) error {
		return utilexec.CodeExitError{Err: errors.New("unwell"), Code: 1}
	}
	b.runtime.hangStop = true
	p := pod("p", corev1.RestartPolicyAlways, "a")
	p.Spec.Containers[0].LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}, FailureThreshold: 1}
	b.create(p)
	b.until("the stop begins", func() bool {
		b.runtime.mu.Lock()
		defer b.runtime.mu.Unlock()
		return slices.Contains(b.runtime.calls, "StopContainer 30")
	})
	b.stop()
	b.runtime.exec, b.runtime.hangStop = nil, false
	b.start()
	b.untilPod("p", "restarts a", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 1 && running(1)(p) })
}

// TestTokenThatCannotBeRenewed is asked for now and then, not all the time.
func TestTokenThatCannotBeRenewed(t *testing.T) {
	b := newBench(t)
	b.volumes.overdue = true
	b.create(pod("p", corev1.RestartPolicyAlways, "a"))
	b.untilPod("p", "runs", running(1))
	time.Sleep(200 * time.Millisecond)
	b.volumes.mu.Lock()
	defer b.volumes.mu.Unlock()
	if b.volumes.updates != 1 {
		t.Errorf("volumes were looked at %d times", b.volumes.updates)
	}
}

func TestPauseDies(t *testing.T) {
	b := newBench(t)
	b.create(pod("p", corev1.RestartPolicyAlways, "a"))
	b.create(pod("never", corev1.RestartPolicyNever, "n"))
	b.untilPod("p", "runs", running(1))
	b.untilPod("never", "runs", running(1))
	b.runtime.mu.Lock()
	var ids []string
	for id := range b.runtime.sandboxes {
		ids = append(ids, id)
	}
	b.runtime.mu.Unlock()
	for _, id := range ids {
		b.runtime.pauseDies(id)
	}
	b.untilPod("p", "has a new sandbox", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 1 && running(1)(p) })
	b.untilPod("never", "has failed", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
}

func TestHangingHookBlocksNothing(t *testing.T) {
	b := newBench(t)
	b.runtime.exec = func(ctx context.Context, _ []string) error { <-ctx.Done(); return ctx.Err() }
	hung := pod("hung", corev1.RestartPolicyAlways, "a")
	hung.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}}
	b.create(hung)
	b.untilPod("hung", "waits", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil && p.Status.PodIP != ""
	})
	b.create(pod("other", corev1.RestartPolicyAlways, "c"))
	b.untilPod("other", "runs", running(1))
	b.delete("hung", 1)
	b.until("hung is gone", func() bool { return b.get("hung") == nil })
}

func TestShorterGraceWins(t *testing.T) {
	b := newBench(t)
	b.create(pod("p", corev1.RestartPolicyAlways, "a"))
	b.untilPod("p", "runs", running(1))
	b.runtime.mu.Lock()
	b.runtime.hangStop = true
	b.runtime.mu.Unlock()
	b.delete("p", 3600)
	b.until("the stop begins", func() bool {
		b.runtime.mu.Lock()
		defer b.runtime.mu.Unlock()
		return len(b.runtime.calls) > 0 && b.runtime.calls[len(b.runtime.calls)-1] == "StopContainer 3600"
	})
	b.delete("p", 1)
	b.until("p is gone", func() bool { return b.get("p") == nil })
}

func TestTroubleIsToldAndMended(t *testing.T) {
	b := newBench(t)
	b.volumes.set(&volume.Error{Volume: "v", Err: errors.New(`configmap "c" not found`)})
	p := pod("p", corev1.RestartPolicyAlways, "a")
	p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "X", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: "c"}, Key: "k"}}}}
	b.create(p)
	b.until("the volume's event", func() bool {
		return strings.Contains(b.eventTexts(), `Warning FailedMount MountVolume.SetUp failed for volume "v" : configmap "c" not found`)
	})
	b.volumes.set(nil)
	b.untilPod("p", "waits for its ConfigMap", func(p *corev1.Pod) bool {
		if len(p.Status.ContainerStatuses) == 0 {
			return false
		}
		w := p.Status.ContainerStatuses[0].State.Waiting
		return w != nil && w.Reason == "CreateContainerConfigError" && w.Message == `configmap "c" not found`
	})
	if _, err := b.client.CoreV1().ConfigMaps("ns").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns", ResourceVersion: "7"},
		Data: map[string]string{"k": "v"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	b.untilPod("p", "runs", running(1))
	b.runtime.mu.Lock()
	defer b.runtime.mu.Unlock()
	for _, c := range b.runtime.containers {
		if e := c.config.GetEnvs(); len(e) == 0 || string(e[0].GetValue()) != "v" {
			t.Errorf("environment %v", e)
		}
	}
}

// TestTroubleStandsUntilItIsOver: a container that cannot be made says so all the time, and not something else with each new try.
func TestTroubleStandsUntilItIsOver(t *testing.T) {
	b := newBench(t)
	b.runtime.fails["CreateContainer"] = errors.New("the variable A is too long")
	w, err := b.client.CoreV1().Pods("ns").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.create(pod("p", corev1.RestartPolicyAlways, "a"))
	b.until("the second try", func() bool {
		b.runtime.mu.Lock()
		defer b.runtime.mu.Unlock()
		return strings.Count(strings.Join(b.runtime.calls, " "), "CreateContainer") >= 2
	})
	w.Stop()
	var told []string
	for e := range w.ResultChan() {
		for _, c := range e.Object.(*corev1.Pod).Status.ContainerStatuses {
			if !slices.Contains(told[max(0, len(told)-1):], c.State.Waiting.Reason) {
				told = append(told, c.State.Waiting.Reason)
			}
		}
	}
	if got := strings.Join(told, " "); got != "ContainerCreating CreateContainerError" {
		t.Error(got)
	}
}

func TestStartError(t *testing.T) {
	b := newBench(t)
	b.runtime.fails["StartContainer"] = errors.New("no such file")
	b.create(pod("p", corev1.RestartPolicyNever, "a"))
	b.untilPod("p", "has failed", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if e := b.eventTexts(); !strings.Contains(e, "Warning Failed Error: no such file") {
		t.Error(e)
	}
}

func TestServerLogs(t *testing.T) {
	b := newBench(t)
	b.create(pod("p", corev1.RestartPolicyAlways, "a"))
	b.untilPod("p", "runs", running(1))
	dir := filepath.Join(b.cfg.Root, "logs", "pods", "ns_p_uid-p", "a")
	log := "2026-01-02T03:04:05.6Z stdout F one\n2026-01-02T03:04:06.6Z stderr P tw\n2026-01-02T03:04:06.6Z stderr F o\n"
	if err := os.WriteFile(filepath.Join(dir, "0.log"), []byte(log), 0o644); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]string{
		"":                                "one\ntwo\n",
		"?tailLines=1":                    "two\n",
		"?timestamps=true":                "2026-01-02T03:04:05.6Z one\n2026-01-02T03:04:06.6Z two\n",
		"?limitBytes=5":                   "one\nt",
		"?stream=Stdout":                  "one\n",
		"?previous=true":                  "previous terminated container \"a\" in pod \"p\" not found\n",
		"?sinceTime=2026-01-02T03:04:06Z": "two\n",
	} {
		w := httptest.NewRecorder()
		b.agent.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/containerLogs/ns/p/a"+query, nil))
		if w.Body.String() != want {
			t.Errorf("%s: %q, want %q", query, w.Body.String(), want)
		}
	}
	w := httptest.NewRecorder()
	b.agent.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/containerLogs/ns/p/x", nil))
	if w.Code != 404 {
		t.Errorf("a container that is not there: %d %s", w.Code, w.Body)
	}
}

func TestStatusThatOthersChangeIsPutRight(t *testing.T) {
	b := newBench(t)
	b.create(pod("p", corev1.RestartPolicyAlways, "a"))
	b.untilPod("p", "runs", running(1))
	b.until("writing is over", func() bool { v, ok := b.agent.View("ns", "p", ""); return ok && v.Status.Phase == corev1.PodRunning })
	p := b.get("p")
	p.ResourceVersion = "1000"
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == corev1.PodReady {
			p.Status.Conditions[i].Status = corev1.ConditionFalse
		}
	}
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: "example.com/foreign", Status: corev1.ConditionTrue})
	if _, err := b.client.CoreV1().Pods("ns").UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	b.untilPod("p", "is ready again", func(p *corev1.Pod) bool {
		ready, foreign := false, false
		for _, c := range p.Status.Conditions {
			ready = ready || c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			foreign = foreign || c.Type == "example.com/foreign"
		}
		return ready && foreign
	})
}
