package deployment

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestFenceposts(t *testing.T) {
	tests := []struct {
		surge, unavailable string
		desired            int32
		wantSurge, wantUn  int32
	}{
		{"25%", "25%", 4, 1, 1},
		{"25%", "25%", 10, 3, 2},
		{"25%", "25%", 3, 1, 0},
		{"0%", "1%", 2, 0, 1},
		{"0", "0", 5, 0, 1},
		{"1%", "25%", 2, 1, 0},
		{"1%", "0%", 1, 1, 0},
		{"3", "2", 10, 3, 2},
		{"100%", "100%", 4, 4, 4},
	}
	for _, tt := range tests {
		s, u := intstr.Parse(tt.surge), intstr.Parse(tt.unavailable)
		gotS, gotU := fenceposts(&s, &u, tt.desired)
		if gotS != tt.wantSurge || gotU != tt.wantUn {
			t.Errorf("surge %s, unavailable %s of %d: got %d, %d, want %d, %d", tt.surge, tt.unavailable, tt.desired, gotS, gotU, tt.wantSurge, tt.wantUn)
		}
	}
}

func TestHash(t *testing.T) {
	a := &corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "nginx"}}}}
	one := int32(1)
	h := templateHash(a, nil)
	if h != templateHash(a.DeepCopy(), nil) {
		t.Error("the same template has two hashes")
	}
	if h == templateHash(a, &one) {
		t.Error("the collision count changes nothing")
	}
	if strings.Trim(h, "bcdfghjklmnpqrstvwxz2456789") != "" {
		t.Errorf("unsafe characters in %q", h)
	}
	if got := replicaSetName(strings.Repeat("a", 253), h); len(got) != 253 || !strings.HasSuffix(got, "-"+h) {
		t.Errorf("long name: %d characters", len(got))
	}
}

func TestSameTemplate(t *testing.T) {
	a := &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}}
	b := a.DeepCopy()
	b.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = "x"
	if !sameTemplate(a, b) {
		t.Error("the hash label counts")
	}
	b.Labels["app"] = "other"
	if sameTemplate(a, b) {
		t.Error("labels do not count")
	}
	c := a.DeepCopy()
	c.Spec.NodeName = "n"
	if sameTemplate(a, c) {
		t.Error("the spec does not count")
	}
}

func TestAppendHistory(t *testing.T) {
	tests := []struct{ history, rev, want string }{
		{"", "1", "1"},
		{"1,2", "3", "1,2,3"},
		{strings.Repeat("1,", 999) + "22", "3", strings.Repeat("1,", 998) + "22,3"},
	}
	for _, tt := range tests {
		got, ok := appendHistory(tt.history, tt.rev)
		if !ok || got != tt.want || len(got) > maxHistory {
			t.Errorf("%.20s… + %s: got %d characters, want %d", tt.history, tt.rev, len(got), len(tt.want))
		}
	}
}
