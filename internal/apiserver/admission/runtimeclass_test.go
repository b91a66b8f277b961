package admission

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

// classes are RuntimeClasses by name.
type classes struct {
	Lookup
	byName map[string]*nodev1.RuntimeClass
}

func (c classes) RuntimeClass(_ context.Context, name string) (*nodev1.RuntimeClass, error) {
	if class := c.byName[name]; class != nil {
		return class, nil
	}
	return nil, apierrors.NewNotFound(nodev1.Resource("runtimeclass"), name)
}

func TestRuntimeClass(t *testing.T) {
	memory := func(q string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(q)}
	}
	own := corev1.Toleration{Key: "own", Operator: corev1.TolerationOpExists}
	classed := corev1.Toleration{Key: "class", Value: "v", Effect: corev1.TaintEffectNoSchedule}
	objects := classes{byName: map[string]*nodev1.RuntimeClass{
		"plain": {Handler: "runc"},
		"full": {Handler: "runc", Overhead: &nodev1.Overhead{PodFixed: memory("10Mi")}, Scheduling: &nodev1.Scheduling{
			NodeSelector: map[string]string{"a": "class"}, Tolerations: []corev1.Toleration{classed}}},
	}}
	for _, tt := range []struct {
		name, class string
		spec, want  corev1.PodSpec
		err         string
	}{
		{name: "none"},
		{name: "plain", class: "plain"},
		{name: "unknown", class: "x", err: `pods "p" is forbidden: pod rejected: RuntimeClass "x" not found`},
		{name: "full", class: "full", want: corev1.PodSpec{Overhead: memory("10Mi"), NodeSelector: map[string]string{"a": "class"}, Tolerations: []corev1.Toleration{classed}}},
		{name: "merged", class: "full",
			spec: corev1.PodSpec{Overhead: memory("10Mi"), NodeSelector: map[string]string{"a": "class", "b": "own"}, Tolerations: []corev1.Toleration{own}},
			want: corev1.PodSpec{Overhead: memory("10Mi"), NodeSelector: map[string]string{"a": "class", "b": "own"}, Tolerations: []corev1.Toleration{own, classed}}},
		{name: "another node", class: "full", spec: corev1.PodSpec{NodeSelector: map[string]string{"a": "own"}},
			err: "conflict: runtimeClass.scheduling.nodeSelector[a] = class; pod.spec.nodeSelector[a] = own"},
		{name: "another overhead", class: "full", spec: corev1.PodSpec{Overhead: memory("1Mi")},
			err: "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"},
		{name: "overhead of no class", spec: corev1.PodSpec{Overhead: memory("1Mi")},
			err: "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"},
		{name: "overhead of a class without", class: "plain", spec: corev1.PodSpec{Overhead: memory("1Mi")},
			err: "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"},
	} {
		p := &corev1.Pod{Spec: tt.spec}
		if tt.class != "" {
			p.Spec.RuntimeClassName, tt.want.RuntimeClassName = ptr.To(tt.class), ptr.To(tt.class)
		}
		plugin := newRuntimeClass(objects)
		err := plugin.Admit(t.Context(), creating(p), nil)
		if err == nil {
			err = plugin.Validate(t.Context(), creating(p), nil)
		}
		if tt.err != "" {
			if err == nil || !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if d := cmp.Diff(tt.want, p.Spec); d != "" || err != nil {
			t.Errorf("%s: %v %s", tt.name, err, d)
		}
	}
}

func TestMergeTolerations(t *testing.T) {
	exists := func(key string, effect corev1.TaintEffect, seconds *int64) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect, TolerationSeconds: seconds}
	}
	equal := func(key, value string) corev1.Toleration { return corev1.Toleration{Key: key, Value: value} }
	all := exists("", "", nil)
	for name, tt := range map[string]struct{ a, b, want []corev1.Toleration }{
		"nothing":          {nil, nil, nil},
		"the same":         {[]corev1.Toleration{equal("k", "v")}, []corev1.Toleration{equal("k", "v")}, []corev1.Toleration{equal("k", "v")}},
		"another value":    {[]corev1.Toleration{equal("k", "v")}, []corev1.Toleration{equal("k", "w")}, []corev1.Toleration{equal("k", "v"), equal("k", "w")}},
		"any value":        {[]corev1.Toleration{equal("k", "v")}, []corev1.Toleration{exists("k", "", nil)}, []corev1.Toleration{exists("k", "", nil)}},
		"everything":       {[]corev1.Toleration{all}, []corev1.Toleration{exists("k", corev1.TaintEffectNoExecute, ptr.To[int64](1))}, []corev1.Toleration{all}},
		"longer":           {[]corev1.Toleration{exists("k", corev1.TaintEffectNoExecute, ptr.To[int64](9))}, []corev1.Toleration{exists("k", corev1.TaintEffectNoExecute, ptr.To[int64](1))}, []corev1.Toleration{exists("k", corev1.TaintEffectNoExecute, ptr.To[int64](9))}},
		"for ever, longer": {[]corev1.Toleration{exists("k", corev1.TaintEffectNoExecute, ptr.To[int64](9))}, []corev1.Toleration{exists("k", corev1.TaintEffectNoExecute, nil)}, []corev1.Toleration{exists("k", corev1.TaintEffectNoExecute, nil)}},
		"one effect": {[]corev1.Toleration{exists("k", corev1.TaintEffectNoSchedule, nil)}, []corev1.Toleration{exists("k", "", nil)},
			[]corev1.Toleration{exists("k", "", nil)}},
	} {
		if d := cmp.Diff(tt.want, mergeTolerations(tt.a, tt.b)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
