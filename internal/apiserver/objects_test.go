package apiserver_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
)

func configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}
}

func TestCreateReadUpdateDelete(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	maps := f.kube.CoreV1().ConfigMaps("default")
	c := must[*corev1.ConfigMap](t)(maps.Create(ctx, configMap("a", map[string]string{"k": "v"}), metav1.CreateOptions{}))
	if c.UID == "" || c.ResourceVersion == "" || c.CreationTimestamp.IsZero() {
		t.Errorf("system fields: %+v", c.ObjectMeta)
	}
	if _, err := maps.Create(ctx, configMap("a", nil), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("second create: %v", err)
	}
	c.Data["k"] = "w"
	stale := c.DeepCopy()
	c = must[*corev1.ConfigMap](t)(maps.Update(ctx, c, metav1.UpdateOptions{}))
	if _, err := maps.Update(ctx, stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("stale update: %v", err)
	}
	got := must[*corev1.ConfigMap](t)(maps.Get(ctx, "a", metav1.GetOptions{}))
	if diff := cmp.Diff(c.Data, got.Data); diff != "" {
		t.Error(diff)
	}
	wrong := types.UID("other")
	if err := maps.Delete(ctx, "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &wrong}}); !apierrors.IsConflict(err) {
		t.Errorf("delete of another: %v", err)
	}
	if err := maps.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := maps.Get(ctx, "a", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("deleted: %v", err)
	}
	if _, err := f.kube.CoreV1().ConfigMaps("nowhere").Create(ctx, configMap("a", nil), metav1.CreateOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("create in a namespace that is not there: %v", err)
	}
}

func TestPatches(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	maps := f.kube.CoreV1().ConfigMaps("default")
	must[*corev1.ConfigMap](t)(maps.Create(ctx, configMap("a", map[string]string{"x": "1"}), metav1.CreateOptions{}))
	for _, tt := range []struct {
		kind  types.PatchType
		patch string
		want  map[string]string
	}{
		{types.JSONPatchType, `[{"op":"add","path":"/data/y","value":"2"}]`, map[string]string{"x": "1", "y": "2"}},
		{types.MergePatchType, `{"data":{"x":null}}`, map[string]string{"y": "2"}},
		{types.StrategicMergePatchType, `{"data":{"z":"3"}}`, map[string]string{"y": "2", "z": "3"}},
		{types.ApplyPatchType, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"w":"4"}}`,
			map[string]string{"w": "4", "y": "2", "z": "3"}},
	} {
		opts := metav1.PatchOptions{FieldManager: "test"}
		c, err := maps.Patch(ctx, "a", tt.kind, []byte(tt.patch), opts)
		if err != nil {
			t.Fatalf("%s: %v", tt.kind, err)
		}
		if diff := cmp.Diff(tt.want, c.Data); diff != "" {
			t.Errorf("%s: %s", tt.kind, diff)
		}
	}
}

func TestServerSideApply(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	maps := f.kube.CoreV1().ConfigMaps("default")
	apply := func(owner, value string, force bool) error {
		_, err := maps.Apply(ctx, applycorev1.ConfigMap("a", "default").WithData(map[string]string{"k": value}),
			metav1.ApplyOptions{FieldManager: owner, Force: force})
		return err
	}
	if err := apply("one", "1", false); err != nil {
		t.Fatal(err)
	}
	if err := apply("two", "2", false); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `conflict with "one"`) {
		t.Errorf("an apply over another's field: %v", err)
	}
	if err := apply("two", "2", true); err != nil {
		t.Error(err)
	}
	c := must[*corev1.ConfigMap](t)(maps.Get(ctx, "a", metav1.GetOptions{}))
	var owners []string
	for _, m := range c.ManagedFields {
		owners = append(owners, m.Manager)
	}
	if diff := cmp.Diff([]string{"two"}, owners); diff != "" {
		t.Error(diff)
	}
}

func TestDryRun(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	maps := f.kube.CoreV1().ConfigMaps("default")
	dry := []string{metav1.DryRunAll}
	must[*corev1.ConfigMap](t)(maps.Create(ctx, configMap("a", nil), metav1.CreateOptions{DryRun: dry}))
	if _, err := maps.Get(ctx, "a", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a dry create stored: %v", err)
	}
	c := must[*corev1.ConfigMap](t)(maps.Create(ctx, configMap("a", nil), metav1.CreateOptions{}))
	c.Data = map[string]string{"k": "v"}
	must[*corev1.ConfigMap](t)(maps.Update(ctx, c, metav1.UpdateOptions{DryRun: dry}))
	if err := maps.Delete(ctx, "a", metav1.DeleteOptions{DryRun: dry}); err != nil {
		t.Error(err)
	}
	if got := must[*corev1.ConfigMap](t)(maps.Get(ctx, "a", metav1.GetOptions{})); got.Data != nil {
		t.Errorf("a dry update stored: %v", got.Data)
	}
}

func TestListPagesAndSelectors(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	maps := f.kube.CoreV1().ConfigMaps("default")
	for i := range 10 {
		c := configMap(fmt.Sprint("m", i), nil)
		c.Labels = map[string]string{"odd": fmt.Sprint(i%2 == 1)}
		must[*corev1.ConfigMap](t)(maps.Create(ctx, c, metav1.CreateOptions{}))
	}
	var names []string
	opts := metav1.ListOptions{Limit: 4}
	pages := 0
	for {
		list := must[*corev1.ConfigMapList](t)(maps.List(ctx, opts))
		for _, c := range list.Items {
			names = append(names, c.Name)
		}
		pages++
		if opts.Continue = list.Continue; opts.Continue == "" {
			break
		}
		if list.RemainingItemCount == nil {
			t.Error("no remaining item count")
		}
	}
	if pages != 3 || len(names) != 10 || !slices.IsSorted(names) {
		t.Errorf("%d pages: %v", pages, names)
	}
	if list := must[*corev1.ConfigMapList](t)(maps.List(ctx, metav1.ListOptions{LabelSelector: "odd=true"})); len(list.Items) != 5 {
		t.Errorf("%d odd ones", len(list.Items))
	}
	if list := must[*corev1.ConfigMapList](t)(maps.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=m3"})); len(list.Items) != 1 {
		t.Errorf("%d named m3", len(list.Items))
	}
	if _, err := maps.List(ctx, metav1.ListOptions{FieldSelector: "data.x=y"}); !apierrors.IsBadRequest(err) {
		t.Errorf("unknown field: %v", err)
	}
	if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "odd=true"}); err != nil {
		t.Error(err)
	}
	if list := must[*corev1.ConfigMapList](t)(maps.List(ctx, metav1.ListOptions{ResourceVersion: ""})); len(list.Items) != 5 {
		t.Errorf("%d left", len(list.Items))
	}
}

func TestWatch(t *testing.T) {
	f := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, kube := range []string{"TLS", "in process"} {
		t.Run(kube, func(t *testing.T) {
			client := f.kube
			if kube != "TLS" {
				client = f.own
			}
			maps := client.CoreV1().ConfigMaps("default")
			name := strings.ReplaceAll(strings.ToLower(kube), " ", "-")
			must[*corev1.ConfigMap](t)(maps.Create(ctx, configMap(name, nil), metav1.CreateOptions{}))
			all := true
			w, err := maps.Watch(ctx, metav1.ListOptions{
				SendInitialEvents: &all, AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
				FieldSelector: "metadata.name=" + name,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			next := func() watch.Event {
				t.Helper()
				select {
				case e := <-w.ResultChan():
					return e
				case <-ctx.Done():
					t.Fatal("no event")
					return watch.Event{}
				}
			}
			if e := next(); e.Type != watch.Added {
				t.Errorf("first %v", e)
			}
			if e := next(); e.Type != watch.Bookmark || e.Object.(*corev1.ConfigMap).Annotations[metav1.InitialEventsAnnotationKey] != "true" {
				t.Errorf("end of what was there: %v", e)
			}
			if _, err := maps.Patch(ctx, name, types.MergePatchType, []byte(`{"data":{"a":"b"}}`), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			if e := next(); e.Type != watch.Modified || e.Object.(*corev1.ConfigMap).Data["a"] != "b" {
				t.Errorf("change: %v", e)
			}
			if err := maps.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if e := next(); e.Type != watch.Deleted {
				t.Errorf("end: %v", e)
			}
		})
	}
}

func TestStrictFields(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	post := func(body, validation string) error {
		return f.kube.CoreV1().RESTClient().Post().Namespace("default").Resource("configmaps").Param("fieldValidation", validation).
			SetHeader("Content-Type", "application/json").Body([]byte(body)).Do(ctx).Error()
	}
	unknown := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"dta":{}}`
	err := post(unknown, "Strict")
	if !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), `strict decoding error: unknown field "dta"`) {
		t.Errorf("unknown field: %v", err)
	}
	twice := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"1"},"data":{"x":"2"}}`
	if err := post(twice, "Strict"); !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), `duplicate field "data"`) {
		t.Errorf("duplicate field: %v", err)
	}
	if err := post(unknown, "Ignore"); err != nil {
		t.Error(err)
	}
	if err := post(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"},"data":"text"}`, "Strict"); !apierrors.IsBadRequest(err) {
		t.Errorf("wrong type: %v", err)
	}
}

