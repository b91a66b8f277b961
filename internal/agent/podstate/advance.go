package podstate

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	podrule "carob.dev/carob/internal/api/pod"
)

// Kubernetes' waits between restarts of a container that ends again and again.
const (
	firstBackoff = 10 * time.Second
	maxBackoff   = 5 * time.Minute
)

// Advance moves f on as far as time and events allow without doing anything to the node: ended containers that are to start again become
// Absent, a lost sandbox is given up, the Pod begins to end. What it changes must be written down before the next Decide is acted upon.
func (f *Facts) Advance(pod *corev1.Pod, now time.Time) {
	f.Complete(pod)
	if f.End == nil && !finished(pod, f) && pod.DeletionTimestamp == nil {
		if at, ok := f.deadline(pod); ok && !now.Before(at) {
			f.End = &End{Reason: "DeadlineExceeded", Message: "Pod was active on the node longer than the specified deadline"}
		}
	}
	f.resized(pod)
	if Ending(pod, f) {
		f.Pending, f.Resizing, f.RestartingSince = nil, nil, time.Time{}
		if f.EndingSince.IsZero() {
			f.EndingSince = now
		}
		f.dropUnstarted()
		return
	}
	if !f.RestingSince.IsZero() {
		f.dropUnstarted()
		return
	}
	if f.restartAll(pod, now); !f.RestartingSince.IsZero() {
		return
	}
	if f.Sandbox != nil && f.Sandbox.Stopped {
		f.dropUnstarted() // nothing can be started in it any more
		if !f.anyInstance() {
			f.renew(pod)
		}
	}
	if f.Sandbox == nil {
		f.startOver(pod)
		return
	}
	if !f.Sandbox.Ready {
		return
	}
	if !f.Initialized {
		f.Initialized = initialized(pod, f)
	}
	for _, spec := range containersOf(pod) {
		c := f.Containers[spec.Name]
		if spec.Kind == App && !f.Initialized || c.State != Exited || c.Busy != "" || !again(pod, spec, c) {
			continue
		}
		if at := f.due(spec, c); !now.Before(at) {
			f.bumpBackoff(spec, c, now)
			f.reset(c)
		}
	}
}

// restartAll notes that a rule has all containers start again and, once they have ended, makes room for the next instance of each that there
// was.
func (f *Facts) restartAll(pod *corev1.Pod, now time.Time) {
	if f.RestartingSince.IsZero() {
		for _, spec := range containersOf(pod) {
			c := f.Containers[spec.Name]
			if spec.Kind != Ephemeral && c.State == Exited && c.Busy == "" &&
				podrule.RestartRule(spec.Container, c.Exit.Code) == corev1.ContainerRestartRuleActionRestartAllContainers {
				f.RestartingSince = now
			}
		}
		if f.RestartingSince.IsZero() {
			return
		}
	}
	f.dropUnstarted()
	for _, spec := range containersOf(pod) {
		if c := f.Containers[spec.Name]; spec.Kind != Ephemeral && (c.running() || c.Busy != "") {
			return
		}
	}
	for _, spec := range containersOf(pod) {
		if c := f.Containers[spec.Name]; spec.Kind != Ephemeral && c.State == Exited {
			done := spec.Kind == Init && c.Exit.Code == 0
			if !done && !c.Exit.FinishedAt.Before(f.RestartingSince) && podrule.RestartRule(spec.Container, c.Exit.Code) == "" {
				c.Exit.Reason = restartingAll
			}
			f.reset(c)
		}
	}
	f.RestartingSince, f.Initialized = time.Time{}, false
}

// restartingAll is the reason of containers that were stopped because all were to start again.
const restartingAll = "RestartingAllContainers"

// dropUnstarted gives up instances that were made and never started: there is no process to stop.
func (f *Facts) dropUnstarted() {
	for _, c := range f.Containers {
		if c.State == Created && c.Busy == "" {
			f.Discard = append(f.Discard, Discarded{ID: c.ID})
			*c = Container{Attempt: c.Attempt, Last: c.Last, Image: c.Image, ImageID: c.ImageID, Backoff: c.Backoff, BackoffAt: c.BackoffAt, Trouble: c.Trouble}
		}
	}
}

// deadline is when the Pod has been active for as long as it may.
func (f *Facts) deadline(pod *corev1.Pod) (time.Time, bool) {
	if pod.Spec.ActiveDeadlineSeconds == nil {
		return time.Time{}, false
	}
	return f.StartTime.Add(time.Duration(*pod.Spec.ActiveDeadlineSeconds) * time.Second), true
}

// anyInstance says whether some container has, or may be about to have, a process.
func (f *Facts) anyInstance() bool {
	for _, c := range f.Containers {
		if c.running() || c.Busy != "" && c.Busy != Pull {
			return true
		}
	}
	return false
}

func (f *Facts) anyRunning() bool {
	for _, c := range f.Containers {
		if c.running() || c.Busy != "" {
			return true
		}
	}
	return false
}

// renew gives the lost sandbox up.
func (f *Facts) renew(pod *corev1.Pod) {
	f.Discard = append(f.Discard, Discarded{ID: f.Sandbox.ID, Sandbox: true})
	f.Sandbox = nil
	f.startOver(pod)
}

