package pod

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// amounts makes a list from names and quantities by turns.
func amounts(pairs ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		list[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return list
}

func resizable(change func(*corev1.Pod)) *corev1.Pod {
	always := corev1.ContainerRestartPolicyAlways
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns"}, Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{
			{Name: "init", Image: "i", Resources: corev1.ResourceRequirements{Requests: amounts("cpu", "1")}},
			{Name: "side", Image: "i", RestartPolicy: &always, Resources: corev1.ResourceRequirements{Requests: amounts("cpu", "1")}},
		},
		Containers: []corev1.Container{
			{Name: "a", Image: "i", Resources: corev1.ResourceRequirements{Requests: amounts("cpu", "1", "memory", "1Gi"), Limits: amounts("cpu", "2", "memory", "2Gi")}},
			{Name: "b", Image: "i", Resources: corev1.ResourceRequirements{Requests: amounts("ephemeral-storage", "1Gi")}},
		},
	}}
	if change != nil {
		change(p)
	}
	Default(p)
	PrepareForCreate(p)
	return p
}

func TestValidateResize(t *testing.T) {
	own := func(p *corev1.Pod) {
		p.Spec.Resources = &corev1.ResourceRequirements{Requests: amounts("cpu", "10"), Limits: amounts("cpu", "20", "memory", "20Gi")}
	}
	for _, tt := range []struct {
		name        string
		old, change func(*corev1.Pod)
		want        []string
		same        bool // the spec does not change
	}{
		{name: "nothing", same: true},
		{name: "cpu and memory", change: func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = amounts("cpu", "1500m", "memory", "1Gi")
			p.Spec.InitContainers[1].Resources.Requests = amounts("cpu", "2")
			p.Spec.InitContainers[0].Resources.Limits = amounts("cpu", "3")
		}},
		{name: "what is no resource is not changed", same: true, change: func(p *corev1.Pod) {
			p.Spec.Containers[0].Image, p.Spec.NodeName = "other", "n"
		}},
		{name: "a policy", change: func(p *corev1.Pod) {
			p.Spec.Containers[0].ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: "cpu", RestartPolicy: corev1.RestartContainer}}
		}, want: []string{"spec: Forbidden: only cpu and memory resources are mutable"}},
		{name: "storage", change: func(p *corev1.Pod) { p.Spec.Containers[1].Resources.Requests = amounts("ephemeral-storage", "2Gi") },
			want: []string{"spec: Forbidden: only cpu and memory resources are mutable"}},
		{name: "a request less", change: func(p *corev1.Pod) { p.Spec.InitContainers[1].Resources.Requests = nil },
			want: []string{"spec.initContainers[1].resources.requests: Forbidden: resource requests cannot be removed"}},
		{name: "a limit less", change: func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Limits = amounts("cpu", "2") },
			want: []string{"spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"}},
		{name: "above its limit", change: func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = amounts("cpu", "3", "memory", "1Gi") },
			want: []string{`spec.containers[0].resources.requests: Invalid value: "3": must be less than or equal to cpu limit of 2`}},
		{name: "other order", change: func(p *corev1.Pod) {
			p.Spec.Containers[0], p.Spec.Containers[1] = p.Spec.Containers[1], p.Spec.Containers[0]
		},
			want: []string{"spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize",
				"spec.containers[1].name: Forbidden: containers may not be renamed or reordered on resize"}},
		{name: "an init container less", change: func(p *corev1.Pod) { p.Spec.InitContainers = p.Spec.InitContainers[1:] },
			want: []string{"spec.initContainers: Forbidden: initContainers may not be added or removed on resize"}},
		{name: "other class", old: func(p *corev1.Pod) {
			p.Spec.InitContainers = nil
			p.Spec.Containers = []corev1.Container{{Name: "a", Image: "i"}}
		}, change: func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = amounts("cpu", "1") },
			want: []string{`spec: Invalid value: "BestEffort": Pod QOS Class may not change as a result of resizing`}},
		{name: "the Pod's own", old: own, change: func(p *corev1.Pod) {
			p.Spec.Resources.Requests["cpu"], p.Spec.Resources.Limits["memory"] = resource.MustParse("11"), resource.MustParse("30Gi")
		}},
		{name: "the Pod's own go away", old: own, same: true, change: func(p *corev1.Pod) { p.Spec.Resources = nil }},
		{name: "a limit of the Pod less", old: own, change: func(p *corev1.Pod) { delete(p.Spec.Resources.Limits, "memory") },
			want: []string{"spec.resources.limits: Forbidden: pod-level resource limits cannot be removed"}},
		{name: "the Pod's own below its containers'", old: own, change: func(p *corev1.Pod) { p.Spec.Resources.Requests["cpu"] = resource.MustParse("1") },
			want: []string{`spec.resources.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container requests of 2`}},
		{name: "a static Pod", old: func(p *corev1.Pod) {
			p.Annotations, p.Spec.NodeName = map[string]string{corev1.MirrorPodAnnotationKey: "x"}, "n"
		}, change: func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = amounts("cpu", "1500m", "memory", "1Gi")
		},
			want: []string{"[]: Forbidden: static pods cannot be resized"}},
	} {
		old := resizable(tt.old)
		old.ResourceVersion = "1"
		p := old.DeepCopy()
		if tt.change != nil {
			tt.change(p)
		}
		PrepareResize(p, old)
		var got []string
		for _, e := range ValidateResize(p, old) {
			got = append(got, e.Error())
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if changed := p.Generation != old.Generation; len(got) == 0 && changed == tt.same {
			t.Errorf("%s: generation %d after %d", tt.name, p.Generation, old.Generation)
		}
	}
}

