package app

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"carob.dev/carob/internal/agent/shutdown"
	podrule "carob.dev/carob/internal/api/pod"
	"carob.dev/carob/internal/config"
)

func TestShutdownPeriods(t *testing.T) {
	const s = time.Second
	for name, v := range map[string]struct {
		set  config.Shutdown
		want []shutdown.Period
	}{
		"nothing is asked for": {config.Shutdown{}, nil},
		"two settings":         {config.Shutdown{Total: 30 * s, Critical: 10 * s}, []shutdown.Period{{Priority: 0, Grace: 20 * s}, {Priority: podrule.SystemCritical, Grace: 10 * s}}},
		"by priority": {config.Shutdown{ByPriority: map[string]string{"-5": "1s", "100": "1m"}},
			[]shutdown.Period{{Priority: -5, Grace: s}, {Priority: 100, Grace: 60 * s}}},
	} {
		got := shutdownPeriods(v.set)
		if d := cmp.Diff(v.want, got, cmpopts.SortSlices(func(a, b shutdown.Period) bool { return a.Priority < b.Priority })); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
