package podstate

import (
	"strings"
	"time"
)

// Seen is what the runtime says of one instance of a container.
type Seen struct {
	Name, ID string
	Attempt  int32
	State    State
	// StartedAt, and the rest for an ended one, as in Exit.
	StartedAt, FinishedAt time.Time
	Code                  int32
	Reason, Message       string
}

// Observe takes over what the runtime says of an instance; the same may be said again and late. It reports whether that was news: an
// instance only goes forward, and old instances are of no interest.
func (f *Facts) Observe(s Seen) bool {
	c := f.Containers[s.Name]
	if c == nil {
		return false
	}
	if c.ID == "" && c.State == Absent && c.Creating && c.Attempt == s.Attempt {
		c.ID, c.State, c.Creating = s.ID, Created, false
	}
	if c.ID != s.ID || rank(s.State) <= rank(c.State) {
		return false
	}
	c.State = s.State
	if !s.StartedAt.IsZero() {
		c.StartedAt = s.StartedAt
	}
	if s.State == Exited {
		if c.HookError != "" {
			s.Message = strings.TrimPrefix(s.Message+": ", ": ") + "PostStartHookError: " + c.HookError
		}
		c.Exit = &Exit{ID: s.ID, Code: s.Code, Reason: s.Reason, Message: s.Message, StartedAt: c.StartedAt, FinishedAt: s.FinishedAt}
		c.Readiness, c.Startup, c.Liveness = Unknown, Unknown, Unknown
	}
	return true
}

func rank(s State) int {
	switch s {
	case Created:
		return 1
	case Running:
		return 2
	case Exited:
		return 3
	}
	return 0
}

// Lost notes that the runtime knows nothing of an instance that was made.
func (f *Facts) Lost(name string, now time.Time) {
	c := f.Containers[name]
	if c == nil || !c.running() {
		return
	}
	c.State = Exited
	c.Exit = &Exit{ID: c.ID, Code: 137, Reason: "ContainerStatusUnknown", StartedAt: c.StartedAt, FinishedAt: now,
		Message: "The container could not be located when the pod was deleted.  The container used to be Running"}
}
