package eviction

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"

	podrule "carob.dev/carob/internal/api/pod"
)

// Reason is that of a Pod that the node ended for want of something, or did not take.
const Reason = "Evicted"

// Message says why the Pod is ended, with annotations for the event that say the same to programs.
func Message(due []Threshold, o Observations, c Candidate) (string, map[string]string) {
	what := due[0].Signal.Resource()
	text := fmt.Sprintf("The node was low on resource: %v. ", what)
	for _, t := range due {
		if seen, ok := o[t.Signal]; ok && t.Signal.Resource() == what {
			text += fmt.Sprintf("Threshold quantity: %v, available: %v. ", t.Signal.quantity(t.Value.Of(seen.Capacity)), t.Signal.quantity(seen.Available))
			break
		}
	}
	notes := map[string]string{}
	if c.Stats == nil {
		return text, notes
	}
	if what == corev1.ResourceMemory && resourcehelper.IsPodLevelResourcesSet(c.Pod) && c.Stats.Memory != nil {
		if asked, ok := c.Pod.Spec.Resources.Requests[what]; ok {
			usage := resource.NewQuantity(value(c.Stats.Memory.WorkingSetBytes), resource.BinarySI)
			text += fmt.Sprintf("Pod %s was using %s, request is %s, has larger consumption of %v. ", c.Pod.Name, usage, asked.String(), what)
			notes["offending_pod"], notes["offending_pod_usage"] = c.Pod.Name, usage.String()
		}
	}
	var names, amounts []string
	for _, s := range c.Stats.Containers {
		i := slices.IndexFunc(containers(c.Pod), func(x corev1.Container) bool { return x.Name == s.Name })
		if i < 0 {
			continue
		}
		var usage *resource.Quantity
		switch {
		case what == corev1.ResourceEphemeralStorage && s.Rootfs != nil && s.Logs != nil:
			usage = resource.NewQuantity(value(s.Rootfs.UsedBytes)+value(s.Logs.UsedBytes), resource.BinarySI)
		case what == corev1.ResourceMemory && s.Memory != nil:
			usage = resource.NewQuantity(value(s.Memory.WorkingSetBytes), resource.BinarySI)
		}
		asked := containers(c.Pod)[i].Resources.Requests[what]
		if usage != nil && usage.Cmp(asked) > 0 {
			text += fmt.Sprintf("Container %s was using %s, request is %s, has larger consumption of %v. ", s.Name, usage, asked.String(), what)
			names, amounts = append(names, s.Name), append(amounts, usage.String())
		}
	}
	notes["offending_containers"], notes["offending_containers_usage"], notes["starved_resource"] = strings.Join(names, ","), strings.Join(amounts, ","), string(what)
	return text, notes
}

func containers(pod *corev1.Pod) []corev1.Container {
	return slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers)
}

// Refuse says why a node with these conditions does not take the Pod; empty if it does. Memory pressure is no reason for Pods that have asked
// for memory or tolerate it.
func Refuse(pod *corev1.Pod, qos corev1.PodQOSClass, conditions []corev1.NodeConditionType) string {
	if len(conditions) == 0 || podrule.Critical(pod) {
		return ""
	}
	if len(conditions) == 1 && conditions[0] == corev1.NodeMemoryPressure {
		if qos != corev1.PodQOSBestEffort {
			return ""
		}
		for _, t := range pod.Spec.Tolerations {
			if (t.Key == corev1.TaintNodeMemoryPressure || t.Key == "" && t.Operator == corev1.TolerationOpExists) &&
				(t.Effect == "" || t.Effect == corev1.TaintEffectNoSchedule) && (t.Operator == corev1.TolerationOpExists || t.Value == "") {
				return ""
			}
		}
	}
	return fmt.Sprintf("The node had condition: %v. ", conditions)
}