// startOver has the next sandbox begin with the init containers, whatever they did in one before it: a lost one, or one before a reboot.
func (f *Facts) startOver(pod *corev1.Pod) {
	f.Initialized = false
	for _, spec := range containersOf(pod) {
		if c := f.Containers[spec.Name]; spec.Kind == Init && c.State == Exited && c.Exit.Code == 0 {
			f.reset(c)
		}
	}
}

// reset makes room for the next instance of an ended container.
func (f *Facts) reset(c *Container) {
	if c.ID != "" {
		f.Discard = append(f.Discard, Discarded{ID: c.ID})
	}
	*c = Container{Attempt: c.Attempt + 1, Last: c.Exit, Replaces: c.Changed, Image: c.Image, ImageID: c.ImageID, Backoff: c.Backoff, BackoffAt: c.BackoffAt}
}

// backoff is the wait that an ending of the container brings: none for the first, nor if it ran well for a while, nor if the spec asks for
// another instance than the one that ended.
func (f *Facts) backoff(spec Spec, c *Container) time.Duration {
	const calm = 2 // times the longest wait after its last start, an ending is no longer held against a container
	if c.Changed || otherImage(spec, c) || c.Exit.FinishedAt.Sub(c.BackoffAt) > calm*f.longest() {
		return 0
	}
	return min(c.Backoff, f.longest())
}

func (f *Facts) longest() time.Duration {
	if f.MaxBackoff > 0 {
		return f.MaxBackoff
	}
	return maxBackoff
}

// otherImage says whether the spec asks for another image than the instance was made with.
func otherImage(spec Spec, c *Container) bool {
	return spec.Kind != Ephemeral && c.SpecImage != "" && c.SpecImage != spec.Image
}

func (f *Facts) due(spec Spec, c *Container) time.Time {
	return c.Exit.FinishedAt.Add(f.backoff(spec, c))
}

// bumpBackoff makes the next wait longer. One that follows a change of the spec begins anew.
func (f *Facts) bumpBackoff(spec Spec, c *Container, now time.Time) {
	if c.Changed || otherImage(spec, c) {
		c.Backoff, c.BackoffAt = 0, time.Time{}
		return
	}
	c.Backoff = min(max(firstBackoff, 2*f.backoff(spec, c)), f.longest())
	c.BackoffAt = now
}

// initialized says whether all init containers have done their part.
func initialized(pod *corev1.Pod, f *Facts) bool {
	for _, spec := range containersOf(pod) {
		c := f.Containers[spec.Name]
		switch spec.Kind {
		case Init:
			if c.State != Exited || c.Exit.Code != 0 {
				return false
			}
		case Sidecar:
			if !started(spec, c) {
				return false
			}
		}
	}
	return true
}

// started says whether a container runs, has had its postStart and passed its startup probe.
func started(spec Spec, c *Container) bool {
	return c.State == Running && c.Hooked && c.Busy != Hook && (spec.StartupProbe == nil || c.Startup == Success)
}

// ready says whether a container may be sent work.
func ready(spec Spec, c *Container) bool {
	return started(spec, c) && (spec.ReadinessProbe == nil || c.Readiness == Success)
}

// Ending says that the Pod's containers are to be stopped and not to be started: it is deleted, ended by the node, or has finished.
func Ending(pod *corev1.Pod, f *Facts) bool {
	return pod.DeletionTimestamp != nil || f.Gone || f.End != nil || finished(pod, f)
}

// finished says that nothing of the Pod is ever to start again, and none of its app containers runs.
func finished(pod *corev1.Pod, f *Facts) bool {
	if !f.RestartingSince.IsZero() {
		return false
	}
	if sb := f.Sandbox; sb != nil && !sb.Ready && !outlivesSandbox(pod, f) {
		return true
	}
	apps := 0
	for _, spec := range containersOf(pod) {
		c := f.Containers[spec.Name]
		if c == nil {
			return false
		}
		switch spec.Kind {
		case Init:
			if !f.Initialized && c.State == Exited && c.Exit.Code != 0 && !again(pod, spec, c) {
				return true
			}
		case App:
			if c.State != Exited || again(pod, spec, c) {
				return false
			}
			apps++
		}
	}
	return apps > 0
}

// outlivesSandbox says whether a Pod that lost its sandbox gets another: if some container would be started in it. A Pod that never
// restarts gets one only while none of its containers has been made.
func outlivesSandbox(pod *corev1.Pod, f *Facts) bool {
	made := false
	for _, spec := range containersOf(pod) {
		c := f.Containers[spec.Name]
		made = made || c != nil && (c.ID != "" || c.Attempt > 0)
	}
	for _, spec := range containersOf(pod) {
		c := f.Containers[spec.Name]
		if spec.Kind != App || c == nil {
			continue
		}
		switch {
		case c.State == Exited:
			if again(pod, spec, c) {
				return true
			}
		case c.running():
			if restarts(pod, spec, 137) {
				return true
			}
		case !made || pod.Spec.RestartPolicy != corev1.RestartPolicyNever || restarts(pod, spec, 137):
			return true
		}
	}
	return false
}
