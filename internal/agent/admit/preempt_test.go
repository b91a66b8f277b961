package admit

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestVictims(t *testing.T) {
	named := func(name string, priority int32, requests, limits string) *corev1.Pod {
		p := pod(nil)
		p.Name, p.Spec.Priority = name, &priority
		list := func(cpu string) corev1.ResourceList {
			if cpu == "" {
				return nil
			}
			return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("16Mi")}
		}
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list(requests), Limits: list(limits)}
		return p
	}
	const system = 2_000_000_000
	for name, v := range map[string]struct {
		pods   int64
		others []*corev1.Pod
		asks   string
		want   []string
	}{
		"nothing is missing":              {9, []*corev1.Pod{named("a", 0, "1", "")}, "1", nil},
		"one is enough":                   {9, []*corev1.Pod{named("a", 0, "500m", ""), named("b", 0, "1500m", "")}, "1", []string{"b"}},
		"the smallest that is enough":     {9, []*corev1.Pod{named("a", 0, "1500m", ""), named("b", 0, "500m", "")}, "500m", []string{"b"}},
		"a guaranteed one is spared":      {9, []*corev1.Pod{named("a", 0, "1", "1"), named("b", 0, "1", "")}, "500m", []string{"b"}},
		"best effort gives no processor":  {9, []*corev1.Pod{named("a", 0, "", ""), named("b", 0, "2", "2")}, "1", []string{"b"}},
		"room for one more Pod":           {2, []*corev1.Pod{named("a", 0, "", ""), named("b", 0, "1", "")}, "100m", []string{"a"}},
		"critical ones stay":              {9, []*corev1.Pod{named("a", system+1, "2", "")}, "1", nil},
		"less critical ones do not":       {9, []*corev1.Pod{named("a", system, "1", ""), named("b", system+5, "1", "")}, "1", []string{"a"}},
		"not even all of them are enough": {9, []*corev1.Pod{named("a", system+9, "1500m", ""), named("b", 0, "500m", "")}, "1", nil},
	} {
		n := node()
		n.Status.Allocatable[corev1.ResourcePods] = *resource.NewQuantity(v.pods, resource.DecimalSI)
		p := named("p", system+1, v.asks, "")
		var got []string
		for _, victim := range Victims(n, v.others, p) {
			got = append(got, victim.Name)
		}
		slices.Sort(got)
		if d := cmp.Diff(v.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
