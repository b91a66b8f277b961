package imagegc

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// everything is more than images can take.
const everything = math.MaxInt64

// candidate is an image that nobody uses and nobody pinned.
type candidate struct {
	id   string
	size int64 // bytes
	known
}

// order puts those that were used longest ago first, and of those that never were the ones that came first.
func order(list []candidate) {
	slices.SortFunc(list, func(a, b candidate) int {
		if c := a.lastUsed.Compare(b.lastUsed); c != 0 {
			return c
		}
		if c := a.firstSeen.Compare(b.firstSeen); c != 0 {
			return c
		}
		return strings.Compare(a.id, b.id)
	})
}

// split tells the images that were not used for too long from the others. Nothing is too long before this process has watched for as long.
func split(list []candidate, p Policy, now, began time.Time) (old, rest []candidate) {
	if p.MaxAge == 0 || now.Sub(began) <= p.MaxAge {
		return nil, list
	}
	for _, i := range list {
		last := i.lastUsed
		if last.IsZero() {
			last = i.firstSeen
		}
		if now.Sub(last) > p.MaxAge {
			old = append(old, i)
		} else {
			rest = append(rest, i)
		}
	}
	return old, rest
}

// ripe are those that have been there for long enough.
func ripe(list []candidate, p Policy, now time.Time) []candidate {
	return slices.DeleteFunc(list, func(i candidate) bool { return now.Sub(i.firstSeen) < p.MinAge })
}

// need is how much of the disk is used, in percent, and how many bytes have to become free.
func (p Policy) need(capacity, available int64) (used int, bytes int64) {
	used = 100 - int(float64(available)*100/float64(capacity))
	if p.HighPercent >= 100 || used < p.HighPercent {
		return used, 0
	}
	return used, max(capacity/100*int64(100-p.LowPercent)-available, 0)
}

// size is bytes for people.
func size(bytes int64) string {
	v, units := float64(bytes), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for len(units) > 1 && v >= 1024 {
		v, units = v/1024, units[1:]
	}
	return fmt.Sprintf("%.1f %s", v, units[0])
}
