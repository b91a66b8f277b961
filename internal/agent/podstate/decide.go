package podstate

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Verb is a kind of action.
type Verb string

// Actions on the Pod as a whole.
const (
	// Prepare makes cgroup, folders and volumes.
	Prepare Verb = "prepare"
	// RunSandbox makes a sandbox numbered Facts.NextAttempt.
	RunSandbox Verb = "run sandbox"
	// StopSandbox kills all that is left in the sandbox and gives its network back.
	StopSandbox Verb = "stop sandbox"
	// Resize makes the cgroups of the Pod and of running containers as they were granted.
	Resize Verb = "resize"
	// Release removes volumes and cgroup of a Pod that has ended but stays in the API.
	Release Verb = "release"
	// Remove takes everything of the Pod off the node: sandbox, containers, volumes, cgroup, logs.
	Remove Verb = "remove"
	// DeleteObject deletes the Pod from the API.
	DeleteObject Verb = "delete object"
	// Forget ends the work on the Pod.
	Forget Verb = "forget"
)

// Actions on one container.
const (
	// Pull sees to it that the image is on the node.
	Pull Verb = "pull"
	// Create makes an instance, Start starts it, Hook runs its postStart.
	Create Verb = "create"
	Start  Verb = "start"
	Hook   Verb = "hook"
	// Stop runs preStop, if PreStop is set, and stops the instance within Grace.
	Stop Verb = "stop"
	// Cancel breaks off the action that is under way.
	Cancel Verb = "cancel"
)

// Action is one thing to do.
type Action struct {
	Verb Verb
	// Container is empty for actions on the Pod.
	Container string
	// Grace, Total, PreStop and Message belong to Stop: Grace is what is left of Total; Message is for the event.
	Grace   time.Duration
	Total   time.Duration
	PreStop bool
	Message string
	// Image is what the Pod calls the image now, Amounts are the container's resources. Both belong to Create.
	Image   string
	Amounts Amounts
	// Again, of a Stop, says that another instance is to follow, because the spec asks for other things than this one has.
	Again bool
}

// Decision is what follows from the facts.
type Decision struct {
	// Actions can all be done at the same time.
	Actions []Action
	// Next is when time alone changes the decision; zero for never.
	Next time.Time
	// BackingOff are containers that wait before being started again.
	BackingOff []string
}

// Least grace of a stop, and of one that follows a preStop or another container's stop.
const (
	leastGrace = time.Second
	laterGrace = 2 * time.Second
)

type decider struct {
	pod *corev1.Pod
	f   *Facts
	now time.Time
	Decision
}

// Decide says what is to be done now. f has been Advanced to now.
func Decide(pod *corev1.Pod, f *Facts, now time.Time) Decision {
	d := &decider{pod: pod, f: f, now: now}
	switch {
	case Ending(pod, f):
		d.end()
	case !f.RestingSince.IsZero():
		d.rest()
	default:
		d.run()
		if at, ok := f.deadline(pod); ok {
			d.wake(at)
		}
	}
	return d.Decision
}

// rest stops the containers and the sandbox, and keeps the rest.
func (d *decider) rest() {
	if d.endContainers(true) {
		return
	}
	switch sb := d.f.Sandbox; {
	case d.f.Busy == Prepare || d.f.Busy == RunSandbox:
		d.Actions = append(d.Actions, Action{Verb: Cancel})
	case sb != nil && !sb.Stopped:
		d.try(StopSandbox)
	}
}

