package podgc

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = time.Unix(1_900_000_000, 0)

func pod(name, node string, phase corev1.PodPhase, deleted bool) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
	p.Spec.NodeName, p.Status.Phase = node, phase
	if deleted {
		at := metav1.NewTime(now)
		p.DeletionTimestamp = &at
	}
	return p
}

func names(ps []*corev1.Pod) (out []string) {
	for _, p := range ps {
		out = append(out, p.Name)
	}
	return out
}

func TestDecide(t *testing.T) {
	all := []*corev1.Pod{
		pod("well", "here", corev1.PodRunning, false), pod("stranded", "gone", corev1.PodRunning, false),
		pod("waits", "", corev1.PodPending, false), pod("dropped", "", corev1.PodPending, true),
		pod("done1", "here", corev1.PodSucceeded, false), pod("done2", "here", corev1.PodFailed, false), pod("done3", "here", corev1.PodFailed, false),
	}
	exists := func(n string) bool { return n == "here" }
	missing := map[string]time.Time{"back": now}
	type result struct {
		Orphaned, Unbound, Surplus []string
		Again                      time.Duration
	}
	at := func(when time.Time) result {
		v := decide(all, exists, missing, 2, when)
		return result{names(v.orphaned), names(v.unbound), names(v.surplus), v.again}
	}
	first := result{Unbound: []string{"dropped"}, Surplus: []string{"done1"}, Again: Quarantine}
	if diff := cmp.Diff(first, at(now)); diff != "" {
		t.Errorf("at first: %s", diff)
	}
	if diff := cmp.Diff(map[string]time.Time{"gone": now}, missing); diff != "" {
		t.Error(diff)
	}
	later := result{Orphaned: []string{"stranded"}, Unbound: []string{"dropped"}, Surplus: []string{"done1"}}
	if diff := cmp.Diff(later, at(now.Add(Quarantine))); diff != "" {
		t.Errorf("after the quarantine: %s", diff)
	}
}
