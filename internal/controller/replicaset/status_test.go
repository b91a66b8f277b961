package replicaset

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestStatus(t *testing.T) {
	now := time.Unix(1_900_000_000, 0)
	ready := func(ago time.Duration, lbls map[string]string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: lbls}}
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-ago))}}
		return p
	}
	full := map[string]string{"app": "web", "tier": "front"}
	rs := replicaSet("web", 4, map[string]string{"app": "web"})
	rs.Spec.Template.Labels = full
	rs.Spec.MinReadySeconds = 10
	pods := []*corev1.Pod{ready(time.Minute, full), ready(time.Second, full), {ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}}}
	two := int32(2)
	want := appsv1.ReplicaSetStatus{
		Replicas: 3, FullyLabeledReplicas: 2, ReadyReplicas: 2, AvailableReplicas: 1, TerminatingReplicas: &two, ObservedGeneration: 1,
		Conditions: []appsv1.ReplicaSetCondition{{
			Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: "no", LastTransitionTime: metav1.NewTime(now),
		}},
	}
	got := status(rs, pods, 2, errors.New("no"), now)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	rs.Status = got
	if c := status(rs, pods, 2, nil, now).Conditions; len(c) != 0 {
		t.Errorf("the failure stays: %v", c)
	}
	if wait, ok := nextAvailable(pods, 10, now); !ok || wait != 9*time.Second {
		t.Errorf("next available in %v, %t", wait, ok)
	}
}
