package podstate

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// FactsVersion is the version of the form in which Facts are kept.
const FactsVersion = 1

// Facts are what is known of one Pod on this node. Fields tagged "-" are known anew after a restart of the agent.
type Facts struct {
	Version   int    `json:"version"`
	UID       string `json:"uid"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// StartTime is when the agent first saw the Pod.
	StartTime time.Time `json:"startTime"`
	// Sandbox is the present one, or the last if it has stopped; nil before the first.
	Sandbox *Sandbox `json:"sandbox,omitempty"`
	// NextAttempt numbers the next sandbox.
	NextAttempt uint32 `json:"nextAttempt"`
	// Initialized says that all init containers of this sandbox are done.
	Initialized bool `json:"initialized"`
	// Containers are by name: init, app and ephemeral ones.
	Containers map[string]*Container `json:"containers"`
	// End says that the node ends the Pod whatever its containers do; nil if not.
	End *End `json:"end,omitempty"`
	// EndingSince is when its containers began to be stopped for good; zero if that has not begun.
	EndingSince time.Time `json:"endingSince,omitzero"`
	// RestartingSince is when all containers began to be stopped because a rule has them all start again; zero if not.
	RestartingSince time.Time `json:"restartingSince,omitzero"`
	// Discard are containers and sandboxes that nothing needs any more.
	Discard []Discarded `json:"discard,omitempty"`
	// Granted is the cpu and memory that the Pod may have, Applied what its cgroup was made with; nil before that.
	Granted *Grant   `json:"granted,omitempty"`
	Applied *Amounts `json:"applied,omitempty"`
	// Pending is a change of resources that waits to be granted, Resizing one that is being made; nil for none.
	Pending  *Pending  `json:"pending,omitempty"`
	Resizing *Resizing `json:"resizing,omitempty"`
	// Released says that volumes and cgroup of an ended Pod are gone.
	Released bool `json:"released,omitempty"`

	// RestingSince is when the node began to put the Pod to rest: its containers are stopped gracefully and start again with the agent's next
	// life. Zero if not.
	RestingSince time.Time `json:"-"`
	// Gone says that the Pod is no longer in the API.
	Gone bool `json:"-"`
	// Prepared says that cgroup, folders and volumes are ready.
	Prepared bool `json:"-"`
	// Removed says that the sandbox and everything of the Pod is off the node, but for its record.
	Removed bool `json:"-"`
	// StatusWritten says that the API has the status of the last decision.
	StatusWritten bool `json:"-"`
	// Busy is the action on the Pod as a whole that is under way.
	Busy Verb `json:"-"`
	// Trouble is why the last such action failed.
	Trouble *Trouble `json:"-"`
	HostIPs []string `json:"-"`
	// MaxBackoff is the longest wait between restarts of a container; Kubernetes' when zero.
	MaxBackoff time.Duration `json:"-"`
	// Runtime is the name of the runtime that the IDs are of; empty for carob's own.
	Runtime string `json:"-"`
}

// Discarded is something to remove.
type Discarded struct {
	ID      string `json:"id"`
	Sandbox bool   `json:"sandbox,omitempty"`
}

// End is why the node ends a Pod, as its status tells it.
type End struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Rejected says that the node never took the Pod: it has no containers.
	Rejected bool `json:"rejected,omitempty"`
	// Grace is how long its containers have to end by themselves, where that is not as long as the Pod says.
	Grace *time.Duration `json:"grace,omitempty"`
	// Disrupted says that the status tells of it by the condition DisruptionTarget.
	Disrupted bool `json:"disrupted,omitempty"`
}

// Sandbox is one sandbox of the Pod.
type Sandbox struct {
	ID      string   `json:"id"`
	Attempt uint32   `json:"attempt"`
	IPs     []string `json:"ips,omitempty"`
	// Ready says that pause lives.
	Ready bool `json:"ready"`
	// Stopped says that nothing of it runs any more and its network has been given back.
	Stopped bool `json:"stopped"`
}

// State is how far an instance of a container is.
type State string

// The states of an instance; Absent is the zero value.
const (
	Absent  State = ""
	Created State = "created"
	Running State = "running"
	Exited  State = "exited"
)

// Exit is how an instance of a container ended.
type Exit struct {
	ID         string    `json:"id"`
	Code       int32     `json:"code"`
	Reason     string    `json:"reason"`
	Message    string    `json:"message,omitempty"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
}

