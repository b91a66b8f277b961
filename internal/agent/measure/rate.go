package measure

import (
	"sync"
	"time"
)

const (
	// span is the least time that a rate is taken over, where there is a sample as old as that.
	span = 10 * time.Second
	// least is the least time that a rate is taken over at all.
	least = time.Second
	// stale is the age at which a sample says nothing about now any more.
	stale = 2 * time.Minute
)

// Rate is processor use over a window.
type Rate struct {
	// NanoCores are billionths of a core.
	NanoCores uint64
	Window    time.Duration
}

// sample is how much processor time had been used, in nanoseconds, at a time.
type sample struct {
	at  time.Time
	cpu uint64
}

// rates remembers two samples of each cgroup, so that a rate is taken over ten seconds or more while somebody asks more often than that.
type rates struct {
	mu   sync.Mutex // guards seen
	seen map[string]pair
}

// pair are the sample that rates are taken from, if there is one, and a later one that takes its place in time.
type pair struct{ base, last sample }

// add takes a sample and returns the rate since an earlier one. born is when the counter stood at zero; zero if that is not known.
// ok is false where there is nothing to compare with yet.
func (r *rates) add(key string, now time.Time, cpu uint64, born time.Time) (_ Rate, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, known := r.seen[key]
	age := now.Sub(p.last.at)
	switch {
	case !known || age > stale || cpu < p.last.cpu:
		p = pair{last: sample{now, cpu}}
		if !born.IsZero() && now.Sub(born) < stale {
			p.base = sample{at: born}
		}
	case age >= span:
		p = pair{base: p.last, last: sample{now, cpu}}
	}
	r.seen[key] = p
	from := p.base
	if from.at.IsZero() {
		from = p.last
	}
	window := now.Sub(from.at)
	if window < least {
		return Rate{}, false
	}
	return Rate{NanoCores: uint64(float64(cpu-from.cpu) / window.Seconds()), Window: window}, true
}

// keep forgets all but the given cgroups.
func (r *rates) keep(seen map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.seen {
		if !seen[key] {
			delete(r.seen, key)
		}
	}
}
