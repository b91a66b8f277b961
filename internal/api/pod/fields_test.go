package pod

import (
	"flag"
	"os"
	"reflect"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestEveryFieldIsKnown walks the whole PodSpec and sets one field at a time. Each is either refused, with its own path, or listed in the
// golden file as supported. A field that is new in the API fails here until somebody decides.
func TestEveryFieldIsKnown(t *testing.T) {
	w := &walker{root: reflect.TypeFor[corev1.PodSpec]()}
	w.structFields(w.root, nil, nil)
	sort.Strings(w.lines)
	got := strings.Join(w.lines, "\n") + "\n"
	const golden = "testdata/fields.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("fields of PodSpec (-known +found):\n%s", diff)
	}
}

// walker visits the fields of a type by their JSON paths, with the field indexes that lead there.
type walker struct {
	root  reflect.Type
	lines []string
}

func (w *walker) structFields(t reflect.Type, names []string, indexes []int) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		at := append(append([]int{}, indexes...), i)
		if name == "" { // embedded
			w.structFields(f.Type, names, at)
			continue
		}
		path := append(append([]string{}, names...), name)
		if w.refuses(at, path) {
			w.lines = append(w.lines, "refused   "+strings.Join(path, "."))
			continue
		}
		w.lines = append(w.lines, "supported "+strings.Join(path, "."))
		if name == "initContainers" || name == "ephemeralContainers" {
			continue // the same fields as those of containers, looked at by the same code
		}
		elem := f.Type
		for elem.Kind() == reflect.Pointer || elem.Kind() == reflect.Slice {
			elem = elem.Elem()
		}
		if elem.Kind() == reflect.Struct && strings.HasPrefix(elem.PkgPath(), "k8s.io/api/") {
			w.structFields(elem, path, at)
		}
	}
}

// refuses sets only the field at these indexes and looks whether that is refused, at its path.
func (w *walker) refuses(indexes []int, path []string) bool {
	spec := reflect.New(w.root)
	v := spec.Elem()
	for _, i := range indexes {
		v = v.Field(i)
		for v.Kind() == reflect.Pointer || v.Kind() == reflect.Slice {
			if v.Kind() == reflect.Pointer {
				v.Set(reflect.New(v.Type().Elem()))
				v = v.Elem()
				continue
			}
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			v = v.Index(0)
		}
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(path[len(path)-1] != "hostUsers") // the one field whose false asks for something
	case reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
	}
	want := "spec." + strings.Join(path, ".")
	for _, e := range unsupportedSpec(field.NewPath("spec"), spec.Interface().(*corev1.PodSpec)) {
		if strings.ReplaceAll(e.Field, "[0]", "") == want {
			return true
		}
	}
	return false
}