// Container is what is known of one container.
type Container struct {
	State State `json:"state"`
	// ID is that of the present instance; empty while Absent.
	ID string `json:"id,omitempty"`
	// Attempt is how often it was started again: the number of the present instance, or of the coming one while Absent.
	Attempt int32 `json:"attempt"`
	// Creating says that an instance with this Attempt may have been made though its ID is not known.
	Creating bool `json:"creating,omitempty"`
	// Image is the name, ImageID the digest, of the present instance's image.
	Image   string `json:"image,omitempty"`
	ImageID string `json:"imageID,omitempty"`
	// SpecImage is what the Pod called the image then. Changed says that the instance is stopped for another that the spec
	// asks for; Replaces says that of the one before this.
	SpecImage string `json:"specImage,omitempty"`
	Replaces  bool   `json:"replaces,omitempty"`
	// Applied is what the present instance's cgroup was made with.
	Applied   *Amounts  `json:"applied,omitempty"`
	Changed   bool      `json:"changed,omitempty"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	// User is who the present instance's first process is; nil if that is not known.
	User *corev1.LinuxContainerUser `json:"user,omitempty"`
	// Exit is set when State is Exited. Last is that of the instance before.
	Exit *Exit `json:"exit,omitempty"`
	Last *Exit `json:"last,omitempty"`
	// Hooked says that postStart of this instance has been begun; it is set too when there is none. PreStopped is the same for preStop.
	Hooked     bool `json:"hooked,omitempty"`
	PreStopped bool `json:"preStopped,omitempty"`
	// Backoff is the wait before the next start, as of BackoffAt.
	Backoff   time.Duration `json:"backoff,omitempty"`
	BackoffAt time.Time     `json:"backoffAt,omitzero"`
	// Startup, Readiness and Liveness are the results of these probes of this instance, HookError is how its postStart failed, empty if it did
	// not: an instance that is to be stopped for it is stopped by the agent's next life too.
	Startup   Result `json:"startup,omitempty"`
	Readiness Result `json:"readiness,omitempty"`
	Liveness  Result `json:"liveness,omitempty"`
	HookError string `json:"hookError,omitempty"`

	// Busy is the action on it that is under way.
	Busy Verb `json:"-"`
	// StopGrace is the grace of the stop under way.
	StopGrace time.Duration `json:"-"`
	// Trouble is why it does not run.
	Trouble *Trouble `json:"-"`
	// ImageRef is the image that the next instance is to have, once it is on the node.
	ImageRef string `json:"-"`
}

// Trouble is why something could not be done, and when to try again.
type Trouble struct {
	Reason, Message string
	RetryAt         time.Time
}

// Result is what a probe says.
type Result int

// The results; Unknown before a probe has said anything.
const (
	Unknown Result = iota
	Success
	Failure
)

// running says that a process of the instance may live.
func (c *Container) running() bool { return c.State == Running || c.State == Created }

// New returns the Facts of a Pod that this node has not seen before. What the API says of an earlier life of the Pod on this node (before
// a reboot) is taken over: restart counts and ends.
func New(pod *corev1.Pod, now time.Time) *Facts {
	f := &Facts{Version: FactsVersion, UID: string(pod.UID), Namespace: pod.Namespace, Name: pod.Name, StartTime: now.Truncate(time.Second),
		Containers: map[string]*Container{}, Granted: recalled(pod)}
	if pod.Status.StartTime != nil {
		f.StartTime = pod.Status.StartTime.Time
	}
	if terminal(pod.Status.Phase) {
		f.End = &End{Reason: pod.Status.Reason, Message: pod.Status.Message, Rejected: len(pod.Status.ContainerStatuses) == 0}
	}
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for _, s := range list {
			f.recall(s)
		}
	}
	f.Complete(pod)
	return f
}

// recall takes over what the API knows of a container of which the node remembers nothing. One that ran is said to be running: if the
// runtime does not know it, Lost must be told.
func (f *Facts) recall(s corev1.ContainerStatus) {
	c := &Container{Attempt: s.RestartCount, Image: s.Image, ImageID: s.ImageID}
	if t := s.LastTerminationState.Terminated; t != nil {
		c.Last = exitOf(t)
	}
	switch {
	case s.State.Terminated != nil:
		c.State, c.Exit = Exited, exitOf(s.State.Terminated)
	case s.State.Running != nil:
		c.State, c.ID, c.Hooked, c.StartedAt = Running, trimScheme(s.ContainerID), true, s.State.Running.StartedAt.Time
	case s.State.Waiting != nil && s.State.Waiting.Reason == crashLoop && c.Last != nil:
		c.State, c.Exit, c.Last = Exited, c.Last, nil // it had not been started again
	case s.State.Waiting != nil && c.Last != nil:
		c.Attempt++ // it was being started again, which had not counted yet
	}
	if c.Exit != nil {
		c.ID, c.Hooked = c.Exit.ID, true
		if c.StartedAt.IsZero() {
			c.StartedAt = c.Exit.StartedAt
		}
	}
	f.Containers[s.Name] = c
}

func exitOf(t *corev1.ContainerStateTerminated) *Exit {
	return &Exit{ID: trimScheme(t.ContainerID), Code: t.ExitCode, Reason: t.Reason, Message: t.Message, StartedAt: t.StartedAt.Time, FinishedAt: t.FinishedAt.Time}
}

// Complete adds what is missing for the containers of the Pod, and drops nothing. It returns f.
func (f *Facts) Complete(pod *corev1.Pod) *Facts {
	if f.Containers == nil {
		f.Containers = map[string]*Container{}
	}
	if f.Granted == nil { // a record from before there were grants
		f.Granted = Asked(pod)
	}
	for _, c := range containersOf(pod) {
		if f.Containers[c.Name] == nil {
			f.Containers[c.Name] = &Container{}
		}
	}
	return f
}

// Named returns the container whose present instance has the ID.
func (f *Facts) Named(id string) (string, *Container) {
	for name, c := range f.Containers {
		if c.ID == id && id != "" {
			return name, c
		}
	}
	return "", nil
}