// Ended are the IDs of containers that have ended and that nothing is done with now. What is to be known of them is in the facts.
func (f *Facts) Ended() []string {
	var ids []string
	for _, c := range f.Containers {
		if c.State == Exited && c.ID != "" && c.Busy == "" {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// patience is how long a Pod may be past its grace period before it is told what it waits for.
const patience = 5 * time.Second

// Waits says what a Pod that is past its grace period still waits for; empty while there is nothing to say.
func Waits(pod *corev1.Pod, f *Facts, now time.Time) string {
	if pod.DeletionTimestamp == nil || now.Before(pod.DeletionTimestamp.Add(patience)) {
		return ""
	}
	var list []string
	for _, spec := range containersOf(pod) {
		if c := f.Containers[spec.Name]; c != nil && c.running() {
			list = append(list, fmt.Sprintf("container %s to end", spec.Name))
		} else if c != nil && c.Busy != "" {
			list = append(list, fmt.Sprintf("container %s, of which the step %q is under way", spec.Name, string(c.Busy)))
		}
	}
	if len(list) == 0 && f.Busy != "" {
		list = append(list, fmt.Sprintf("the step %q", string(f.Busy)))
	}
	if t := f.Trouble; t != nil {
		list = append(list, fmt.Sprintf("the step %q to succeed (%s)", t.Reason, t.Message))
	}
	return strings.Join(list, ", ")
}

// Rested says that nothing of the Pod runs, nor is about to.
func (f *Facts) Rested() bool {
	return f.Busy == "" && !f.anyRunning() && (f.Sandbox == nil || f.Sandbox.Stopped)
}

func (d *decider) wake(at time.Time) {
	if d.Next.IsZero() || at.Before(d.Next) {
		d.Next = at
	}
}

// try asks for an action on the Pod unless one is under way or the last one failed a moment ago.
func (d *decider) try(v Verb) {
	if d.f.Busy != "" {
		return
	}
	if t := d.f.Trouble; t != nil && d.now.Before(t.RetryAt) {
		d.wake(t.RetryAt)
		return
	}
	d.Actions = append(d.Actions, Action{Verb: v})
}

func (d *decider) run() {
	sb := d.f.Sandbox
	switch {
	case !d.f.Prepared:
		d.try(Prepare)
		return
	case sb == nil:
		d.try(RunSandbox)
		return
	case !sb.Ready:
		if !sb.Stopped {
			d.try(StopSandbox)
		}
		for _, spec := range containersOf(d.pod) {
			if c := d.f.Containers[spec.Name]; c.Busy != Pull {
				d.cancel(spec, c)
			}
		}
		return
	}
	if !d.f.RestartingSince.IsZero() {
		d.endContainers(false)
		return
	}
	room := d.resize()
	specs := containersOf(d.pod)
	blocked := false
	for _, spec := range specs {
		c := d.f.Containers[spec.Name]
		switch spec.Kind {
		case Init:
			if d.f.Initialized || blocked || c.State == Exited && c.Exit.Code == 0 {
				continue
			}
			d.container(spec, c, room)
			blocked = true
		case Sidecar:
			if !blocked {
				d.container(spec, c, room)
				blocked = !d.f.Initialized && !started(spec, c)
			}
		case App:
			if d.f.Initialized {
				d.container(spec, c, room)
			}
		case Ephemeral:
			d.container(spec, c, true)
		}
	}
}

// container asks for what one container needs. room says whether a new instance fits into the Pod's cgroup.
func (d *decider) container(spec Spec, c *Container, room bool) {
	if c.Busy != "" {
		return
	}
	act := func(v Verb) {
		d.Actions = append(d.Actions, Action{Verb: v, Container: spec.Name, Image: spec.Image, Amounts: ContainerAmounts(d.pod, spec.Container)})
	}
	switch c.State {
	case Absent:
		if t := c.Trouble; t != nil && d.now.Before(t.RetryAt) {
			d.wake(t.RetryAt)
			return
		}
		switch {
		case c.ImageRef == "":
			act(Pull)
		case room:
			act(Create)
		}
	case Created:
		if t := c.Trouble; t != nil && d.now.Before(t.RetryAt) {
			d.wake(t.RetryAt)
			return
		}
		act(Start)
	case Running:
		if !c.Hooked {
			act(Hook)
			return
		}
		if why, changed := d.changed(spec, c); changed {
			d.stop(spec, c, Grace(d.pod), Grace(d.pod), why)
			for i := range d.Actions {
				d.Actions[i].Again = d.Actions[i].Again || d.Actions[i].Container == spec.Name && d.Actions[i].Verb == Stop
			}
		} else if grace, why, ok := d.unwell(spec, c); ok {
			d.stop(spec, c, grace, grace, why)
		}
	case Exited:
		if again(d.pod, spec, c) {
			d.wake(d.f.due(spec, c))
			if d.f.backoff(spec, c) > 0 {
				d.BackingOff = append(d.BackingOff, spec.Name)
			}
		}
	}
}

// changed says whether the spec asks for another instance than the running one, and in Kubernetes' words why.
func (d *decider) changed(spec Spec, c *Container) (string, bool) {
	switch {
	case spec.Kind == Init || spec.Kind == Ephemeral:
		return "", false
	case otherImage(spec, c):
		return fmt.Sprintf("Container %s definition changed, will be restarted", spec.Name), true
	case d.f.needsRestart(d.pod, spec, c):
		return fmt.Sprintf("Container %s resize requires restart", spec.Name), true
	}
	return "", false
}

// unwell says whether a running container must be stopped, and in Kubernetes' words why.
func (d *decider) unwell(spec Spec, c *Container) (time.Duration, string, bool) {
	grace := Grace(d.pod)
	probeGrace := func(p *corev1.Probe) time.Duration {
		if p != nil && p.TerminationGracePeriodSeconds != nil {
			return time.Duration(*p.TerminationGracePeriodSeconds) * time.Second
		}
		return grace
	}
	then := ""
	if restarts(d.pod, spec, 137) {
		then = ", will be restarted"
	}
	switch {
	case c.HookError != "":
		return grace, "FailedPostStartHook", true
	case c.Startup == Failure:
		return probeGrace(spec.StartupProbe), fmt.Sprintf("Container %s failed startup probe%s", spec.Name, then), true
	case c.Liveness == Failure:
		return probeGrace(spec.LivenessProbe), fmt.Sprintf("Container %s failed liveness probe%s", spec.Name, then), true
	}
	return 0, "", false
}

// stop asks for a stop within left of the grace it has in all, unless one with no longer grace is under way.
func (d *decider) stop(spec Spec, c *Container, grace, left time.Duration, message string) {
	grace = max(grace, leastGrace)
	if c.Busy == Stop && grace >= c.StopGrace {
		return
	}
	hook := spec.Lifecycle != nil && spec.Lifecycle.PreStop != nil && !c.PreStopped && c.State == Running
	d.Actions = append(d.Actions, Action{Verb: Stop, Container: spec.Name, Grace: max(left, leastGrace), Total: grace, PreStop: hook, Message: message, Image: spec.Image})
}

// Grace is how long the Pod's containers have to end by themselves.
func Grace(pod *corev1.Pod) time.Duration {
	switch {
	case pod.DeletionGracePeriodSeconds != nil:
		return time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		return time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
	}
	return 30 * time.Second
}

// end stops the containers: sidecars after all others, last first; then takes the rest apart.
func (d *decider) end() {
	if at := d.pod.DeletionTimestamp; at != nil && d.now.Before(at.Add(patience)) {
		d.wake(at.Add(patience))
	}
	if d.endContainers(true) {
		return
	}
	f := d.f
	sb := f.Sandbox
	switch {
	case f.Busy != "":
		if f.Busy == Prepare || f.Busy == RunSandbox {
			d.Actions = append(d.Actions, Action{Verb: Cancel})
		}
	case d.pod.DeletionTimestamp == nil && !f.Gone:
		if sb != nil && !sb.Stopped {
			d.try(StopSandbox)
		} else if !f.Released {
			d.try(Release)
		}
	case !f.Removed:
		d.try(Remove)
	case f.Gone:
		d.try(Forget)
	case f.StatusWritten:
		d.try(DeleteObject)
	}
}

// endContainers asks for what ends the containers, ephemeral ones only if all are meant, and says whether some have not ended.
func (d *decider) endContainers(all bool) bool {
	f := d.f
	specs := containersOf(d.pod)
	if sb := f.Sandbox; sb != nil && !sb.Ready && !sb.Stopped {
		for _, spec := range specs {
			d.cancel(spec, f.Containers[spec.Name])
		}
		if f.Busy == "" {
			d.try(StopSandbox)
		}
		return true
	}
	grace := Grace(d.pod)
	if f.End != nil && f.End.Grace != nil {
		grace = min(grace, *f.End.Grace)
	}
	if f.Gone && d.pod.DeletionTimestamp == nil {
		grace = leastGrace
	}
	since := f.EndingSince
	if since.IsZero() {
		since = f.RestingSince
	}
	if since.IsZero() {
		since = f.RestartingSince
	}
	left := max(since.Add(grace).Sub(d.now), leastGrace)
	alive := false
	for _, spec := range specs {
		if spec.Kind != Sidecar && (all || spec.Kind != Ephemeral) {
			alive = d.endContainer(spec, grace, left) || alive
		}
	}
	for i := len(specs) - 1; i >= 0; i-- {
		spec := specs[i]
		if spec.Kind != Sidecar {
			continue
		}
		if alive {
			d.cancel(spec, f.Containers[spec.Name])
			continue
		}
		alive = d.endContainer(spec, grace, max(left, laterGrace))
	}
	return alive
}

func (d *decider) endContainer(spec Spec, grace, left time.Duration) (alive bool) {
	c := d.f.Containers[spec.Name]
	if c.running() && (c.Busy == "" || c.Busy == Stop) {
		d.stop(spec, c, grace, left, "Stopping container "+spec.Name)
		return true
	}
	d.cancel(spec, c)
	return c.Busy != "" || c.running()
}

func (d *decider) cancel(spec Spec, c *Container) {
	switch c.Busy {
	case Pull, Create, Start, Hook:
		d.Actions = append(d.Actions, Action{Verb: Cancel, Container: spec.Name})
	}
}

// Begin notes that an action is about to be done. What it changes must be written down first.
func (f *Facts) Begin(a Action) {
	if a.Container == "" {
		if a.Verb != Cancel {
			f.Busy, f.Trouble = a.Verb, nil
		}
		return
	}
	c := f.Containers[a.Container]
	switch a.Verb {
	case Cancel:
		return
	case Create:
		c.Creating, c.SpecImage, c.Applied = true, a.Image, &a.Amounts
	case Hook:
		c.Hooked = true
	case Stop:
		c.StopGrace = a.Total
		c.PreStopped = c.PreStopped || a.PreStop
		c.Changed = a.Again
	}
	c.Busy = a.Verb
}
