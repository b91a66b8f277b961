package podstate

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Pending is a change of resources that the spec asks for and the node has not granted.
type Pending struct {
	// Reason is Deferred, for not yet, or Infeasible, for not on this node.
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Generation is that of the spec.
	Generation int64 `json:"generation"`
}

// Resizing is a granted change that the Pod's cgroups do not have yet.
type Resizing struct {
	// Generation is that of the spec that asked for it.
	Generation int64 `json:"generation"`
	// Error is why it could not be done; empty if it was not tried or is under way.
	Error string `json:"error,omitempty"`
	// RetryAt is when to try again after an error.
	RetryAt time.Time `json:"-"`
}

// Change is a change of one cgroup.
type Change struct {
	// Container is empty for the Pod's own cgroup, ID that of the container's instance.
	Container, ID string
	From, To      Amounts
}

// Changes are what the cgroups need to be as granted: the Pod's own and those of running containers, but for containers that are to be
// started anew for it. As long as such a container runs, the Pod's cgroup has room for it.
func (f *Facts) Changes(pod *corev1.Pod) (of Change, containers []Change) {
	room := *pod
	for _, spec := range containersOf(pod) {
		c := f.Containers[spec.Name]
		if c == nil || c.Applied == nil || c.State != Running || spec.Kind == Ephemeral {
			continue
		}
		want := ContainerAmounts(pod, spec.Container)
		if *c.Applied == want {
			continue
		}
		if restartsFor(spec, *c.Applied, want) {
			room = *roomFor(&room, spec.Name, *c.Applied)
			continue
		}
		if c.Busy == "" || c.Busy == Hook {
			containers = append(containers, Change{Container: spec.Name, ID: c.ID, From: *c.Applied, To: want})
		}
	}
	of.To = PodAmounts(&room)
	if of.From = of.To; f.Applied != nil {
		of.From = *f.Applied
	}
	return of, containers
}

// roomFor is the Pod with limits of a container that are no less than what its running instance has.
func roomFor(pod *corev1.Pod, name string, have Amounts) *corev1.Pod {
	g := Asked(pod)
	r := g.Containers[name]
	had := applied(r, Amounts{}, &have)
	for res, q := range had.Limits {
		if now := r.Limits[res]; q.Cmp(now) > 0 {
			r.Limits[res] = q
		}
	}
	g.Containers[name] = r
	return g.In(pod)
}

// restartsFor says whether a container is to be started anew to have other resources.
func restartsFor(spec Spec, have, want Amounts) bool {
	if spec.Kind != App && spec.Kind != Sidecar {
		return false
	}
	for _, p := range spec.ResizePolicy {
		if p.RestartPolicy != corev1.RestartContainer {
			continue
		}
		switch p.ResourceName {
		case corev1.ResourceCPU:
			if have.CPURequest != want.CPURequest || have.CPULimit != want.CPULimit {
				return true
			}
		case corev1.ResourceMemory:
			if have.MemoryRequest != want.MemoryRequest || have.MemoryLimit != want.MemoryLimit {
				return true
			}
		}
	}
	return false
}

// needsRestart says whether a running container is to be started anew to have the resources that it was granted.
func (f *Facts) needsRestart(pod *corev1.Pod, spec Spec, c *Container) bool {
	return c.Applied != nil && restartsFor(spec, *c.Applied, ContainerAmounts(pod, spec.Container))
}

// resized notes that a change is done once no cgroup needs to be another any more.
func (f *Facts) resized(pod *corev1.Pod) {
	if f.Resizing == nil || f.Busy == Resize {
		return
	}
	of, containers := f.Changes(pod)
	if len(containers) > 0 || of.From != of.To {
		return
	}
	for _, spec := range containersOf(pod) {
		if c := f.Containers[spec.Name]; c.State == Running && f.needsRestart(pod, spec, c) || c.Changed || c.Busy == Stop {
			return
		}
	}
	f.Resizing = nil
}

// Resized notes that the cgroup of a change has what it was to have.
func (f *Facts) Resized(c Change) {
	to := c.To
	if c.Container == "" {
		f.Applied = &to
	} else if own := f.Containers[c.Container]; own != nil && own.ID == c.ID {
		own.Applied = &to
	}
}

// resize asks for the cgroups to be made as granted. It says whether new instances may be made meanwhile: not before the Pod's cgroup has
// room for them.
func (d *decider) resize() bool {
	of, containers := d.f.Changes(d.pod)
	grows := more(of.To.CPULimit, of.From.CPULimit) || more(of.To.MemoryLimit, of.From.MemoryLimit)
	if of.From == of.To && len(containers) == 0 {
		return true
	}
	if r := d.f.Resizing; r != nil && d.now.Before(r.RetryAt) {
		d.wake(r.RetryAt)
		return !grows
	}
	d.try(Resize)
	return !grows
}

// Steps are changes in the order in which they can be made one after the other: first the Pod's cgroup grows; then containers get their
// memory, and their cpu, those that shrink before those that grow; then the Pod's cgroup shrinks. room is how many steps are its growth.
func Steps(of Change, containers []Change) (steps []Change, room int) {
	have := map[string]Amounts{"": of.From}
	for _, c := range containers {
		have[c.Container] = c.From
	}
	step := func(c Change, to Amounts) {
		if from := have[c.Container]; from != to {
			steps = append(steps, Change{Container: c.Container, ID: c.ID, From: from, To: to})
			have[c.Container] = to
		}
	}
	grown := of.From
	if more(of.To.MemoryLimit, of.From.MemoryLimit) {
		grown.MemoryLimit = of.To.MemoryLimit
	}
	if more(of.To.CPULimit, of.From.CPULimit) {
		grown.CPULimit = of.To.CPULimit
	}
	grown.CPURequest = max(of.From.CPURequest, of.To.CPURequest)
	step(of, grown)
	room = len(steps)
	each := func(limit func(Amounts) int64, set func(base, want Amounts) Amounts) {
		for _, growing := range []bool{false, true} {
			for _, c := range containers {
				if more(limit(c.To), limit(c.From)) == growing {
					step(c, set(have[c.Container], c.To))
				}
			}
		}
	}
	each(func(a Amounts) int64 { return a.MemoryLimit }, func(base, want Amounts) Amounts {
		base.MemoryRequest, base.MemoryLimit = want.MemoryRequest, want.MemoryLimit
		return base
	})
	each(func(a Amounts) int64 { return a.CPULimit }, func(base, want Amounts) Amounts {
		base.CPURequest, base.CPULimit = want.CPURequest, want.CPULimit
		return base
	})
	step(of, of.To)
	return steps, room
}

// more compares limits, of which 0 is none.
func more(a, b int64) bool { return b != 0 && (a == 0 || a > b) }
