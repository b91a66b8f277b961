package internal

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDependenciesAreListed holds DEPENDENCIES.md to what go.mod requires directly, each with a reason.
func TestDependenciesAreListed(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{if not (or .Main .Indirect)}}{{.Path}}{{end}}", "all").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	required := strings.Fields(string(out))
	slices.Sort(required)
	if diff := cmp.Diff(required, rows(t, "Direct requirements")); diff != "" {
		t.Errorf("go.mod's direct requirements and the table of DEPENDENCIES.md differ (-go.mod +table):\n%s", diff)
	}
}

// TestDenyListIsTold holds the deny list that is told to the one that is tested.
func TestDenyListIsTold(t *testing.T) {
	want := slices.Sorted(slices.Values(denied))
	if diff := cmp.Diff(want, rows(t, "What may never be linked in")); diff != "" {
		t.Errorf("the deny lists of imports_test.go and DEPENDENCIES.md differ (-test +table):\n%s", diff)
	}
}

// row is a row of a table: a module's path, and a reason that is not empty.
var row = regexp.MustCompile(`^\| ([\w-]+\.[\w.-]+/\S+) \| \S[^|]+ \|$`)

// rows gives the modules in the table under a heading of DEPENDENCIES.md, sorted.
func rows(t *testing.T, heading string) []string {
	t.Helper()
	raw, err := os.ReadFile("../DEPENDENCIES.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(raw), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("DEPENDENCIES.md has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var names []string
	for line := range strings.Lines(section) {
		if m := row.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			names = append(names, m[1])
		}
	}
	slices.Sort(names)
	return names
}
