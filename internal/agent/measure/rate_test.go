package measure

import (
	"testing"
	"time"
)

// TestRates walks through one cgroup's samples: each step is a time, the processor time used so far, and the rate that is to be told then.
func TestRates(t *testing.T) {
	type step struct {
		at, cpu time.Duration
		want    int // thousandths of a core; -1 for none
		window  time.Duration
	}
	for name, c := range map[string]struct {
		born  time.Duration // before the first step; 0 for unknown
		steps []step
	}{
		"first seen, then asked again after a second":       {0, []step{{0, 5, -1, 0}, {500 * time.Millisecond, 5, -1, 0}, {time.Second, 5 + time.Second/2, 500, time.Second}}},
		"just born: since its start":                        {4 * time.Second, []step{{0, 2 * time.Second, 500, 4 * time.Second}}},
		"born too recently to tell":                         {time.Second / 2, []step{{0, time.Second, -1, 0}, {time.Second / 2, time.Second, 1000, time.Second}}},
		"asked every second: windows of ten and more":       {0, []step{{0, 0, -1, 0}, {10 * time.Second, time.Second, 100, 10 * time.Second}, {11 * time.Second, 2 * time.Second, 181, 11 * time.Second}, {20 * time.Second, 3 * time.Second, 200, 10 * time.Second}}},
		"nobody asked for long: what was then says nothing": {0, []step{{0, 0, -1, 0}, {3 * time.Minute, time.Minute, -1, 0}, {3*time.Minute + 2*time.Second, time.Minute + time.Second, 500, 2 * time.Second}}},
		"a counter that went back is another's":             {0, []step{{0, time.Minute, -1, 0}, {20 * time.Second, time.Second, -1, 0}}},
	} {
		r := rates{seen: map[string]pair{}}
		start := time.Unix(1_700_000_000, 0)
		var born time.Time
		if c.born != 0 {
			born = start.Add(-c.born)
		}
		for i, s := range c.steps {
			got, ok := r.add("x", start.Add(s.at), uint64(s.cpu), born)
			milli := int(got.NanoCores / 1_000_000)
			if !ok {
				milli = -1
			}
			if milli != s.want || got.Window != s.window {
				t.Errorf("%s: step %d: %d thousandths over %s, want %d over %s", name, i, milli, got.Window, s.want, s.window)
			}
		}
	}
}

func TestMachine(t *testing.T) {
	m, err := ReadMemory()
	if err != nil || m.Total == 0 || m.Free == 0 || m.WorkingSet() > m.Usage() || m.Available() > m.Total {
		t.Errorf("%+v %v", m, err)
	}
	if n, err := ProcessorTime(); err != nil || n == 0 {
		t.Errorf("processor time %d %v", n, err)
	}
	if n, most, err := Processes(); err != nil || n < 2 || most < n {
		t.Errorf("processes %d of %d %v", n, most, err)
	}
}
