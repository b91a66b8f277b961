package podstate

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podrule "carob.dev/carob/internal/api/pod"
)

// Status is the Pod's status as the facts have it. The conditions that the agent does not own, and the times at which its own last
// changed, are taken from old, the status before.
func Status(pod *corev1.Pod, f *Facts, old *corev1.PodStatus, now time.Time) corev1.PodStatus {
	s := *old.DeepCopy()
	s.ObservedGeneration = pod.Generation
	s.QOSClass = podrule.QOS(pod)
	s.HostIP, s.HostIPs, s.PodIP, s.PodIPs = "", nil, "", nil
	for i, ip := range f.HostIPs {
		if i == 0 {
			s.HostIP = ip
		}
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: ip})
	}
	ips := f.IPs(pod)
	if len(ips) == 0 && Ending(pod, f) { // an ended Pod keeps the address it had
		s.PodIP, s.PodIPs = old.PodIP, old.PodIPs
	}
	for i, ip := range ips {
		if i == 0 {
			s.PodIP = ip
		}
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
	}
	start := metav1.NewTime(f.StartTime)
	s.StartTime = &start
	b := builder{pod: pod, f: f, now: now, over: Ending(pod, f) && !f.anyRunning()}
	s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses = nil, nil, nil
	for _, spec := range containersOf(pod) {
		if f.End != nil && f.End.Rejected {
			break
		}
		cs := b.container(spec, f.Containers[spec.Name])
		switch spec.Kind {
		case Init, Sidecar:
			s.InitContainerStatuses = append(s.InitContainerStatuses, cs)
		case App:
			s.ContainerStatuses = append(s.ContainerStatuses, cs)
		case Ephemeral:
			s.EphemeralContainerStatuses = append(s.EphemeralContainerStatuses, cs)
		}
	}
	s.Phase = phase(pod, f, &s, b.over)
	s.AllocatedResources, s.Resources = f.podResources(pod)
	if f.End != nil {
		s.Reason, s.Message = f.End.Reason, f.End.Message
	}
	s.Conditions = conditions(pod, f, &s, old.Conditions, now)
	return s
}

// IPs are the Pod's addresses; those of the host for a Pod on its network.
func (f *Facts) IPs(pod *corev1.Pod) []string {
	switch {
	case f.Sandbox == nil:
		return nil
	case pod.Spec.HostNetwork:
		return f.HostIPs
	}
	return f.Sandbox.IPs
}

type builder struct {
	pod *corev1.Pod
	f   *Facts
	now time.Time
	// over says that nothing of the Pod runs nor will.
	over bool
}

func (b *builder) container(spec Spec, c *Container) corev1.ContainerStatus {
	cs := corev1.ContainerStatus{Name: spec.Name, RestartCount: c.Attempt, Image: spec.Image, ImageID: c.ImageID}
	if c.Image != "" {
		cs.Image = c.Image
	}
	if c.ID != "" {
		cs.ContainerID = b.f.shown(c.ID)
	}
	if c.Last != nil {
		cs.LastTerminationState.Terminated = b.terminated(c.Last)
		if cs.ContainerID == "" {
			cs.ContainerID = b.f.shown(c.Last.ID)
		}
	}
	isStarted, isReady := started(spec, c), ready(spec, c)
	if spec.Kind == Init {
		isReady = c.State == Exited && c.Exit.Code == 0
	}
	if spec.Kind != Ephemeral {
		cs.Ready, cs.Started = isReady, &isStarted
		b.resources(spec, c, &cs)
	}
	switch {
	case c.State == Running && c.Hooked && c.Busy != Hook:
		cs.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(c.StartedAt.Truncate(time.Second))}
	case c.State == Exited && b.waits(spec, c):
		cs.State.Waiting = &corev1.ContainerStateWaiting{Reason: crashLoop, Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
			b.f.backoff(spec, c), spec.Name, b.pod.Name, b.pod.Namespace, b.pod.UID)}
		cs.LastTerminationState.Terminated = b.terminated(c.Exit)
	case c.State == Exited:
		cs.State.Terminated = b.terminated(c.Exit)
	case b.over && spec.Kind == App && b.f.Initialized:
		cs.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "ContainerStatusUnknown",
			Message: "The container could not be located when the pod was terminated"}
	default:
		cs.State.Waiting = b.waiting(c)
		if c.Last != nil { // it counts once it runs
			cs.RestartCount = max(c.Attempt-1, 0)
		}
	}
	return cs
}

