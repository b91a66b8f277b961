package network

import "sync"

// sequence makes work on one sandbox happen one after another, while other sandboxes go on. The zero value is ready.
type sequence struct {
	mu    sync.Mutex // guards turns
	turns map[string]*turn
}

type turn struct {
	mu   sync.Mutex
	uses int
}

// lock waits for the sandbox's turn and returns the function that ends it.
func (s *sequence) lock(sandboxID string) (unlock func()) {
	s.mu.Lock()
	if s.turns == nil {
		s.turns = map[string]*turn{}
	}
	t := s.turns[sandboxID]
	if t == nil {
		t = &turn{}
		s.turns[sandboxID] = t
	}
	t.uses++
	s.mu.Unlock()
	t.mu.Lock()
	return func() {
		t.mu.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if t.uses--; t.uses == 0 {
			delete(s.turns, sandboxID)
		}
	}
}
