package app

import "testing"

func TestWorthTrimming(t *testing.T) {
	const mb = 1 << 20
	for name, c := range map[string]struct {
		before, now heap
		want        bool
	}{
		"nothing to gain":     {heap{allocated: 100 * mb}, heap{allocated: 101 * mb, live: 30 * mb, objects: 32 * mb, unused: 1 * mb}, false},
		"garbage":             {heap{allocated: 100 * mb}, heap{allocated: 101 * mb, live: 30 * mb, objects: 45 * mb}, true},
		"unused memory":       {heap{allocated: 100 * mb}, heap{allocated: 100 * mb, live: 30 * mb, objects: 30 * mb, unused: 20 * mb}, true},
		"garbage while busy":  {heap{allocated: 100 * mb}, heap{allocated: 140 * mb, live: 30 * mb, objects: 70 * mb}, false},
		"less than was alive": {heap{allocated: 100 * mb}, heap{allocated: 100 * mb, live: 30 * mb, objects: 20 * mb}, false},
	} {
		if got := worthTrimming(c.before, c.now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
