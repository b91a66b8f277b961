package api

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// podRow prints a Pod as kubectl shows it. The rules are those of Kubernetes' printers: which container's reason stands for
// the Pod, and which restarts count.
func podRow(p *corev1.Pod, now time.Time) []any {
	s := summarize(p)
	restarts := strconv.Itoa(s.restarts)
	if s.restarts != 0 && !s.lastRestart.IsZero() {
		restarts = fmt.Sprintf("%d (%s ago)", s.restarts, age(s.lastRestart, now))
	}
	ip := ""
	if len(p.Status.PodIPs) > 0 {
		ip = p.Status.PodIPs[0].IP
	}
	return []any{
		p.Name, fmt.Sprintf("%d/%d", s.ready, s.total), s.reason, restarts, age(p.CreationTimestamp, now),
		or(ip, "<none>"), or(p.Spec.NodeName, "<none>"), or(p.Status.NominatedNodeName, "<none>"), readinessGates(p),
	}
}

// podCompleted are the conditions of a row of a Pod that has ended.
func podCompleted(obj runtime.Object) []metav1.TableRowCondition {
	message := ""
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return nil
	}
	switch p.Status.Phase {
	case corev1.PodSucceeded:
		message = "The pod has completed successfully."
	case corev1.PodFailed:
		message = "The pod failed."
	default:
		return nil
	}
	return []metav1.TableRowCondition{
		{Type: metav1.RowCompleted, Status: metav1.ConditionTrue, Reason: string(p.Status.Phase), Message: message},
	}
}

// summary is what a Pod's containers amount to.
type summary struct {
	total, ready, restarts int
	lastRestart            metav1.Time
	reason                 string
}

func (s *summary) count(c corev1.ContainerStatus) {
	s.restarts += int(c.RestartCount)
	if t := c.LastTerminationState.Terminated; t != nil && s.lastRestart.Before(&t.FinishedAt) {
		s.lastRestart = t.FinishedAt
	}
}

func summarize(p *corev1.Pod) summary {
	sidecars := map[string]bool{}
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sidecars[c.Name] = true
		}
	}
	s := summary{total: len(p.Spec.Containers) + len(sidecars), reason: or(p.Status.Reason, string(p.Status.Phase))}
	initialized := false
	for _, c := range p.Status.Conditions {
		switch {
		case c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonSchedulingGated:
			s.reason = corev1.PodReasonSchedulingGated
		case c.Type == corev1.PodInitialized:
			initialized = c.Status == corev1.ConditionTrue
		}
	}
	onlySidecars, initializing := s.initContainers(p, sidecars)
	if !initializing || initialized {
		s.restarts, s.lastRestart = onlySidecars.restarts, onlySidecars.lastRestart
		s.containers(p)
	}
	if p.DeletionTimestamp != nil {
		if p.Status.Reason == "NodeLost" {
			s.reason = "Unknown"
		} else if p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			s.reason = "Terminating"
		}
	}
	return s
}

// initContainers counts the init containers up to the first that has not done its part, which gives the reason.
// The restarts of sidecars are also counted apart: they alone go on counting once the Pod is initialized.
func (s *summary) initContainers(p *corev1.Pod, sidecars map[string]bool) (onlySidecars summary, initializing bool) {
	for i, c := range p.Status.InitContainerStatuses {
		s.count(c)
		sidecar := sidecars[c.Name]
		if sidecar {
			onlySidecars.count(c)
		}
		t, w := c.State.Terminated, c.State.Waiting
		switch {
		case t != nil && t.ExitCode == 0:
			continue
		case sidecar && c.Started != nil && *c.Started:
			if c.Ready {
				s.ready++
			}
			continue
		case t != nil:
			s.reason = "Init:" + terminationReason(t)
		case w != nil && w.Reason != "" && w.Reason != "PodInitializing":
			s.reason = "Init:" + w.Reason
		default:
			s.reason = fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
		}
		return onlySidecars, true
	}
	return onlySidecars, false
}

// containers counts the containers; the first in order that is not running gives the reason.
func (s *summary) containers(p *corev1.Pod) {
	running, failure := false, ""
	for i := len(p.Status.ContainerStatuses) - 1; i >= 0; i-- {
		c := p.Status.ContainerStatuses[i]
		s.count(c)
		t, w := c.State.Terminated, c.State.Waiting
		switch {
		case w != nil && w.Reason != "":
			s.reason = w.Reason
		case t != nil:
			s.reason = terminationReason(t)
			if t.ExitCode != 0 {
				failure = s.reason
			}
		case c.Ready && c.State.Running != nil:
			running = true
			s.ready++
		}
	}
	if s.reason != "Completed" {
		return
	}
	switch {
	case running && isReady(p):
		s.reason = "Running"
	case failure != "":
		s.reason = failure
	case running:
		s.reason = "NotReady"
	}
}

func terminationReason(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	}
	return fmt.Sprintf("ExitCode:%d", t.ExitCode)
}

func isReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}

// readinessGates tells how many of the Pod's gates are open.
func readinessGates(p *corev1.Pod) string {
	if len(p.Spec.ReadinessGates) == 0 {
		return "<none>"
	}
	status := map[corev1.PodConditionType]corev1.ConditionStatus{}
	for _, c := range p.Status.Conditions {
		if _, seen := status[c.Type]; !seen {
			status[c.Type] = c.Status
		}
	}
	open := 0
	for _, g := range p.Spec.ReadinessGates {
		if status[g.ConditionType] == corev1.ConditionTrue {
			open++
		}
	}
	return fmt.Sprintf("%d/%d", open, len(p.Spec.ReadinessGates))
}
