package admission

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
)

func creating(p *corev1.Pod) admission.Attributes { return attributes(p, nil, admission.Create) }

func attributes(p *corev1.Pod, old runtime.Object, op admission.Operation) admission.Attributes {
	return admission.NewAttributesRecord(p, old, corev1.SchemeGroupVersion.WithKind("Pod"), "n", "p", corev1.SchemeGroupVersion.WithResource("pods"),
		"", op, nil, false, &user.DefaultInfo{})
}

func TestPriority(t *testing.T) {
	num := func(n int32) *int32 { return &n }
	for _, tt := range []struct {
		name, class string
		given       *int32
		want        int32
		err         string
	}{
		{"nothing", "", nil, 0, ""},
		{"critical", "system-node-critical", nil, 2_000_001_000, ""},
		{"the same number", "system-cluster-critical", num(2_000_000_000), 2_000_000_000, ""},
		{"a number", "", num(5), 0, "the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 0"},
		{"unknown", "x", nil, 0, "no PriorityClass with name x was found"},
	} {
		p := &corev1.Pod{Spec: corev1.PodSpec{PriorityClassName: tt.class, Priority: tt.given}}
		err := newPriority().Admit(t.Context(), creating(p), nil)
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v", tt.name, err)
			}
		case err != nil || *p.Spec.Priority != tt.want || *p.Spec.PreemptionPolicy != corev1.PreemptLowerPriority:
			t.Errorf("%s: %v %+v", tt.name, err, p.Spec)
		}
	}
	old := &corev1.Pod{Spec: corev1.PodSpec{Priority: num(7)}}
	p := &corev1.Pod{}
	if err := newPriority().Admit(t.Context(), attributes(p, old, admission.Update), nil); err != nil || *p.Spec.Priority != 7 {
		t.Errorf("an update that leaves it out: %v %+v", err, p.Spec)
	}
}

func TestTolerations(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []corev1.Toleration
		want []string
	}{
		{"none", nil, []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable}},
		{"everything", []corev1.Toleration{{Operator: corev1.TolerationOpExists}}, []string{""}},
		{"one", []corev1.Toleration{{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoExecute}},
			[]string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable}},
		{"other effect", []corev1.Toleration{{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}},
			[]string{corev1.TaintNodeNotReady, corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable}},
	} {
		p := &corev1.Pod{Spec: corev1.PodSpec{Tolerations: tt.in}}
		if err := newDefaultTolerationSeconds().Admit(t.Context(), creating(p), nil); err != nil {
			t.Error(err)
		}
		var got []string
		for _, tol := range p.Spec.Tolerations {
			got = append(got, tol.Key)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestMountToken(t *testing.T) {
	own := []corev1.VolumeMount{{Name: "mine", MountPath: tokenPath}}
	p := &corev1.Pod{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "i"}},
		Containers:     []corev1.Container{{Name: "a"}, {Name: "b", VolumeMounts: own}},
	}}
	mountToken(p)
	if len(p.Spec.Volumes) != 1 || len(p.Spec.InitContainers[0].VolumeMounts) != 1 || len(p.Spec.Containers[0].VolumeMounts) != 1 ||
		p.Spec.Containers[0].VolumeMounts[0].Name != p.Spec.Volumes[0].Name || !cmp.Equal(p.Spec.Containers[1].VolumeMounts, own) {
		t.Errorf("%+v", p.Spec)
	}
	before := p.DeepCopy()
	if mountToken(p); !cmp.Equal(before, p) {
		t.Error("a second time changed it")
	}
	none := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "b", VolumeMounts: own}}}}
	if mountToken(none); len(none.Spec.Volumes) != 0 {
		t.Error("a volume that nobody mounts")
	}
}

func TestAutomount(t *testing.T) {
	yes, no := true, false
	for _, tt := range []struct {
		account, pod *bool
		want         bool
	}{{nil, nil, true}, {&no, nil, false}, {&no, &yes, true}, {&yes, &no, false}, {nil, &no, false}} {
		got := automount(&corev1.ServiceAccount{AutomountServiceAccountToken: tt.account}, &corev1.Pod{Spec: corev1.PodSpec{AutomountServiceAccountToken: tt.pod}})
		if got != tt.want {
			t.Errorf("%v %v: %v", tt.account, tt.pod, got)
		}
	}
}

func TestMirrorPods(t *testing.T) {
	mirror := metav1.ObjectMeta{Name: "p", Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "x"}}
	secret := corev1.Volume{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}}
	token := corev1.Volume{VolumeSource: corev1.VolumeSource{Projected: tokenSource()}}
	for name, tt := range map[string]struct {
		spec corev1.PodSpec
		want string
	}{
		"plain":   {corev1.PodSpec{}, ""},
		"account": {corev1.PodSpec{ServiceAccountName: "a"}, "a mirror pod may not reference service accounts"},
		"secret":  {corev1.PodSpec{Volumes: []corev1.Volume{secret}}, "a mirror pod may not reference secrets"},
		"token":   {corev1.PodSpec{Volumes: []corev1.Volume{token}}, "a mirror pod may not use ServiceAccountToken volume projections"},
	} {
		p := &corev1.Pod{ObjectMeta: mirror, Spec: tt.spec}
		err := newServiceAccount(nil).Admit(t.Context(), creating(p), nil)
		if tt.want == "" && (err != nil || p.Spec.ServiceAccountName != "") || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