func TestPodLevelResources(t *testing.T) {
	for _, tt := range []struct {
		name     string
		own      *corev1.ResourceRequirements
		first    corev1.ResourceRequirements
		second   corev1.ResourceRequirements
		want     corev1.ResourceRequirements
		class    corev1.PodQOSClass
		problems []string
	}{
		{name: "requests from containers", own: &corev1.ResourceRequirements{Limits: amounts("memory", "4Gi")},
			first: corev1.ResourceRequirements{Requests: amounts("cpu", "1", "memory", "1Gi")}, second: corev1.ResourceRequirements{Requests: amounts("memory", "1Gi")},
			want:  corev1.ResourceRequirements{Requests: amounts("cpu", "1", "memory", "2Gi"), Limits: amounts("memory", "4Gi")},
			class: corev1.PodQOSBurstable},
		{name: "guaranteed by itself", own: &corev1.ResourceRequirements{Limits: amounts("cpu", "1", "memory", "4Gi")},
			want:  corev1.ResourceRequirements{Requests: amounts("cpu", "1", "memory", "4Gi"), Limits: amounts("cpu", "1", "memory", "4Gi")},
			class: corev1.PodQOSGuaranteed},
		{name: "limits where each container has one", own: &corev1.ResourceRequirements{Requests: amounts("cpu", "3", "memory", "1Gi")},
			first: corev1.ResourceRequirements{Limits: amounts("cpu", "1")}, second: corev1.ResourceRequirements{Limits: amounts("cpu", "1", "memory", "1Gi")},
			want:  corev1.ResourceRequirements{Requests: amounts("cpu", "3", "memory", "1Gi"), Limits: amounts("cpu", "3")},
			class: corev1.PodQOSBurstable},
		{name: "huge pages", own: &corev1.ResourceRequirements{Requests: amounts("cpu", "1")},
			first: corev1.ResourceRequirements{Limits: amounts("hugepages-2Mi", "4Mi", "cpu", "1")},
			want:  corev1.ResourceRequirements{Requests: amounts("cpu", "1", "hugepages-2Mi", "4Mi"), Limits: amounts("hugepages-2Mi", "4Mi")},
			class: corev1.PodQOSBurstable},
		{name: "too small", own: &corev1.ResourceRequirements{Requests: amounts("cpu", "1"), Limits: amounts("cpu", "1")},
			first: corev1.ResourceRequirements{Limits: amounts("cpu", "2")}, class: corev1.PodQOSBurstable,
			want: corev1.ResourceRequirements{Requests: amounts("cpu", "1"), Limits: amounts("cpu", "1")},
			problems: []string{`spec.resources.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container requests of 2`,
				`spec.resources.containers[0][cpu].limits: Invalid value: "2": must be less than or equal to pod limits of 1`}},
		{name: "no such resource", own: &corev1.ResourceRequirements{Requests: amounts("ephemeral-storage", "1")}, class: corev1.PodQOSBestEffort,
			want:     corev1.ResourceRequirements{Requests: amounts("ephemeral-storage", "1")},
			problems: []string{`spec.resources.requests[ephemeral-storage]: Unsupported value: "ephemeral-storage": supported values: "cpu", "hugepages-", "memory"`}},
		{name: "claims", own: &corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "c"}}}, class: corev1.PodQOSBestEffort,
			want:     corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "c"}}},
			problems: []string{"spec.resources.claims: Forbidden: claims may not be set for Resources at pod-level"}},
	} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns"}, Spec: corev1.PodSpec{Resources: tt.own,
			Containers: []corev1.Container{{Name: "a", Image: "i", Resources: tt.first}, {Name: "b", Image: "i", Resources: tt.second}}}}
		Default(p)
		PrepareForCreate(p)
		if diff := cmp.Diff(&tt.want, p.Spec.Resources); diff != "" || p.Status.QOSClass != tt.class {
			t.Errorf("%s: class %s (-want +got):\n%s", tt.name, p.Status.QOSClass, diff)
		}
		var got []string
		for _, e := range Validate(p) {
			got = append(got, e.Error())
		}
		if diff := cmp.Diff(tt.problems, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
