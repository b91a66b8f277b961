package registry

import (
	"strings"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"carob.dev/carob/internal/api"
)

// resetFields tells server-side apply which fields an endpoint does not own: they never belong to who applies there.
type resetFields map[fieldpath.APIVersion]*fieldpath.Set

// GetResetFields implements rest.ResetFieldsStrategy.
func (r resetFields) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set { return r }

// newResetFields makes the set of paths, each names joined by dots, of a kind's only version. Nil if there are none.
func newResetFields(kind *api.Kind, paths ...string) resetFields {
	if len(paths) == 0 {
		return nil
	}
	set := fieldpath.NewSet()
	for _, p := range paths {
		var elements []any
		for name := range strings.SplitSeq(p, ".") {
			elements = append(elements, name)
		}
		set.Insert(fieldpath.MakePathOrDie(elements...))
	}
	return resetFields{fieldpath.APIVersion(kind.GroupVersion().String()): set}
}

// resetFilter tells server-side apply which fields an endpoint owns.
type resetFilter map[fieldpath.APIVersion]fieldpath.Filter

// newOwnFields makes the filter that lets only these paths through, with * for any entry of a list.
func newOwnFields(kind *api.Kind, paths ...string) resetFilter {
	var owned []*fieldpath.SetMatcher
	for _, p := range paths {
		var elements []any
		for name := range strings.SplitSeq(p, ".") {
			if name == "*" {
				elements = append(elements, fieldpath.MatchAnyPathElement())
			} else {
				elements = append(elements, name)
			}
		}
		owned = append(owned, fieldpath.MakePrefixMatcherOrDie(elements...))
	}
	return resetFilter{fieldpath.APIVersion(kind.GroupVersion().String()): fieldpath.NewIncludeMatcherFilter(owned...)}
}
