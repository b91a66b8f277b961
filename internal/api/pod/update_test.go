package pod

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestValidateUpdate(t *testing.T) {
	const others = "spec: Forbidden: pod updates may not change fields other than " + changeable
	gated := func(p *corev1.Pod) {
		p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}, {Name: "h"}}
		p.Spec.NodeSelector = map[string]string{"a": "b"}
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
				{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "a", Operator: corev1.NodeSelectorOpExists}}},
			}},
		}}
	}
	for _, tc := range []struct {
		name        string
		old, change func(p *corev1.Pod)
		want        []string
		generation  int64
	}{
		{name: "nothing", generation: 1},
		{name: "labels", change: func(p *corev1.Pod) { p.Labels["x"] = "y" }, generation: 1},
		{name: "image", change: func(p *corev1.Pod) { p.Spec.Containers[0].Image = "nginx:1.9" }, generation: 2},
		{name: "command", change: func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"x"} }, want: []string{others}, generation: 2},
		{name: "one more container", change: func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "c", Image: "x"})
		}, want: []string{"spec.containers: Forbidden: pod updates may not add or remove containers"}, generation: 2},
		{name: "node", change: func(p *corev1.Pod) { p.Spec.NodeName = "n" }, want: []string{others}, generation: 2},
		{name: "a deadline", change: func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](5) }, generation: 2},
		{
			name: "a later deadline", old: func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](5) },
			change: func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](6) }, generation: 2,
			want: []string{"spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"},
		},
		{
			name: "a toleration more", old: func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Key: "a"}} },
			change: func(p *corev1.Pod) { p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: "b"}) }, generation: 2,
		},
		{
			name: "a toleration less", old: func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Key: "a"}} },
			change: func(p *corev1.Pod) { p.Spec.Tolerations = nil }, generation: 2,
			want: []string{"spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"},
		},
		{name: "a gate less", old: gated, change: func(p *corev1.Pod) { p.Spec.SchedulingGates = p.Spec.SchedulingGates[:1] }, generation: 2},
		{
			name: "another gate", old: gated, change: func(p *corev1.Pod) { p.Spec.SchedulingGates[0].Name = "x" }, generation: 2,
			want: []string{"spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'x'"},
		},
		{name: "a narrower selector", old: gated, change: func(p *corev1.Pod) { p.Spec.NodeSelector["c"] = "d" }, generation: 2},
		{
			name: "another selector", old: gated, change: func(p *corev1.Pod) { p.Spec.NodeSelector["a"] = "c" }, generation: 2,
			want: []string{`spec.nodeSelector: Invalid value: {"a":"c"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)`},
		},
		{name: "a narrower affinity", old: gated, change: func(p *corev1.Pod) {
			t := &p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0]
			t.MatchExpressions = append(t.MatchExpressions, corev1.NodeSelectorRequirement{Key: "b", Operator: corev1.NodeSelectorOpExists})
		}, generation: 2},
		{name: "no affinity", old: gated, change: func(p *corev1.Pod) { p.Spec.Affinity = nil }, generation: 2,
			want: []string{"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Invalid value: null: " +
				"no additions/deletions to non-empty NodeSelectorTerms list are allowed"}},
		{name: "mirror", change: func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} }, generation: 1,
			want: []string{
				"metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not add mirror pod annotation",
				`metadata.annotations[kubernetes.io/config.mirror]: Invalid value: "x": must set spec.nodeName if mirror pod annotation is set`,
			}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			old := created(t, tc.old)
			old.ResourceVersion = "1"
			p := old.DeepCopy()
			if tc.change != nil {
				tc.change(p)
			}
			Default(p)
			PrepareForUpdate(p, old)
			if tc.want == nil {
				tc.want = []string{}
			}
			if diff := cmp.Diff(tc.want, lines(ValidateUpdate(p, old))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if p.Generation != tc.generation {
				t.Errorf("generation %d, want %d", p.Generation, tc.generation)
			}
		})
	}
}

