package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// spec is one of the judge's.
type spec struct {
	name, state, why string
}

// The states that a spec can end in, as the judge's framework words them.
const (
	passed  = "passed"
	skipped = "skipped"
	pending = "pending"
)

// read takes the specs out of a report in ginkgo's JSON form.
func read(path string) ([]spec, error) {
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
			Failure                 struct{ Message string }
		}
	}
	if err := json.Unmarshal(raw, &suites); err != nil {
		return nil, err
	}
	var specs []spec
	for _, s := range suites {
		for _, r := range s.SpecReports {
			if r.LeafNodeType != "It" {
				continue
			}
			why := strings.Join(strings.Fields(r.Failure.Message), " ")
			why = why[:min(len(why), 400)]
			specs = append(specs, spec{strings.Join(append(r.ContainerHierarchyTexts, r.LeafNodeText), " "), r.State, why})
		}
	}
	slices.SortFunc(specs, func(a, b spec) int { return strings.Compare(a.name, b.name) })
	if len(specs) == 0 {
		return nil, errors.New("the judge ran nothing")
	}
	return specs, nil
}

// list reads the names of specs that must pass: one a line, # for remarks.
func list(path string) ([]string, error) {
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

// judge prints what did not pass and the figures, and returns an error if a spec that must pass did not. Of specs that share a name all
// must pass.
func judge(w io.Writer, specs []spec, must []string) error {
	count, state := map[string]int{}, map[string]string{}
	for _, s := range specs {
		kind := s.state
		if kind != passed && kind != skipped && kind != pending {
			kind = "failed"
		}
		count[kind]++
		if kind != passed && (kind != skipped || s.why != "") { // one that was not asked for has no reason
			fmt.Fprintf(w, "%s: %s\n    %s\n", kind, s.name, s.why)
		}
		if state[s.name] == "" || state[s.name] == passed {
			state[s.name] = kind
		}
	}
	var bad []string
	for _, name := range must {
		if state[name] != passed {
			bad = append(bad, fmt.Sprintf("%q should pass, but: %s", name, max(state[name], "it did not run")))
		}
	}
	for name, s := range state {
		if s == passed && !slices.Contains(must, name) {
			fmt.Fprintf(w, "passes, and is not in the list yet: %s\n", name)
		}
	}
	fmt.Fprintf(w, "%d specs: %d passed, %d failed, %d skipped, %d pending\n", len(specs), count[passed], count["failed"], count[skipped], count[pending])
	if len(bad) > 0 {
		return errors.New(strings.Join(bad, "\n"))
	}
	return nil
}
