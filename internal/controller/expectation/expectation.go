// Package expectation remembers which creations and deletions a controller has asked for and not yet seen in its cache, so that it
// does not ask twice.
//
// It imports nothing of the project. Invariants: a controller acts on a key only when nothing is outstanding for it; deletions are
// known by uid, so that the same deletion seen twice (timestamp set, then gone) counts once; expectations that are never met stop
// counting after Timeout.
package expectation

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
)

// Timeout is how long an expectation holds back its key: the event was lost, or came before it was expected.
const Timeout = 5 * time.Minute

// Set holds the expectations of one controller, by the key of its objects ("namespace/name").
type Set struct {
	clock clock.PassiveClock

	mu   sync.Mutex // guards keys
	keys map[string]*outstanding
}

type outstanding struct {
	creations int
	deletions map[types.UID]struct{}
	since     time.Time
}

// New returns an empty Set. A nil clk is the real clock.
func New(clk clock.PassiveClock) *Set {
	if clk == nil {
		clk = clock.RealClock{}
	}
	return &Set{clock: clk, keys: map[string]*outstanding{}}
}

// Create notes that n creations for key are about to be asked for. It must be called before asking.
func (s *Set) Create(key string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.fresh(key)
	o.creations += n
}

// Delete notes that the objects with these uids are about to be deleted. It must be called before asking.
func (s *Set) Delete(key string, uids ...types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.fresh(key)
	for _, uid := range uids {
		o.deletions[uid] = struct{}{}
	}
}

// Created notes that one creation was seen, or failed.
func (s *Set) Created(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.keys[key]; o != nil && o.creations > 0 {
		o.creations--
	}
}

// Deleted notes that a deletion was seen, or failed.
func (s *Set) Deleted(key string, uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.keys[key]; o != nil {
		delete(o.deletions, uid)
	}
}

// Met says whether nothing is outstanding for key, or what is has been outstanding for longer than Timeout.
func (s *Set) Met(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.keys[key]
	return o == nil || o.empty() || s.clock.Since(o.since) > Timeout
}

// Forget drops all that is outstanding for key: its object is gone.
func (s *Set) Forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, key)
}

// fresh returns the entry for key, started anew if what it held is met. The caller holds mu.
func (s *Set) fresh(key string) *outstanding {
	o := s.keys[key]
	if o == nil || o.empty() || s.clock.Since(o.since) > Timeout {
		o = &outstanding{deletions: map[types.UID]struct{}{}}
		s.keys[key] = o
	}
	o.since = s.clock.Now()
	return o
}

func (o *outstanding) empty() bool { return o.creations == 0 && len(o.deletions) == 0 }
