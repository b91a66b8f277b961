package shutdown

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	podrule "carob.dev/carob/internal/api/pod"
)

const s = time.Second

func TestGroups(t *testing.T) {
	pod := func(uid types.UID, priority int32, grace time.Duration) Pod {
		return Pod{UID: uid, Priority: priority, Grace: grace}
	}
	for name, v := range map[string]struct {
		periods []Period
		pods    []Pod
		want    []group
	}{
		"none": {Periods(30*s, 10*s), nil, []group{}},
		"the system last": {Periods(30*s, 10*s), []Pod{pod("c", podrule.SystemCritical, 60*s), pod("a", 0, 5*s), pod("b", 1000, 60*s)},
			[]group{{20 * s, []Pod{pod("a", 0, 5*s), pod("b", 1000, 20*s)}}, {10 * s, []Pod{pod("c", podrule.SystemCritical, 10*s)}}}},
		"below the lowest": {[]Period{{100, 7 * s}, {10, 3 * s}}, []Pod{pod("a", -5, 60*s), pod("b", 99, s), pod("c", 100, 60*s)},
			[]group{{3 * s, []Pod{pod("a", -5, 3*s), pod("b", 99, s)}}, {7 * s, []Pod{pod("c", 100, 7*s)}}}},
		"only the system": {Periods(30*s, 30*s), []Pod{pod("c", podrule.SystemCritical+1000, 5*s)}, []group{{30 * s, []Pod{pod("c", podrule.SystemCritical+1000, 5*s)}}}},
	} {
		if d := cmp.Diff(v.want, groups(v.periods, v.pods), cmp.AllowUnexported(group{})); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	if Periods(0, 0) != nil || Total(Periods(30*s, 10*s)) != 30*s {
		t.Error("the periods of plain settings")
	}
}
