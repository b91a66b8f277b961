package measure

import (
	"sync"
	"time"

	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"
)

// answerPatience is how long a volume may take to tell what is used of it: its server may be away, and others are to be measured.
const answerPatience = time.Second

// slow asks those who may take long to answer, or never do.
type slow struct {
	clock clock.Clock

	mu      sync.Mutex // guards answers
	answers map[string]*answer
}

// answer is what somebody said last, and when. While one is owed, owed is open, since asked.
type answer struct {
	fs    *stats.FsStats
	at    time.Time
	owed  chan struct{}
	asked time.Time
}

// mayBeLate is how much longer than an answer is fresh it counts for somebody who does not give a newer one in time.
const mayBeLate = 10

// ask returns what question answers, or what it did not longer than fresh ago. If there is no answer in time it returns an older one, and nil if
// there is none of use; what is answered later counts for who asks next.
func (s *slow) ask(name string, fresh time.Duration, question func() *stats.FsStats) *stats.FsStats {
	now := s.clock.Now()
	s.mu.Lock()
	a := s.answers[name]
	if a == nil {
		a = &answer{}
		s.answers[name] = a
	}
	if now.Sub(a.at) < fresh {
		defer s.mu.Unlock()
		return a.fs
	}
	if a.owed == nil {
		a.owed, a.asked = make(chan struct{}), now
		go s.hear(a, question)
	}
	owed, patience := a.owed, a.asked.Add(answerPatience).Sub(now)
	s.mu.Unlock()
	if patience > 0 { // or somebody has waited in vain already
		timer := s.clock.NewTimer(patience)
		defer timer.Stop()
		select {
		case <-owed:
		case <-timer.C():
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.at.Before(now) && now.Sub(a.at) >= mayBeLate*fresh {
		return nil
	}
	return a.fs
}

// hear waits for the answer.
func (s *slow) hear(a *answer, question func() *stats.FsStats) {
	fs := question()
	s.mu.Lock()
	defer s.mu.Unlock()
	a.fs, a.at = fs, s.clock.Now()
	close(a.owed)
	a.owed = nil
}

// forget drops what was said longer than old ago.
func (s *slow) forget(old time.Duration) {
	now := s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, a := range s.answers {
		if a.owed == nil && now.Sub(a.at) > old {
			delete(s.answers, name)
		}
	}
}
