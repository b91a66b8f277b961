package pods

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

type option func(*corev1.Pod)

func pod(name string, opts ...option) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))}}
	p.Spec.NodeName = "n1"
	p.Status.Phase = corev1.PodRunning
	for _, o := range opts {
		o(p)
	}
	return p
}

func node(n string) option            { return func(p *corev1.Pod) { p.Spec.NodeName = n } }
func phase(ph corev1.PodPhase) option { return func(p *corev1.Pod) { p.Status.Phase = ph } }
func created(ago time.Duration) option {
	return func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(now.Add(-ago)) }
}
func deleted(p *corev1.Pod) { t := metav1.NewTime(now); p.DeletionTimestamp = &t }
func cost(c string) option {
	return func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.PodDeletionCost: c} }
}
func ready(ago time.Duration) option {
	return func(p *corev1.Pod) {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{
			Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-ago)),
		})
	}
}
func restarts(n int32) option {
	return func(p *corev1.Pod) { p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: n}} }
}

func TestToDelete(t *testing.T) {
	tests := []struct {
		name       string
		pods       []*corev1.Pod
		neighbours []*corev1.Pod
		want       []string
	}{
		{"unbound first", []*corev1.Pod{pod("bound"), pod("unbound", node(""))}, nil, []string{"unbound"}},
		{"by phase", []*corev1.Pod{pod("running"), pod("unknown", phase(corev1.PodUnknown)), pod("pending", phase(corev1.PodPending))}, nil,
			[]string{"pending", "unknown"}},
		{"not ready first", []*corev1.Pod{pod("ready", ready(time.Minute)), pod("not")}, nil, []string{"not"}},
		{"lower cost first", []*corev1.Pod{pod("a", ready(time.Hour), cost("10")), pod("b", ready(time.Hour), cost("-1"))}, nil, []string{"b"}},
		{"doubled up first",
			[]*corev1.Pod{pod("alone", node("n2"), ready(time.Second)), pod("crowded", ready(time.Hour))},
			[]*corev1.Pod{pod("alone", node("n2")), pod("crowded"), pod("x")},
			[]string{"crowded"}},
		{"neighbours that go do not count",
			[]*corev1.Pod{pod("young", node("n2"), ready(time.Second)), pod("old", ready(time.Hour))},
			[]*corev1.Pod{pod("young", node("n2")), pod("old"), pod("x", deleted)},
			[]string{"young"}},
		{"ready for less time", []*corev1.Pod{pod("long", ready(time.Hour)), pod("short", ready(time.Second))}, nil, []string{"short"}},
		{"same magnitude: by uid", []*corev1.Pod{pod("b", ready(64*time.Second)), pod("a", ready(65*time.Second))}, nil, []string{"a"}},
		{"more restarts", []*corev1.Pod{pod("calm", restarts(1)), pod("restless", restarts(5))}, nil, []string{"restless"}},
		{"younger", []*corev1.Pod{pod("old", created(time.Hour)), pod("young", created(time.Second))}, nil, []string{"young"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, p := range ToDelete(tt.pods, tt.neighbours, len(tt.want), now) {
				got = append(got, p.Name)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAvailable(t *testing.T) {
	tests := []struct {
		name string
		pod  *corev1.Pod
		min  int32
		want bool
	}{
		{"not ready", pod("a"), 0, false},
		{"ready, no wait asked for", pod("a", ready(0)), 0, true},
		{"ready, too short", pod("a", ready(9*time.Second)), 10, false},
		{"ready, just long enough", pod("a", ready(10*time.Second)), 10, true},
	}
	for _, tt := range tests {
		if got := Available(tt.pod, tt.min, now); got != tt.want {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
	if d, ok := UntilAvailable(pod("a", ready(4*time.Second)), 10, now); !ok || d != 6*time.Second {
		t.Errorf("until available: %v %t", d, ok)
	}
}

func TestSlowStart(t *testing.T) {
	tests := []struct {
		name            string
		n               int
		failAt          int32
		done, wantCalls int
	}{
		{"none", 0, 0, 0, 0},
		{"all", 30, 0, 30, 30},
		{"the first fails: one call", 30, 1, 0, 1},
		{"the third fails: its batch of two ends", 30, 3, 2, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var calls atomic.Int32
			done, err := SlowStart(tt.n, func() error {
				if calls.Add(1) == tt.failAt {
					return errors.New("quota")
				}
				return nil
			})
			if done != tt.done || int(calls.Load()) != tt.wantCalls || (err != nil) != (tt.failAt > 0) {
				t.Errorf("done %d, %d calls, %v", done, calls.Load(), err)
			}
		})
	}
}

func TestFromTemplate(t *testing.T) {
	template := &corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"}, Finalizers: []string{"x/y"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}},
	}
	owner := &metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "u"}
	ref := &metav1.OwnerReference{Name: "web", UID: "u"}
	got := FromTemplate(template, owner, ref)
	want := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", GenerateName: "web-", Labels: template.Labels, Annotations: template.Annotations,
			Finalizers: template.Finalizers, OwnerReferences: []metav1.OwnerReference{*ref},
		},
		Spec: template.Spec,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got.Labels["a"] = "changed"
	if template.Labels["a"] != "b" {
		t.Error("the Pod shares its labels with the template")
	}
}
