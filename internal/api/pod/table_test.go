package pod

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// testdata/validation.txt is a Pod, a line "---", and cases: a line with a name and changes, parted by " | ", and below it the errors that
// Kubernetes 1.37 answers with, indented. A change is "/path/to/field = value in YAML". A name that begins with UPDATE, EPHEMERAL, RESIZE or STATUS is
// about a change of the Pod that there is; changes that begin with OLD make that one. With -update the errors are written anew, with
// POD_TABLE_DUMP=file the objects go to the file, one case a line, to be judged by others.
func TestValidationTable(t *testing.T) {
	const golden = "testdata/validation.txt"
	raw, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	base, script, ok := strings.Cut(string(raw), "---\n")
	if !ok {
		t.Fatal("no line --- between the Pod and the cases")
	}
	var dump *os.File
	if name := os.Getenv("POD_TABLE_DUMP"); name != "" {
		if dump, err = os.Create(name); err != nil {
			t.Fatal(err)
		}
		defer dump.Close()
	}
	var got strings.Builder
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "  ") {
			continue
		}
		c := newTableCase(t, base, line)
		got.WriteString(line + "\n")
		for _, e := range lines(c.judge()) {
			got.WriteString("  " + e + "\n")
		}
		if dump != nil {
			if err := json.NewEncoder(dump).Encode(c); err != nil {
				t.Fatal(err)
			}
		}
	}
	if *update {
		if err := os.WriteFile(golden, []byte(base+"---\n"+got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(strings.Split(script, "\n"), strings.Split(got.String(), "\n")); diff != "" && !*update {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

type tableCase struct {
	Mode     string
	New, Old *corev1.Pod
}

func newTableCase(t *testing.T, base, line string) *tableCase {
	t.Helper()
	parts := strings.Split(line, " | ")
	c := &tableCase{Mode: "create"}
	for _, mode := range []string{"UPDATE", "EPHEMERAL", "RESIZE", "STATUS"} {
		if strings.HasPrefix(line, mode+" ") {
			c.Mode = strings.ToLower(mode)
		}
	}
	var now, before any
	for _, tree := range []*any{&now, &before} {
		if err := yaml.Unmarshal([]byte(base), tree); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range parts[1:] {
		p, old := strings.CutPrefix(p, "OLD ")
		path, text, ok := strings.Cut(p, " = ")
		if !ok {
			t.Fatalf("%s: no value", line)
		}
		var value any
		if err := yaml.Unmarshal([]byte(text), &value); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if old {
			before = put(before, strings.Split(path, "/")[1:], value)
		}
		now = put(now, strings.Split(path, "/")[1:], value)
	}
	pod := func(tree any) *corev1.Pod {
		raw, err := json.Marshal(tree)
		p := &corev1.Pod{}
		if err == nil {
			err = json.Unmarshal(raw, p)
		}
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		Default(p)
		return p
	}
	c.New = pod(now)
	if c.Mode == "create" {
		PrepareForCreate(c.New)
		return c
	}
	c.Old = pod(before)
	was := c.Old.Status
	PrepareForCreate(c.Old)
	was.Phase, was.QOSClass = corev1.PodRunning, c.Old.Status.QOSClass
	c.Old.Status = was
	c.Old.ResourceVersion, c.New.ResourceVersion = "1", "1"
	c.Old.UID, c.New.Generation = "1", c.Old.Generation
	if c.New.UID == "" {
		c.New.UID = types.UID("1")
	}
	if c.New.Status.QOSClass == "" {
		c.New.Status.QOSClass = was.QOSClass
	}
	switch c.Mode {
	case "update":
		PrepareForUpdate(c.New, c.Old)
	case "ephemeral":
		PrepareEphemeral(c.New, c.Old)
	case "resize":
		PrepareResize(c.New, c.Old)
	case "status":
		PrepareStatus(c.New, c.Old)
	}
	return c
}

func (c *tableCase) judge() field.ErrorList {
	switch c.Mode {
	case "update":
		return ValidateUpdate(c.New, c.Old)
	case "ephemeral":
		return ValidateEphemeralUpdate(c.New, c.Old)
	case "resize":
		return ValidateResize(c.New, c.Old)
	case "status":
		return ValidateStatusUpdate(c.New, c.Old)
	}
	return Validate(c.New)
}

// put sets what is at a path of a tree of maps and lists, and makes the maps on the way.
func put(tree any, path []string, value any) any {
	if len(path) == 0 {
		return value
	}
	switch t := tree.(type) {
	case []any:
		i, err := strconv.Atoi(path[0])
		if err != nil || i >= len(t) {
			panic(fmt.Sprintf("no entry %s", path[0]))
		}
		t[i] = put(t[i], path[1:], value)
		return t
	case map[string]any:
		t[path[0]] = put(t[path[0]], path[1:], value)
		return t
	}
	return map[string]any{path[0]: put(nil, path[1:], value)}
}
