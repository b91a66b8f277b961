package nodelifecycle

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = time.Unix(1_900_000_000, 0)

func node(ready corev1.ConditionStatus) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	if ready != "" {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready, LastHeartbeatTime: metav1.NewTime(now)}}
	}
	return n
}

func TestHealth(t *testing.T) {
	h := &health{}
	n := node(corev1.ConditionTrue)
	lease := metav1.NewMicroTime(now.Add(-time.Hour)) // the node's clock may be wrong
	h.note(n, lease, now)
	if got := h.lost(n).Sub(now); got != gracePeriod {
		t.Errorf("at first: %v", got)
	}
	h.note(n, lease, now.Add(30*time.Second))
	if got := h.lost(n).Sub(now); got != gracePeriod {
		t.Errorf("nothing heard: %v", got)
	}
	h.note(n, metav1.NewMicroTime(lease.Add(10*time.Second)), now.Add(40*time.Second))
	if got := h.lost(n).Sub(now); got != 40*time.Second+gracePeriod {
		t.Errorf("lease renewed: %v", got)
	}
	if got := (&health{seen: now}).lost(node("")).Sub(now); got != startupGracePeriod {
		t.Errorf("never spoke: %v", got)
	}
}

func TestStaleConditions(t *testing.T) {
	got, changed := staleConditions(node(corev1.ConditionTrue), now)
	if !changed || len(got) != 4 || got[0].Status != corev1.ConditionUnknown || got[0].Reason != "NodeStatusUnknown" || got[1].Reason != "NodeStatusNeverUpdated" {
		t.Errorf("%t %+v", changed, got)
	}
	n := node("")
	n.Status.Conditions = got
	if _, again := staleConditions(n, now.Add(time.Minute)); again {
		t.Error("changed twice")
	}
}

func TestTaints(t *testing.T) {
	own := corev1.Taint{Key: "dedicated", Value: "gpu", Effect: corev1.TaintEffectNoSchedule}
	type pair struct {
		Key    string
		Effect corev1.TaintEffect
	}
	tests := []struct {
		name    string
		node    *corev1.Node
		want    []pair
		changed bool
	}{
		{"ready", node(corev1.ConditionTrue), nil, false},
		{"not ready", node(corev1.ConditionFalse), []pair{{corev1.TaintNodeNotReady, "NoSchedule"}, {corev1.TaintNodeNotReady, "NoExecute"}}, true},
		{"not heard of", node(corev1.ConditionUnknown), []pair{{corev1.TaintNodeUnreachable, "NoSchedule"}, {corev1.TaintNodeUnreachable, "NoExecute"}}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.node.Spec.Taints = []corev1.Taint{own}
			got, changed := taints(tt.node, now)
			pairs := []pair(nil)
			for _, x := range got[1:] {
				pairs = append(pairs, pair{x.Key, x.Effect})
				if x.TimeAdded == nil || !x.TimeAdded.Time.Equal(now) {
					t.Errorf("time added: %v", x.TimeAdded)
				}
			}
			if diff := cmp.Diff(tt.want, pairs); diff != "" || changed != tt.changed || got[0] != own {
				t.Errorf("%t %s", changed, diff)
			}
		})
	}
	n := node(corev1.ConditionTrue)
	n.Spec.Unschedulable = true
	n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}}
	got, changed := taints(n, now)
	if !changed || len(got) != 1 || got[0].Key != corev1.TaintNodeUnschedulable {
		t.Errorf("cordoned and ready again: %+v", got)
	}
}

func TestEvictionCountsFromArrival(t *testing.T) {
	added := metav1.NewTime(now.Add(-time.Minute))
	taint := corev1.Taint{Key: "k", Effect: corev1.TaintEffectNoExecute, TimeAdded: &added}
	seconds := int64(90)
	p := &corev1.Pod{Spec: corev1.PodSpec{Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists, TolerationSeconds: &seconds}}},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now)}}}}
	if at, must := eviction(p, []corev1.Taint{taint}, now); !must || at.Sub(now) != 90*time.Second {
		t.Errorf("a Pod that came after the taint: %t in %v", must, at.Sub(now))
	}
}

func TestEviction(t *testing.T) {
	added := metav1.NewTime(now.Add(-time.Minute))
	unreachable := corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute, TimeAdded: &added}
	sec := func(n int64) *int64 { return &n }
	exists := func(key string, s *int64) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: s}
	}
	tests := []struct {
		name        string
		tolerations []corev1.Toleration
		taints      []corev1.Taint
		in          time.Duration
		must        bool
	}{
		{"no taint", nil, nil, 0, false},
		{"only NoSchedule", nil, []corev1.Taint{{Key: "x", Effect: corev1.TaintEffectNoSchedule}}, 0, false},
		{"not tolerated", nil, []corev1.Taint{unreachable}, 0, true},
		{"tolerated for ever", []corev1.Toleration{exists(corev1.TaintNodeUnreachable, nil)}, []corev1.Taint{unreachable}, 0, false},
		{"the default five minutes, one is over", []corev1.Toleration{exists(corev1.TaintNodeUnreachable, sec(300))}, []corev1.Taint{unreachable}, 4 * time.Minute, true},
		{"the shortest counts", []corev1.Toleration{exists("", sec(900)), exists(corev1.TaintNodeUnreachable, sec(90))}, []corev1.Taint{unreachable}, 30 * time.Second, true},
		{"another value", []corev1.Toleration{{Key: "k", Value: "a", Operator: corev1.TolerationOpEqual}},
			[]corev1.Taint{{Key: "k", Value: "b", Effect: corev1.TaintEffectNoExecute}}, 0, true},
		{"the same value", []corev1.Toleration{{Key: "k", Value: "b"}}, []corev1.Taint{{Key: "k", Value: "b", Effect: corev1.TaintEffectNoExecute}}, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &corev1.Pod{Spec: corev1.PodSpec{Tolerations: tt.tolerations}}
			p.CreationTimestamp = metav1.NewTime(now.Add(-time.Hour))
			at, must := eviction(p, tt.taints, now)
			if must != tt.must || must && at.Sub(now) != tt.in {
				t.Errorf("must %t in %v", must, at.Sub(now))
			}
		})
	}
}
