package podstate

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podrule "carob.dev/carob/internal/api/pod"
)

// owned are the conditions that the agent writes, in Kubernetes' order. PodScheduled is the scheduler's unless nobody has set it.
var owned = []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady,
	corev1.PodScheduled, corev1.PodResizePending, corev1.PodResizeInProgress, corev1.AllContainersRestarting}

// Own says whether the agent writes conditions of the type in a status of these facts.
func (f *Facts) Own(t corev1.PodConditionType) bool {
	return slices.Contains(owned, t) || t == corev1.DisruptionTarget && len(disrupted(f)) > 0
}

// conditions are the Pod's: the agent's own anew, with the old time where the status is the same, and all others as they were.
func conditions(pod *corev1.Pod, f *Facts, s *corev1.PodStatus, old []corev1.PodCondition, now time.Time) []corev1.PodCondition {
	containers := containersReady(pod, s)
	fresh := []corev1.PodCondition{
		sandboxReady(f), podInitialized(pod, f, s), podReady(pod, old, containers), containers,
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
	}
	var list []corev1.PodCondition
	if podrule.MayRestartAll(&pod.Spec) {
		fresh = append(fresh, allRestarting(f, s))
	}
	for _, c := range slices.Concat(fresh, resizing(f), disrupted(f)) {
		if c.ObservedGeneration == 0 {
			c.ObservedGeneration = pod.Generation
		}
		c.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
		if was := find(old, c.Type); was != nil && was.Status == c.Status {
			c.LastTransitionTime = was.LastTransitionTime
			c.LastProbeTime = was.LastProbeTime
		}
		list = append(list, c)
	}
	for _, c := range old {
		if !slices.Contains(owned, c.Type) && find(list, c.Type) == nil {
			list = append(list, c)
		}
	}
	return list
}

// disrupted is the condition of a Pod that the node ends for the sake of others. Everybody who ends Pods writes it, so it is the agent's
// only then.
func disrupted(f *Facts) []corev1.PodCondition {
	if f.End == nil || !f.End.Disrupted {
		return nil
	}
	return []corev1.PodCondition{condition(corev1.DisruptionTarget, true, corev1.PodReasonTerminationByKubelet, f.End.Message)}
}

func find(list []corev1.PodCondition, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range list {
		if list[i].Type == t {
			return &list[i]
		}
	}
	return nil
}

func condition(t corev1.PodConditionType, ok bool, reason, message string) corev1.PodCondition {
	c := corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, Reason: reason, Message: message}
	if !ok {
		c.Status = corev1.ConditionFalse
	}
	return c
}

func allRestarting(f *Facts, s *corev1.PodStatus) corev1.PodCondition {
	switch {
	case s.Phase == corev1.PodSucceeded:
		return condition(corev1.AllContainersRestarting, false, "PodCompleted", "")
	case s.Phase == corev1.PodFailed:
		return condition(corev1.AllContainersRestarting, false, "PodFailed", "")
	case f.RestartingSince.IsZero():
		return condition(corev1.AllContainersRestarting, false, "", "")
	}
	return condition(corev1.AllContainersRestarting, true, "RestartAllContainersStarted", "container exited with restart policy rule")
}

// resizing are the conditions of changes of resources, which are there only as long as they are true.
func resizing(f *Facts) []corev1.PodCondition {
	var list []corev1.PodCondition
	if p := f.Pending; p != nil {
		c := condition(corev1.PodResizePending, true, p.Reason, p.Message)
		c.ObservedGeneration = p.Generation
		list = append(list, c)
	}
	if r := f.Resizing; r != nil {
		c := condition(corev1.PodResizeInProgress, true, "", "")
		if r.Error != "" {
			c = condition(corev1.PodResizeInProgress, true, corev1.PodReasonError, r.Error)
		}
		c.ObservedGeneration = r.Generation
		list = append(list, c)
	}
	return list
}

func sandboxReady(f *Facts) corev1.PodCondition {
	return condition(corev1.PodReadyToStartContainers, f.Sandbox != nil && f.Sandbox.Ready, "", "")
}

// podInitialized stays true once an app container has been started.
func podInitialized(pod *corev1.Pod, f *Facts, s *corev1.PodStatus) corev1.PodCondition {
	if s.Phase == corev1.PodSucceeded {
		return condition(corev1.PodInitialized, true, "PodCompleted", "")
	}
	if anyStarted(s) {
		return condition(corev1.PodInitialized, true, "", "")
	}
	var missing []string
	for _, spec := range containersOf(pod) {
		c := f.Containers[spec.Name]
		if spec.Kind == Init && (c.State != Exited || c.Exit.Code != 0) || spec.Kind == Sidecar && !started(spec, c) {
			missing = append(missing, spec.Name)
		}
	}
	if len(missing) > 0 {
		return condition(corev1.PodInitialized, false, "ContainersNotInitialized", fmt.Sprintf("containers with incomplete status: %s", missing))
	}
	return condition(corev1.PodInitialized, true, "", "")
}

func containersReady(pod *corev1.Pod, s *corev1.PodStatus) corev1.PodCondition {
	switch s.Phase {
	case corev1.PodSucceeded:
		return condition(corev1.ContainersReady, false, "PodCompleted", "")
	case corev1.PodFailed:
		return condition(corev1.ContainersReady, false, "PodFailed", "")
	}
	var unready []string
	for _, spec := range containersOf(pod) {
		list := s.ContainerStatuses
		switch spec.Kind {
		case Sidecar:
			list = s.InitContainerStatuses
		case Init, Ephemeral:
			continue
		}
		for _, cs := range list {
			if cs.Name == spec.Name && !cs.Ready {
				unready = append(unready, spec.Name)
			}
		}
	}
	if len(unready) > 0 {
		return condition(corev1.ContainersReady, false, "ContainersNotReady", fmt.Sprintf("containers with unready status: %s", unready))
	}
	return condition(corev1.ContainersReady, true, "", "")
}

// podReady is true when the containers are ready and so are the Pod's readiness gates.
func podReady(pod *corev1.Pod, old []corev1.PodCondition, containers corev1.PodCondition) corev1.PodCondition {
	if containers.Status != corev1.ConditionTrue {
		return condition(corev1.PodReady, false, containers.Reason, containers.Message)
	}
	var missing []string
	for _, gate := range pod.Spec.ReadinessGates {
		c := find(old, gate.ConditionType)
		switch {
		case c == nil:
			missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		case c.Status != corev1.ConditionTrue:
			missing = append(missing, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", gate.ConditionType, c.Status))
		}
	}
	if len(missing) > 0 {
		return condition(corev1.PodReady, false, "ReadinessGatesNotReady", strings.Join(missing, ", "))
	}
	return condition(corev1.PodReady, true, "", "")
}
