package sys

import (
	"fmt"
	"path"
	"strings"
)

// SliceEnd and ScopeEnd are the ends of the names of systemd's units that have cgroups: slices for groups of them, scopes for processes.
const (
	SliceEnd = ".slice"
	ScopeEnd = ".scope"
)

// ContainerScope is the scope of a container of carob's own runtime.
func ContainerScope(id string) string { return "carob-" + id + ScopeEnd }

// SlicePath is the path of the cgroup of a slice: a-b.slice is in a.slice. See systemd.slice(5).
func SlicePath(name string) (string, error) {
	stem, ok := strings.CutSuffix(name, SliceEnd)
	if !ok || stem == "" || strings.ContainsAny(name, "/\x00 ") || len(name) > 255 {
		return "", fmt.Errorf("%q is not the name of a slice", name)
	}
	all, above := "/", ""
	for part := range strings.SplitSeq(stem, "-") {
		if part == "" {
			return "", fmt.Errorf("%q is not the name of a slice: there is nothing before or after a dash", name)
		}
		above += part
		all = path.Join(all, above+SliceEnd)
		above += "-"
	}
	return all, nil
}
