package main

import (
	"fmt"
	"regexp"
	"strings"
)

// choice says which specs run.
type choice struct{ set, focus, skip string }

// labels is the choice's set as ginkgo's filter. Specs of features that are not in every cluster are not in any set.
func (c choice) labels() string {
	if c.set == "nodeconformance" {
		return "NodeConformance && !Conformance && Feature: isEmpty"
	}
	return "Conformance"
}

// of gives the names that are chosen.
func (c choice) of(names []string) ([]string, error) {
	focus, err := regexp.Compile(c.focus)
	if err != nil {
		return nil, fmt.Errorf("focus: %w", err)
	}
	skip, err := regexp.Compile(c.skip)
	if err != nil {
		return nil, fmt.Errorf("skip: %w", err)
	}
	if c.set != "conformance" && c.set != "nodeconformance" {
		return nil, fmt.Errorf("there is no set of specs %q: conformance or nodeconformance", c.set)
	}
	var out []string
	for _, n := range names {
		if strings.Contains(n, "[Conformance]") == (c.set == "conformance") && focus.MatchString(n) && (c.skip == "" || !skip.MatchString(n)) {
			out = append(out, n)
		}
	}
	return out, nil
}
