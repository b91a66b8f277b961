package measure

import (
	"testing"
	"time"

	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	clocktesting "k8s.io/utils/clock/testing"
)

// TestSlow asks somebody who answers at once, then not, then late.
func TestSlow(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(1000, 0))
	s := slow{clock: clock, answers: map[string]*answer{}}
	used := func(n uint64) *stats.FsStats { return &stats.FsStats{UsedBytes: &n} }
	late := make(chan *stats.FsStats)
	at := func(n uint64) func() *stats.FsStats { return func() *stats.FsStats { return used(n) } }
	never := func() *stats.FsStats { return <-late }
	// impatient asks, and lets the time pass that an answer may take.
	impatient := func(fresh time.Duration) *stats.FsStats {
		got := make(chan *stats.FsStats)
		go func() { got <- s.ask("v", fresh, never) }()
		for !clock.HasWaiters() {
			time.Sleep(time.Millisecond)
		}
		clock.Step(answerPatience)
		return <-got
	}
	want := func(what string, got *stats.FsStats, n uint64) {
		t.Helper()
		if (got == nil) != (n == 0) || got != nil && *got.UsedBytes != n {
			t.Errorf("%s: %v, want %d", what, got, n)
		}
	}
	want("first", s.ask("v", time.Minute, at(1)), 1)
	clock.Step(59 * time.Second)
	want("still fresh", s.ask("v", time.Minute, at(2)), 1)
	want("whom freshness is all", s.ask("v", 0, at(3)), 3)
	clock.Step(time.Minute)
	want("no answer: the last counts", impatient(time.Minute), 3)
	start := clock.Now()
	want("owed still: nobody waits for it again", s.ask("v", time.Minute, at(4)), 3)
	if !clock.Now().Equal(start) {
		t.Error("waited")
	}
	want("no answer: an old one is none", s.ask("v", 0, at(4)), 0)
	clock.Step(mayBeLate * time.Minute)
	want("no answer for long", s.ask("v", time.Minute, at(4)), 0)
	late <- used(5)
	for s.ask("v", time.Minute, at(6)) == nil {
		time.Sleep(time.Millisecond)
	}
	want("a late answer counts", s.ask("v", time.Minute, at(6)), 5)
	clock.Step(time.Hour)
	s.forget(time.Minute)
	if len(s.answers) != 0 {
		t.Errorf("%d are remembered", len(s.answers))
	}
}