func TestTable(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	must[*corev1.ConfigMap](t)(f.kube.CoreV1().ConfigMaps("default").Create(ctx, configMap("a", map[string]string{"x": "1", "y": "2"}), metav1.CreateOptions{}))
	var table metav1.Table
	err := f.kube.CoreV1().RESTClient().Get().Namespace("default").Resource("configmaps").
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").Do(ctx).Into(&table)
	if err != nil {
		t.Fatal(err)
	}
	var columns []string
	for _, c := range table.ColumnDefinitions {
		columns = append(columns, c.Name)
	}
	if diff := cmp.Diff([]string{"Name", "Data", "Age"}, columns); diff != "" {
		t.Error(diff)
	}
	if len(table.Rows) != 1 || fmt.Sprint(table.Rows[0].Cells[:2]) != "[a 2]" {
		t.Errorf("rows: %+v", table.Rows)
	}
	if table.ResourceVersion == "" || table.Rows[0].Object.Raw == nil {
		t.Error("no resource version, or no object")
	}
}

// TestManyWatches has more watches on one in-process client than an HTTP/2 connection carries.
func TestManyWatches(t *testing.T) {
	f := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	maps := f.own.CoreV1().ConfigMaps("default")
	var all []watch.Interface
	for range 600 {
		w, err := maps.Watch(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		all = append(all, w)
	}
	must[*corev1.ConfigMap](t)(maps.Create(ctx, configMap("a", nil), metav1.CreateOptions{}))
	for i, w := range all {
		select {
		case <-w.ResultChan():
		case <-ctx.Done():
			t.Fatalf("watch %d heard nothing", i)
		}
	}
}