// crashLoop is the reason of a container that waits to be started again.
const crashLoop = "CrashLoopBackOff"

// waits says whether an ended container will be started, but not at once.
func (b *builder) waits(spec Spec, c *Container) bool {
	return b.f.backoff(spec, c) > 0 && again(b.pod, spec, c) && !Ending(b.pod, b.f) && b.now.Before(b.f.due(spec, c))
}

func (b *builder) waiting(c *Container) *corev1.ContainerStateWaiting {
	switch {
	case c.Trouble != nil:
		return &corev1.ContainerStateWaiting{Reason: c.Trouble.Reason, Message: c.Trouble.Message}
	case len(b.pod.Spec.InitContainers) > 0 && !b.f.Initialized:
		return &corev1.ContainerStateWaiting{Reason: "PodInitializing"}
	}
	return &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
}

// resources tells what the container was given.
func (b *builder) resources(spec Spec, c *Container, cs *corev1.ContainerStatus) {
	if c.ID == "" {
		return
	}
	for _, m := range spec.VolumeMounts {
		vm := corev1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mode := corev1.RecursiveReadOnlyDisabled
			if m.RecursiveReadOnly != nil {
				mode = *m.RecursiveReadOnly
			}
			vm.RecursiveReadOnly = &mode
		}
		cs.VolumeMounts = append(cs.VolumeMounts, vm)
	}
	if c.User != nil {
		cs.User = &corev1.ContainerUser{Linux: c.User.DeepCopy()}
	}
	if spec.Lifecycle != nil && spec.Lifecycle.StopSignal != nil {
		signal := *spec.Lifecycle.StopSignal
		cs.StopSignal = &signal
	}
	cs.AllocatedResources = spec.Resources.Requests.DeepCopy()
	have := c.Applied
	if c.State != Running {
		have = nil
	}
	cs.Resources = applied(spec.Resources, ContainerAmounts(b.pod, spec.Container), have)
}

func (b *builder) terminated(e *Exit) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{ExitCode: e.Code, Reason: e.Reason, Message: e.Message}
	if !e.StartedAt.IsZero() {
		t.StartedAt = metav1.NewTime(e.StartedAt.Truncate(time.Second))
	}
	if !e.FinishedAt.IsZero() {
		t.FinishedAt = metav1.NewTime(e.FinishedAt.Truncate(time.Second))
	}
	if e.ID != "" {
		t.ContainerID = b.f.shown(e.ID)
	}
	return t
}

func terminal(p corev1.PodPhase) bool { return p == corev1.PodFailed || p == corev1.PodSucceeded }

// phase sums the Pod up. An ended Pod never comes back to life, and is not called ended while something of it runs.
func phase(pod *corev1.Pod, f *Facts, s *corev1.PodStatus, over bool) corev1.PodPhase {
	if terminal(pod.Status.Phase) {
		return pod.Status.Phase
	}
	if over {
		if f.End != nil {
			return corev1.PodFailed
		}
		for _, cs := range s.ContainerStatuses {
			if t := cs.State.Terminated; t == nil || t.ExitCode != 0 {
				return corev1.PodFailed
			}
		}
		return corev1.PodSucceeded
	}
	if !f.Initialized && !anyStarted(s) {
		return corev1.PodPending
	}
	for _, cs := range s.ContainerStatuses {
		if cs.State.Waiting != nil && cs.LastTerminationState.Terminated == nil {
			return corev1.PodPending
		}
	}
	return corev1.PodRunning
}

func anyStarted(s *corev1.PodStatus) bool {
	for _, cs := range s.ContainerStatuses {
		if cs.State.Running != nil || cs.State.Terminated != nil || cs.LastTerminationState.Terminated != nil {
			return true
		}
	}
	return false
}
