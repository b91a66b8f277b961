package podstate

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// unseenFor is for how long a container that makes room for another, as the spec asks, is not told as gone. Kubelet looks once a second at what
// became of its containers; clients take it that a change of an image leaves a Pod as ready as it was.
const unseenFor = time.Second

// Replacing is until when the Pod's status is not to be told, since it is about to be what it was: a container has ended for another and that one is
// being started. It is zero where there is no such container.
func (f *Facts) Replacing(pod *corev1.Pod, now time.Time) time.Time {
	var until time.Time
	if Ending(pod, f) || f.Sandbox == nil || !f.Sandbox.Ready {
		return until
	}
	for _, spec := range containersOf(pod) {
		c := f.Containers[spec.Name]
		var ended *Exit
		switch {
		case c.Trouble != nil || c.State == Running && c.Hooked && c.Busy != Hook:
		case c.Changed:
			ended = c.Exit
		case c.Replaces && c.State != Exited:
			ended = c.Last
		}
		if ended == nil {
			continue
		}
		if t := ended.FinishedAt.Add(unseenFor); now.Before(t) && t.After(until) {
			until = t
		}
	}
	return until
}
