// Package specs reads what outside judges that are written with ginkgo found, and holds it to a list of what must pass.
package specs

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// Spec is one of a judge's, as it ended.
type Spec struct {
	Name, State string
	// Why it failed or was skipped, in one line; empty for one that was not asked for.
	Why  string
	Took time.Duration
}

// The states that a spec can end in, as ginkgo words them; all others are failures.
const (
	Passed  = "passed"
	Skipped = "skipped"
	Pending = "pending"
	Failed  = "failed"
)

// AskedFor says that the spec was chosen, by whatever chose.
func (s Spec) AskedFor() bool { return s.State != Skipped && s.State != Pending || s.Why != "" }

// ByName orders specs.
func ByName(a, b Spec) int { return strings.Compare(a.Name, b.Name) }

// Read takes the specs out of a report in ginkgo's JSON form.
func Read(path string) ([]Spec, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var suites []struct {
		SpecReports []struct {
			ContainerHierarchyTexts []string
			LeafNodeType            string
			LeafNodeText            string
			State                   string
			RunTime                 time.Duration
			Failure                 struct{ Message string }
		}
	}
	if err := json.Unmarshal(raw, &suites); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var all []Spec
	for _, s := range suites {
		for _, r := range s.SpecReports {
			if r.LeafNodeType != "It" {
				continue
			}
			why := strings.Join(strings.Fields(r.Failure.Message), " ")
			why = why[:min(len(why), 400)]
			all = append(all, Spec{strings.Join(append(r.ContainerHierarchyTexts, r.LeafNodeText), " "), r.State, why, r.RunTime})
		}
	}
	slices.SortFunc(all, ByName)
	if len(all) == 0 {
		return nil, errors.New("the judge ran nothing")
	}
	return all, nil
}

// List reads the names of specs that must pass: one a line, # for remarks.
func List(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if line := strings.TrimSpace(s.Text()); line != "" && !strings.HasPrefix(line, "#") {
			names = append(names, line)
		}
	}
	return names, nil
}

// Judge prints what did not pass and the figures, and returns the names that passed and are not among those that must, sorted, and an error if
// one that must pass did not. Of specs that share a name all must pass.
func Judge(w io.Writer, all []Spec, must []string) (also []string, err error) {
	count, state := map[string]int{}, map[string]string{}
	for _, s := range all {
		kind := s.State
		if kind != Passed && kind != Skipped && kind != Pending {
			kind = Failed
		}
		count[kind]++
		if kind != Passed && s.AskedFor() {
			fmt.Fprintf(w, "%s: %s\n    %s\n", kind, s.Name, s.Why)
		}
		if state[s.Name] == "" || state[s.Name] == Passed {
			state[s.Name] = kind
		}
	}
	for _, name := range must {
		if state[name] != Passed {
			err = errors.Join(err, fmt.Errorf("%q should pass, but: %s", name, cmp.Or(state[name], "it did not run")))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(state)) {
		if state[name] == Passed && !slices.Contains(must, name) {
			also = append(also, name)
		}
	}
	fmt.Fprintf(w, "%d specs: %d passed, %d failed, %d skipped, %d pending\n", len(all), count[Passed], count[Failed], count[Skipped], count[Pending])
	return also, err
}
