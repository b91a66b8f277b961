package probe

import (
	"maps"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// Counted is what attempts are counted by. Result is successful, failed or unknown.
type Counted struct {
	Namespace, Pod, Container string
	UID                       types.UID
	Kind                      Kind
	Result                    string
}

// Results counts attempts. The zero value is ready; it is safe for concurrent use.
type Results struct {
	mu     sync.Mutex // guards counts
	counts map[Counted]uint64
}

// Add counts an attempt. c.Result is set here.
func (r *Results) Add(c Counted, o Outcome) {
	switch {
	case o.Err != nil:
		c.Result = "unknown"
	case o.OK:
		c.Result = "successful"
	default:
		c.Result = "failed"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = map[Counted]uint64{}
	}
	r.counts[c]++
}

// Forget drops what was counted of a Pod.
func (r *Results) Forget(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.counts, func(c Counted, _ uint64) bool { return c.UID == uid })
}

// All are the counts so far.
func (r *Results) All() map[Counted]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.counts)
}
