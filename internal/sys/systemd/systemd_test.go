package systemd

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"carob.dev/carob/internal/sys"
)

func TestProperties(t *testing.T) {
	for name, c := range map[string]struct {
		r    sys.Resources
		v1   bool
		want string
	}{
		"nothing":   {want: ""},
		"some":      {r: sys.Resources{CPUShares: 102, CPUQuota: 20000, CPUPeriod: 100000, Memory: 1 << 20, PIDs: 10}, want: "CPUWeight=4 CPUQuotaPeriodUSec=100000 CPUQuotaPerSecUSec=200000 MemoryMax=1048576 TasksMax=10"},
		"v1":        {r: sys.Resources{CPUShares: 1, Memory: 1 << 20}, v1: true, want: "CPUShares=2 MemoryLimit=1048576"},
		"no limits": {r: sys.Resources{CPUQuota: -1, Memory: -1, PIDs: -1}, want: "CPUQuotaPerSecUSec=18446744073709551615 MemoryMax=18446744073709551615 TasksMax=18446744073709551615"},
		"rounded":   {r: sys.Resources{CPUQuota: 1500}, want: "CPUQuotaPeriodUSec=100000 CPUQuotaPerSecUSec=20000"},
	} {
		var got []string
		for _, p := range properties(c.r, !c.v1) {
			got = append(got, fmt.Sprintf("%s=%v", p.Name, p.Value.Value()))
		}
		if d := cmp.Diff(c.want, strings.Join(got, " ")); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
