package registry

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/kubernetes/scheme"

	"carob.dev/carob/internal/api"
)

// calls is a kind that notes what it was asked.
func calls(log *[]string) *api.Kind {
	note := func(what string) { *log = append(*log, what) }
	errs := func(what string) field.ErrorList {
		note(what)
		return field.ErrorList{field.Required(field.NewPath(what), "")}
	}
	return &api.Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ConfigMap"), Resource: "configmaps", Namespaced: true,
		PrepareForCreate: func(context.Context, runtime.Object) { note("prepare create") },
		PrepareForUpdate: func(context.Context, runtime.Object, runtime.Object) { note("prepare update") },
		Validate:         func(context.Context, runtime.Object) field.ErrorList { return errs("validate") },
		ValidateUpdate:   func(context.Context, runtime.Object, runtime.Object) field.ErrorList { return errs("validate update") },
		Warnings: func(_ context.Context, _, old runtime.Object) []string {
			note(fmt.Sprint("warn ", old != nil))
			return []string{"w"}
		},
		AllowCreateOnUpdate: true, AllowUnconditionalUpdate: true,
		Graceful: func(context.Context, runtime.Object, *metav1.DeleteOptions) bool { note("graceful"); return true },
	}
}

func TestStrategyAsksTheKind(t *testing.T) {
	ctx := t.Context()
	obj := &corev1.ConfigMap{}
	for _, tt := range []struct {
		name string
		do   func(s strategy) any
		want any
		log  []string
	}{
		{"prepare create", func(s strategy) any { s.PrepareForCreate(ctx, obj); return nil }, nil, []string{"prepare create"}},
		{"prepare update", func(s strategy) any { s.PrepareForUpdate(ctx, obj, obj); return nil }, nil, []string{"prepare update"}},
		{"validate", func(s strategy) any { return len(s.Validate(ctx, obj)) }, 1, []string{"validate"}},
		{"validate update", func(s strategy) any { return len(s.ValidateUpdate(ctx, obj, obj)) }, 1, []string{"validate update"}},
		{"warn create", func(s strategy) any { return len(s.WarningsOnCreate(ctx, obj)) }, 1, []string{"warn false"}},
		{"warn update", func(s strategy) any { return len(s.WarningsOnUpdate(ctx, obj, obj)) }, 1, []string{"warn true"}},
		{"create by update", func(s strategy) any { return s.AllowCreateOnUpdate(ctx) }, true, nil},
		{"unconditional", func(s strategy) any { return s.AllowUnconditionalUpdate(ctx) }, true, nil},
		{"scope", func(s strategy) any { return s.NamespaceScoped() }, true, nil},
		{"graceful", func(s strategy) any { return gracefulStrategy{s}.CheckGracefulDelete(ctx, obj, nil) }, true, []string{"graceful"}},
		{"dependents", func(s strategy) any { return s.DefaultGarbageCollectionPolicy(ctx) }, rest.DeleteDependents, nil},
		{"a subresource never creates", func(s strategy) any {
			return subresourceStrategy{s, &api.Subresource{}}.AllowCreateOnUpdate(ctx)
		}, false, nil},
		{"a subresource has checks of its own", func(s strategy) any {
			sub := subresourceStrategy{s, &api.Subresource{}}
			sub.PrepareForUpdate(ctx, obj, obj)
			return len(sub.ValidateUpdate(ctx, obj, obj)) + len(sub.WarningsOnUpdate(ctx, obj, obj))
		}, 0, nil},
	} {
		var log []string
		if got := tt.do(newStrategy(calls(&log), scheme.Scheme)); !cmp.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		if diff := cmp.Diff(tt.log, log); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestStrategyOfAKindWithoutFunctions(t *testing.T) {
	s := newStrategy(&api.Kind{OrphanByDefault: true}, scheme.Scheme)
	obj := &corev1.ConfigMap{}
	s.PrepareForCreate(t.Context(), obj)
	s.PrepareForUpdate(t.Context(), obj, obj)
	if n := len(s.Validate(t.Context(), obj)) + len(s.ValidateUpdate(t.Context(), obj, obj)) + len(s.WarningsOnCreate(t.Context(), obj)); n != 0 {
		t.Errorf("%d complaints out of nothing", n)
	}
	if p := s.DefaultGarbageCollectionPolicy(t.Context()); p != rest.OrphanDependents {
		t.Error(p)
	}
}

func TestResetFields(t *testing.T) {
	kind := &api.Kind{GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Pod")}
	if newResetFields(kind) != nil {
		t.Error("a set without fields")
	}
	set := newResetFields(kind, "spec", "metadata.deletionTimestamp").GetResetFields()["v1"]
	if got := set.String(); got != ".spec\n.metadata.deletionTimestamp" {
		t.Errorf("%q", got)
	}
}

func TestTable(t *testing.T) {
	remaining := int64(3)
	kind := &api.Kind{
		Columns: []metav1.TableColumnDefinition{{Name: "Name"}},
		Row:     func(obj runtime.Object) ([]any, error) { return []any{obj.(*corev1.Pod).Name}, nil },
		Completed: func(runtime.Object) []metav1.TableRowCondition {
			return []metav1.TableRowCondition{{Type: metav1.RowCompleted}}
		},
	}
	pod := func(name string) corev1.Pod {
		return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: "7"}}
	}
	list := &corev1.PodList{
		ListMeta: metav1.ListMeta{ResourceVersion: "9", Continue: "c", RemainingItemCount: &remaining}, Items: []corev1.Pod{pod("a"), pod("b")},
	}
	got, err := table{kind}.ConvertToTable(t.Context(), list, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.ResourceVersion != "9" || got.Continue != "c" || *got.RemainingItemCount != 3 || len(got.ColumnDefinitions) != 1 || len(got.Rows) != 2 ||
		!cmp.Equal(got.Rows[1].Cells, []any{"b"}) || got.Rows[0].Object.Object != runtime.Object(&list.Items[0]) || len(got.Rows[0].Conditions) != 1 {
		t.Errorf("%+v", got)
	}
	one := pod("x")
	got, err = table{kind}.ConvertToTable(t.Context(), &one, &metav1.TableOptions{NoHeaders: true})
	if err != nil || got.ResourceVersion != "7" || len(got.Rows) != 1 || got.ColumnDefinitions != nil {
		t.Errorf("%+v %v", got, err)
	}
	kind.Row = func(runtime.Object) ([]any, error) { return nil, errors.New("no") }
	if _, err := (table{kind}).ConvertToTable(t.Context(), list, nil); err == nil {
		t.Error("an error got lost")
	}
}

func TestAttributesAndIndex(t *testing.T) {
	kind := &api.Kind{Namespaced: true, Fields: func(obj runtime.Object) fields.Set {
		return fields.Set{"spec.nodeName": obj.(*corev1.Pod).Spec.NodeName}
	}}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{NodeName: "x"}}
	gotLabels, gotFields, err := attributes(kind)(p)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(labels.Set{"a": "b"}, gotLabels); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(fields.Set{"metadata.name": "p", "metadata.namespace": "n", "spec.nodeName": "x"}, gotFields); diff != "" {
		t.Error(diff)
	}
	trigger, indexers := triggers(attributes(kind), "spec.nodeName")
	if got := trigger["spec.nodeName"](p); got != "x" {
		t.Errorf("trigger %q", got)
	}
	if got, err := (*indexers)["f:spec.nodeName"](p); err != nil || !cmp.Equal(got, []string{"x"}) {
		t.Errorf("index %v %v", got, err)
	}
}
