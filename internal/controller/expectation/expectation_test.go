package expectation

import (
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

func TestSet(t *testing.T) {
	clk := clocktesting.NewFakePassiveClock(time.Unix(1000, 0))
	s := New(clk)
	met := func(want bool, when string) {
		t.Helper()
		if got := s.Met("ns/a"); got != want {
			t.Errorf("%s: met is %t", when, got)
		}
	}
	met(true, "at first")
	s.Create("ns/a", 2)
	met(false, "two outstanding")
	s.Created("ns/a")
	met(false, "one outstanding")
	s.Created("ns/a")
	s.Created("ns/a")
	met(true, "all seen, one too many")

	s.Delete("ns/a", "u1", "u2")
	s.Deleted("ns/a", "u1")
	s.Deleted("ns/a", "u1")
	met(false, "the same deletion seen twice")
	if !s.Met("ns/b") {
		t.Error("another key is held back")
	}
	s.Deleted("ns/a", "u2")
	met(true, "both gone")

	s.Create("ns/a", 1)
	clk.SetTime(clk.Now().Add(Timeout))
	met(false, "just before the time is up")
	clk.SetTime(clk.Now().Add(time.Second))
	met(true, "time is up")
	s.Create("ns/a", 1)
	s.Created("ns/a")
	met(true, "what timed out does not count any more")

	s.Create("ns/a", 1)
	s.Forget("ns/a")
	met(true, "forgotten")
}
