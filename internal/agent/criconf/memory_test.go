package criconf

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const gi = 1 << 30

func sized(request, limit string) *corev1.Pod {
	list := func(v string) corev1.ResourceList {
		if v == "" {
			return nil
		}
		return corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(v), corev1.ResourceCPU: resource.MustParse("1")}
	}
	return &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: list(request), Limits: list(limit)}}}}}
}

func TestMemoryFiles(t *testing.T) {
	system, ofPod := sized("1Gi", "2Gi"), sized("1Gi", "")
	priority := int32(2_000_000_000)
	system.Spec.Priority = &priority
	ofPod.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("3Gi")}}
	swaps := Memory{Swap: 4 * gi}
	all := Memory{Throttling: 0.5, Tiered: true, Allocatable: 7 * gi}
	for name, v := range map[string]struct {
		pod       *corev1.Pod
		node      Node
		c, podDir map[string]string
	}{
		"nobody swaps":                    {sized("1Gi", "2Gi"), Node{SwapControl: true}, map[string]string{fileSwap: "0"}, nil},
		"swap cannot be limited":          {sized("1Gi", "2Gi"), Node{Memory: swaps}, nil, nil},
		"a share of the swap":             {sized("1Gi", "2Gi"), Node{SwapControl: true, Memory: swaps}, map[string]string{fileSwap: "536870912"}, nil},
		"Guaranteed":                      {sized("1Gi", "1Gi"), Node{SwapControl: true, Memory: swaps}, map[string]string{fileSwap: "0"}, nil},
		"BestEffort":                      {sized("", ""), Node{SwapControl: true, Memory: swaps}, map[string]string{fileSwap: "0"}, nil},
		"of the system":                   {system, Node{SwapControl: true, Memory: swaps}, map[string]string{fileSwap: "0"}, nil},
		"kept firmly, never throttled":    {sized("1Gi", "1Gi"), Node{Memory: all}, map[string]string{fileMin: "1073741824"}, map[string]string{fileMin: "1073741824"}},
		"kept, throttled half-way":        {sized("1Gi", "2Gi"), Node{Memory: all}, map[string]string{fileLow: "1073741824", fileHigh: "1610612736"}, map[string]string{fileLow: "1073741824"}},
		"without a limit":                 {sized("1Gi", ""), Node{Memory: all}, map[string]string{fileLow: "1073741824", fileHigh: "4294967296"}, map[string]string{fileLow: "1073741824"}},
		"that asks for nothing":           {sized("", ""), Node{Memory: all}, map[string]string{fileHigh: "3758096384"}, nil},
		"throttled by the Pod's own":      {ofPod, Node{Memory: all}, map[string]string{fileLow: "1073741824"}, map[string]string{fileLow: "1073741824", fileHigh: "2147483648"}},
		"at a page":                       {sized("1", "8191"), Node{Memory: Memory{Throttling: 1}}, map[string]string{fileHigh: "4096"}, nil},
		"no more than is requested":       {sized("4095", "4097"), Node{Memory: Memory{Throttling: 0.5}}, map[string]string{fileHigh: "4096"}, nil},
		"not below what it may use now":   {sized("4096", "4097"), Node{Memory: Memory{Throttling: 0.5}}, nil, nil},
		"more is requested than there is": {sized("9Gi", "10Gi"), Node{SwapControl: true, Memory: swaps}, map[string]string{fileSwap: "0"}, nil},
	} {
		v.node.Unified, v.node.Total = true, 8*gi
		want := map[string]string{"memory.oom.group": "1"}
		for k, n := range v.c {
			want[k] = n
		}
		if d := cmp.Diff(want, ContainerResources(v.pod, &v.pod.Spec.Containers[0], v.node).GetUnified()); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if d := cmp.Diff(v.podDir, PodMemoryFiles(v.pod, v.node)); d != "" {
			t.Errorf("%s, its Pod: %s", name, d)
		}
		v.node.Unified = false
		if got := ContainerResources(v.pod, &v.pod.Spec.Containers[0], v.node).GetUnified(); got != nil || PodMemoryFiles(v.pod, v.node) != nil {
			t.Errorf("%s: files of v2 on v1: %v", name, got)
		}
	}
}

func TestLevel(t *testing.T) {
	g, b := Share{MilliCPU: 1000, Memory: 3 * gi}, Share{MilliCPU: 2500, Memory: gi}
	tiered := Node{Unified: true, Memory: Memory{Tiered: true}}
	if r := Level(corev1.PodQOSBurstable, g, b, Node{Unified: true}); r.GetCpuShares() != 2560 || r.GetUnified() != nil {
		t.Errorf("%v", r)
	}
	if r := Level(corev1.PodQOSBurstable, g, Share{}, tiered); r.GetCpuShares() != 2 || r.GetUnified()[fileLow] != "0" {
		t.Errorf("%v", r)
	}
	if d := cmp.Diff(map[string]string{fileMin: "3221225472", fileLow: "1073741824"}, Level(corev1.PodQOSGuaranteed, g, b, tiered).GetUnified()); d != "" {
		t.Error(d)
	}
	if r := Level(corev1.PodQOSGuaranteed, g, b, tiered); r.GetCpuShares() != 0 {
		t.Errorf("%v", r)
	}
}