func TestEphemeralUpdate(t *testing.T) {
	container := func(name string) corev1.EphemeralContainer {
		return corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: name, Image: "busybox"}}
	}
	old := created(t, func(p *corev1.Pod) { p.Spec.EphemeralContainers = []corev1.EphemeralContainer{container("one")} })
	old.ResourceVersion = "1"
	for _, tc := range []struct {
		name   string
		change func(p *corev1.Pod)
		want   []string
	}{
		{"another", func(p *corev1.Pod) { p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, container("two")) }, nil},
		{"the rest of the spec is not looked at", func(p *corev1.Pod) { p.Spec.NodeName = "n" }, nil},
		{"gone", func(p *corev1.Pod) { p.Spec.EphemeralContainers = nil },
			[]string{`spec.ephemeralContainers: Forbidden: existing ephemeral containers "one" may not be removed`}},
		{"changed", func(p *corev1.Pod) { p.Spec.EphemeralContainers[0].Image = "x" },
			[]string{`spec.ephemeralContainers: Forbidden: existing ephemeral containers "one" may not be changed`}},
		{"with what others rely on", func(p *corev1.Pod) {
			c := container("two")
			c.Ports = []corev1.ContainerPort{{ContainerPort: 1}}
			c.TargetContainerName = "nobody"
			p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, c)
		}, []string{
			"spec.ephemeralContainers[1].ports: Forbidden: cannot be set for an Ephemeral Container",
			`spec.ephemeralContainers[1].targetContainerName: Not found: "nobody"`,
		}},
		{"a taken name", func(p *corev1.Pod) { p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, container("a")) },
			[]string{`spec.ephemeralContainers[1].name: Duplicate value: "a"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := old.DeepCopy()
			tc.change(p)
			Default(p)
			PrepareEphemeral(p, old)
			if tc.want == nil {
				tc.want = []string{}
			}
			if diff := cmp.Diff(tc.want, lines(ValidateEphemeralUpdate(p, old))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestStatusUpdate(t *testing.T) {
	ended := func(name string, code int32) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}
	}
	const again = ".state: Forbidden: may not be transitioned to non-terminated state"
	for _, tc := range []struct {
		name   string
		policy corev1.RestartPolicy
		old    corev1.PodStatus
		now    corev1.PodStatus
		want   []string
	}{
		{"runs again", corev1.RestartPolicyAlways, corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{ended("a", 0)}},
			corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "a"}}}, nil},
		{"never runs again", corev1.RestartPolicyNever, corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{ended("a", 1)}},
			corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "a"}}}, []string{"status.containerStatuses[0]" + again}},
		{"runs again after a failure", corev1.RestartPolicyOnFailure, corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{ended("a", 1), ended("b", 0)}},
			corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "a"}, {Name: "b"}}}, []string{"status.containerStatuses[1]" + again}},
		{"init runs again in a new sandbox", corev1.RestartPolicyOnFailure, corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{ended("i", 0)}},
			corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{{Name: "i"}}}, nil},
		{"of init only sidecars run again", corev1.RestartPolicyNever,
			corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{ended("i", 0), ended("side", 0)}},
			corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{{Name: "i"}, {Name: "side"}}}, []string{"status.initContainerStatuses[0]" + again}},
		{"ephemeral never", corev1.RestartPolicyAlways, corev1.PodStatus{EphemeralContainerStatuses: []corev1.ContainerStatus{ended("e", 1)}},
			corev1.PodStatus{EphemeralContainerStatuses: []corev1.ContainerStatus{{Name: "e"}}}, []string{"status.ephemeralContainerStatuses[0]" + again}},
		{"one address of each family", corev1.RestartPolicyAlways, corev1.PodStatus{},
			corev1.PodStatus{PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}}, nil},
		{"two of one family", corev1.RestartPolicyAlways, corev1.PodStatus{},
			corev1.PodStatus{HostIP: "10.0.0.1", HostIPs: []corev1.HostIP{{IP: "10.0.0.1"}, {IP: "10.0.0.2"}}},
			[]string{`status.hostIPs: Invalid value: [{"ip":"10.0.0.1"},{"ip":"10.0.0.2"}]: may specify no more than one IP for each IP family`}},
		{"another class", corev1.RestartPolicyAlways, corev1.PodStatus{}, corev1.PodStatus{QOSClass: corev1.PodQOSGuaranteed},
			[]string{`status.qosClass: Invalid value: "Guaranteed": field is immutable`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			old := created(t, func(p *corev1.Pod) { p.Spec.RestartPolicy = tc.policy })
			old.ResourceVersion = "1"
			tc.old.QOSClass = old.Status.QOSClass
			old.Status = tc.old
			p := old.DeepCopy()
			p.Status = tc.now
			p.Spec.NodeName = "not through here"
			PrepareStatus(p, old)
			if tc.want == nil {
				tc.want = []string{}
			}
			if diff := cmp.Diff(tc.want, lines(ValidateStatusUpdate(p, old))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(old.Spec, p.Spec); diff != "" {
				t.Errorf("spec changed:\n%s", diff)
			}
		})
	}
}

func TestGraceful(t *testing.T) {
	for _, tc := range []struct {
		name    string
		node    string
		phase   corev1.PodPhase
		own     *int64
		asked   *int64
		seconds int64
	}{
		{"its own", "n", corev1.PodRunning, ptr.To[int64](30), nil, 30},
		{"asked", "n", corev1.PodRunning, ptr.To[int64](30), ptr.To[int64](5), 5},
		{"not scheduled", "", corev1.PodPending, ptr.To[int64](30), ptr.To[int64](5), 0},
		{"ended", "n", corev1.PodSucceeded, ptr.To[int64](30), nil, 0},
		{"negative", "n", corev1.PodRunning, ptr.To[int64](-5), nil, 1},
		{"none", "n", corev1.PodPending, nil, nil, 0},
	} {
		p := &corev1.Pod{
			Spec:   corev1.PodSpec{NodeName: tc.node, TerminationGracePeriodSeconds: tc.own},
			Status: corev1.PodStatus{Phase: tc.phase},
		}
		options := &metav1.DeleteOptions{GracePeriodSeconds: tc.asked}
		if !Graceful(p, options) || *options.GracePeriodSeconds != tc.seconds {
			t.Errorf("%s: %d, want %d", tc.name, *options.GracePeriodSeconds, tc.seconds)
		}
	}
	if Graceful(&corev1.Pod{}, nil) {
		t.Error("graceful without options")
	}
}

func TestPrepareForCreateMergesLabelKeys(t *testing.T) {
	p := created(t, func(p *corev1.Pod) {
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: "zone", WhenUnsatisfiable: corev1.DoNotSchedule, MatchLabelKeys: []string{"v", "absent"},
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}},
		}}
	})
	want := []metav1.LabelSelectorRequirement{{Key: "v", Operator: metav1.LabelSelectorOpIn, Values: []string{"1"}}}
	if diff := cmp.Diff(want, p.Spec.TopologySpreadConstraints[0].LabelSelector.MatchExpressions); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWarnings(t *testing.T) {
	p := created(t, func(p *corev1.Pod) {
		p.Name = "a.b"
		p.Spec.NodeSelector = map[string]string{"beta.kubernetes.io/os": "linux"}
		p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{Name: "A", Value: "c"}, corev1.EnvVar{Name: "A", Value: "$(A)d"})
		p.Spec.Containers[1].Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: 80}}
		p.Spec.Volumes[2].Secret.Items = append(p.Spec.Volumes[2].Secret.Items, corev1.KeyToPath{Key: "x", Path: "a"})
		p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "s"}, {Name: "s"}}
	})
	want := []string{
		"metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: " +
			"[must not contain dots]",
		`spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead`,
		`volume "s" (Secret "s"): overlapping paths: "a" with "a/b"`,
		`spec.imagePullSecrets[1].name: duplicate name "s"`,
		`spec.containers[0].env[2]: hides previous definition of "A", which may be dropped when using apply`,
		"spec.containers[1].ports[0]: overlapping port definition with spec.containers[0].ports[0]",
		`spec.containers[1].ports[0]: duplicate port name "http" with spec.containers[0].ports[0], ` +
			"services and probes that select ports by name will use spec.containers[0].ports[0]",
	}
	if diff := cmp.Diff(want, Warnings(p)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
