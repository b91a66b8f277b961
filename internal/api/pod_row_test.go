package api

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func TestPodRow(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tc := range []struct {
		name, pod string
		want      [4]string // ready, status, restarts, age
	}{
		{"new", `{status: {phase: Pending}}`, [4]string{"0/2", "Pending", "0", "5m"}},
		{"creating", `{status: {phase: Pending, containerStatuses: [{name: a, state: {waiting: {reason: ContainerCreating}}}]}}`,
			[4]string{"0/2", "ContainerCreating", "0", "5m"}},
		{"first init container", `{spec: {initContainers: [{name: i}, {name: j}]},
			status: {phase: Pending, initContainerStatuses: [{name: i, state: {running: {}}}, {name: j, state: {waiting: {reason: PodInitializing}}}]}}`,
			[4]string{"0/2", "Init:0/2", "0", "5m"}},
		{"second init container fails", `{spec: {initContainers: [{name: i}, {name: j}]},
			status: {phase: Pending, initContainerStatuses: [{name: i, state: {terminated: {exitCode: 0}}},
			{name: j, restartCount: 3, state: {waiting: {reason: CrashLoopBackOff}},
			lastState: {terminated: {exitCode: 1, finishedAt: "2026-01-02T03:03:55Z"}}}]}}`,
			[4]string{"0/2", "Init:CrashLoopBackOff", "3 (10s ago)", "5m"}},
		{"init ended by a signal", `{spec: {initContainers: [{name: i}]},
			status: {phase: Pending, initContainerStatuses: [{name: i, state: {terminated: {exitCode: 137, signal: 9}}}]}}`,
			[4]string{"0/2", "Init:Signal:9", "0", "5m"}},
		{"after init", `{spec: {initContainers: [{name: i}]}, status: {phase: Pending, conditions: [{type: Initialized, status: "True"}],
			initContainerStatuses: [{name: i, restartCount: 2, state: {terminated: {exitCode: 0}}}],
			containerStatuses: [{name: a, state: {waiting: {reason: PodInitializing}}}, {name: b, state: {waiting: {reason: PodInitializing}}}]}}`,
			[4]string{"0/2", "PodInitializing", "0", "5m"}},
		{"running", `{status: {phase: Running, conditions: [{type: Ready, status: "True"}],
			containerStatuses: [{name: a, ready: true, state: {running: {}}}, {name: b, ready: true, state: {running: {}}}]}}`,
			[4]string{"2/2", "Running", "0", "5m"}},
		{"with a sidecar", `{spec: {initContainers: [{name: s, restartPolicy: Always}]}, status: {phase: Running,
			initContainerStatuses: [{name: s, ready: true, started: true, restartCount: 1, state: {running: {}}}],
			containerStatuses: [{name: a, ready: true, restartCount: 1, state: {running: {}}}, {name: b, ready: true, state: {running: {}}}]}}`,
			[4]string{"3/3", "Running", "2", "5m"}},
		{"one done, one running", `{status: {phase: Running, conditions: [{type: Ready, status: "False"}],
			containerStatuses: [{name: a, ready: true, state: {running: {}}}, {name: b, state: {terminated: {exitCode: 0, reason: Completed}}}]}}`,
			[4]string{"1/2", "NotReady", "0", "5m"}},
		{"done, the other still running", `{status: {phase: Running, conditions: [{type: Ready, status: "False"}],
			containerStatuses: [{name: a, state: {terminated: {exitCode: 0, reason: Completed}}}, {name: b, ready: true, state: {running: {}}}]}}`,
			[4]string{"1/2", "NotReady", "0", "5m"}},
		{"crashing", `{status: {phase: Running, containerStatuses: [{name: a, restartCount: 3, state: {waiting: {reason: CrashLoopBackOff}},
			lastState: {terminated: {exitCode: 1, finishedAt: "2026-01-02T03:03:55Z"}}}, {name: b, ready: true, state: {running: {}}}]}}`,
			[4]string{"1/2", "CrashLoopBackOff", "3 (10s ago)", "5m"}},
		{"failed", `{status: {phase: Failed, containerStatuses: [{name: a, state: {terminated: {exitCode: 2}}}]}}`,
			[4]string{"0/2", "ExitCode:2", "0", "5m"}},
		{"evicted", `{status: {phase: Failed, reason: Evicted}}`, [4]string{"0/2", "Evicted", "0", "5m"}},
		{"gated", `{status: {phase: Pending, conditions: [{type: PodScheduled, status: "False", reason: SchedulingGated}]}}`,
			[4]string{"0/2", "SchedulingGated", "0", "5m"}},
		{"terminating", `{metadata: {deletionTimestamp: "2026-01-02T03:04:00Z"}, status: {phase: Running}}`, [4]string{"0/2", "Terminating", "0", "5m"}},
		{"terminating but done", `{metadata: {deletionTimestamp: "2026-01-02T03:04:00Z"}, status: {phase: Succeeded}}`,
			[4]string{"0/2", "Succeeded", "0", "5m"}},
		{"on a lost node", `{metadata: {deletionTimestamp: "2026-01-02T03:04:00Z"}, status: {phase: Running, reason: NodeLost}}`,
			[4]string{"0/2", "Unknown", "0", "5m"}},
	} {
		p := &corev1.Pod{}
		if err := yaml.UnmarshalStrict([]byte(tc.pod), p); err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		p.CreationTimestamp = metav1.NewTime(now.Add(-5 * time.Minute))
		p.Spec.Containers = []corev1.Container{{Name: "a"}, {Name: "b"}}
		row := podRow(p, now)
		got := [4]string{row[1].(string), row[2].(string), row[3].(string), row[4].(string)}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestPodRowWide(t *testing.T) {
	p := &corev1.Pod{
		Spec: corev1.PodSpec{NodeName: "n", ReadinessGates: []corev1.PodReadinessGate{{ConditionType: "a/b"}, {ConditionType: "a/c"}}},
		Status: corev1.PodStatus{
			PodIPs: []corev1.PodIP{{IP: "10.42.0.2"}}, Conditions: []corev1.PodCondition{{Type: "a/b", Status: corev1.ConditionTrue}},
		},
	}
	if diff := cmp.Diff([]any{"10.42.0.2", "n", "<none>", "1/2"}, podRow(p, time.Now())[5:]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]any{"<none>", "<none>", "<none>", "<none>"}, podRow(&corev1.Pod{}, time.Now())[5:]); diff != "" {
		t.Errorf("empty: (-want +got):\n%s", diff)
	}
}
