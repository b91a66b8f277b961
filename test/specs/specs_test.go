package specs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const report = `[{"SpecReports": [
	{"LeafNodeType": "BeforeSuite", "State": "passed"},
	{"ContainerHierarchyTexts": ["[sig-node] Pods"], "LeafNodeText": "run", "LeafNodeType": "It", "State": "passed", "RunTime": 1000000000},
	{"ContainerHierarchyTexts": ["[sig-node] Pods"], "LeafNodeText": "end", "LeafNodeType": "It", "State": "timedout",
	 "Failure": {"Message": "waited\n  too long"}},
	{"LeafNodeText": "both", "LeafNodeType": "It", "State": "passed"},
	{"LeafNodeText": "both", "LeafNodeType": "It", "State": "failed", "Failure": {"Message": "no"}},
	{"LeafNodeText": "other", "LeafNodeType": "It", "State": "skipped"},
	{"LeafNodeText": "cannot", "LeafNodeType": "It", "State": "skipped", "Failure": {"Message": "needs two nodes"}}
]}]`

func TestJudge(t *testing.T) {
	file := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(file, []byte(report), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	want := []Spec{
		{Name: "[sig-node] Pods end", State: "timedout", Why: "waited too long"}, {Name: "[sig-node] Pods run", State: Passed, Took: time.Second},
		{Name: "both", State: Passed}, {Name: "both", State: Failed, Why: "no"}, {Name: "cannot", State: Skipped, Why: "needs two nodes"},
		{Name: "other", State: Skipped},
	}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Fatalf("specs (-want +got):\n%s", diff)
	}
	var out strings.Builder
	also, err := Judge(&out, all, nil)
	if diff := cmp.Diff([]string{"[sig-node] Pods run"}, also); diff != "" || err != nil {
		t.Errorf("with an empty list: %v, what passes beyond it (-want +got):\n%s", err, diff)
	}
	wantOut := "failed: [sig-node] Pods end\n    waited too long\nfailed: both\n    no\nskipped: cannot\n    needs two nodes\n" +
		"6 specs: 2 passed, 2 failed, 2 skipped, 0 pending\n"
	if diff := cmp.Diff(wantOut, out.String()); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
	for name, state := range map[string]string{"[sig-node] Pods end": "failed", "both": "failed", "cannot": "skipped", "other": "skipped",
		"unheard of": "it did not run"} {
		want := fmt.Sprintf("%q should pass, but: %s", name, state)
		if _, err := Judge(&out, all, []string{name, "[sig-node] Pods run"}); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	if also, err := Judge(&out, all, []string{"[sig-node] Pods run"}); err != nil || len(also) != 0 {
		t.Errorf("a list that holds: %v, %v", also, err)
	}
}
