package agent

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/agent/podstate"
)

// adopt compares the record with what the runtime has after a restart of the agent. With no record (it was lost, or the machine was
// restarted) the newest sandbox is the Pod's, however it is: what may run in it must end before anything is started.
func (w *worker) adopt(known []*runtimeapi.PodSandboxStatusResponse, unrecorded bool) {
	f := w.facts
	if unrecorded && len(known) > 0 {
		newest := slices.MaxFunc(known, func(a, b *runtimeapi.PodSandboxStatusResponse) int {
			return cmp.Compare(a.GetStatus().GetMetadata().GetAttempt(), b.GetStatus().GetMetadata().GetAttempt())
		}).GetStatus()
		f.Sandbox = &podstate.Sandbox{ID: newest.GetId(), Attempt: newest.GetMetadata().GetAttempt(), IPs: sandboxIPs(newest),
			Ready: newest.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY}
		f.NextAttempt = f.Sandbox.Attempt + 1
	}
	found := false
	var mine *runtimeapi.PodSandboxStatusResponse
	for _, k := range known {
		s := k.GetStatus()
		switch {
		case f.Sandbox != nil && s.GetId() == f.Sandbox.ID:
			found, mine = true, k
		case f.Sandbox == nil && s.GetMetadata().GetAttempt() == f.NextAttempt && s.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY && !f.Gone:
			f.Sandbox = &podstate.Sandbox{ID: s.GetId(), Attempt: f.NextAttempt, Ready: true, IPs: sandboxIPs(s)}
			f.NextAttempt++
			found, mine = true, k
		default:
			f.Discard = append(f.Discard, podstate.Discarded{ID: s.GetId(), Sandbox: true})
			f.NextAttempt = max(f.NextAttempt, s.GetMetadata().GetAttempt()+1)
		}
	}
	if f.Sandbox != nil && !found {
		f.Sandbox.Ready, f.Sandbox.Stopped = false, true
	}
	present := map[string]bool{}
	if mine != nil {
		w.observe(mine.GetStatus(), mine.GetContainersStatuses())
		for _, c := range mine.GetContainersStatuses() {
			present[c.GetId()] = true
			if c.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING && c.GetLogPath() != "" {
				w.a.rotator.Add(c.GetId(), c.GetLogPath())
			}
		}
	}
	for name, c := range f.Containers {
		if c.ID != "" && !present[c.ID] {
			f.Lost(name, w.a.cfg.Clock.Now())
		}
		c.Creating = c.Creating && c.State == podstate.Absent
		if spec, ok := podstate.Find(w.pod, name); ok && c.State == podstate.Running && c.Applied == nil { // a record from before that was noted
			have := podstate.ContainerAmounts(w.pod, spec.Container)
			c.Applied = &have
		}
	}
}

func sandboxIPs(s *runtimeapi.PodSandboxStatus) []string {
	var ips []string
	if ip := s.GetNetwork().GetIp(); ip != "" {
		ips = append(ips, ip)
	}
	for _, more := range s.GetNetwork().GetAdditionalIps() {
		ips = append(ips, more.GetIp())
	}
	return ips
}

// observe takes over what the runtime says of a sandbox and its containers.
func (w *worker) observe(sb *runtimeapi.PodSandboxStatus, containers []*runtimeapi.ContainerStatus) {
	f := w.facts
	if f.Busy == podstate.Remove {
		return // whatever it was, it is going
	}
	if f.Sandbox != nil && sb.GetId() == f.Sandbox.ID && f.Sandbox.Ready && sb.GetState() == runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		f.Sandbox.Ready = false
		if !podstate.Ending(w.pod, f) {
			w.event(corev1.EventTypeNormal, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
		}
	}
	if f.Sandbox != nil && sb.GetId() != f.Sandbox.ID {
		return
	}
	for _, c := range containers {
		w.observeContainer(c)
	}
}

func (w *worker) observeContainer(c *runtimeapi.ContainerStatus) {
	s := podstate.Seen{Name: c.GetMetadata().GetName(), ID: c.GetId(), Attempt: int32(c.GetMetadata().GetAttempt()), State: podstate.Created,
		Code: c.GetExitCode(), Reason: c.GetReason(), Message: c.GetMessage(), StartedAt: unixNano(c.GetStartedAt()), FinishedAt: unixNano(c.GetFinishedAt())}
	switch c.GetState() {
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		s.State = podstate.Running
		w.followMemory(s.ID, s.StartedAt)
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		s.State = podstate.Exited
		w.a.forgetMemory(w.pod.UID, s.ID)
		if cur := w.facts.Containers[s.Name]; cur != nil && cur.ID == s.ID && cur.State != podstate.Exited {
			s.Message = joinMessages(s.Message, w.terminationMessage(c))
			w.a.rotator.End(s.ID)
			if s.Reason == reasonShimDied || s.Reason == reasonShimVersion {
				w.containerEvent(s.Name, corev1.EventTypeWarning, s.Reason, c.GetMessage())
			}
		}
	case runtimeapi.ContainerState_CONTAINER_UNKNOWN:
		return
	}
	if s.State == podstate.Exited && s.FinishedAt.IsZero() {
		s.FinishedAt = w.a.cfg.Clock.Now()
	}
	w.facts.Observe(s)
	if cur := w.facts.Containers[s.Name]; cur != nil && cur.ID == s.ID && cur.User == nil {
		cur.User = userOf(c)
	}
	if cur := w.facts.Containers[s.Name]; cur != nil && cur.ID == s.ID && cur.ImageID == "" && cur.Busy != podstate.Create { // the agent ended while it was made
		cur.ImageID = c.GetImageRef()
	}
}

// userOf is who a container's first process is; nil if the runtime does not tell.
func userOf(c *runtimeapi.ContainerStatus) *corev1.LinuxContainerUser {
	u := c.GetUser().GetLinux()
	if u == nil {
		return nil
	}
	return &corev1.LinuxContainerUser{UID: u.GetUid(), GID: u.GetGid(), SupplementalGroups: u.GetSupplementalGroups()}
}

func unixNano(n int64) time.Time {
	if n <= 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}
