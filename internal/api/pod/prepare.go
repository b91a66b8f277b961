package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PrepareForCreate gives a new Pod its first status, and selectors their labels.
func PrepareForCreate(p *corev1.Pod) {
	p.Generation = 1
	defaultPodResources(p)
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: computeQOS(p)}
	if len(p.Spec.SchedulingGates) > 0 {
		p.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
			Message: "Scheduling is blocked due to non-empty scheduling gates",
		}}
	}
	mergeLabelKeys(p)
}

// PrepareForUpdate keeps the status, and counts a changed spec as a new generation.
func PrepareForUpdate(p, old *corev1.Pod) {
	p.Status = old.Status
	countGeneration(p, old)
}

func countGeneration(p, old *corev1.Pod) {
	if !equality.Semantic.DeepEqual(p.Spec, old.Spec) {
		p.Generation = old.Generation + 1
	}
}

// PrepareEphemeral keeps everything but the ephemeral containers.
func PrepareEphemeral(p, old *corev1.Pod) {
	containers := p.Spec.EphemeralContainers
	p.Spec = *old.Spec.DeepCopy()
	p.Spec.EphemeralContainers = containers
	p.Status = old.Status
	metav1.ResetObjectMetaForStatus(&p.ObjectMeta, &old.ObjectMeta)
	countGeneration(p, old)
}

// PrepareStatus keeps everything but the status and the metadata that its writers may change.
func PrepareStatus(p, old *corev1.Pod) {
	p.Spec = old.Spec
	p.DeletionTimestamp = nil
	p.OwnerReferences = old.OwnerReferences
	if p.Status.QOSClass == "" {
		p.Status.QOSClass = old.Status.QOSClass
	}
	keepObserved(&p.Status, &old.Status)
}

// keepObserved keeps the observed generations that a writer left out, which may not know of them.
func keepObserved(s, old *corev1.PodStatus) {
	if s.ObservedGeneration == 0 {
		s.ObservedGeneration = old.ObservedGeneration
	}
	was := map[corev1.PodConditionType][]int64{} // a type may be there more than once
	for _, c := range old.Conditions {
		was[c.Type] = append(was[c.Type], c.ObservedGeneration)
	}
	for i := range s.Conditions {
		c := &s.Conditions[i]
		if list := was[c.Type]; len(list) > 0 {
			was[c.Type] = list[1:]
			if c.ObservedGeneration == 0 {
				c.ObservedGeneration = list[0]
			}
		}
	}
}

// mergeLabelKeys puts matchLabelKeys and mismatchLabelKeys into the selectors they belong to, with the values of the Pod's own labels.
func mergeLabelKeys(p *corev1.Pod) {
	for i := range p.Spec.TopologySpreadConstraints {
		c := &p.Spec.TopologySpreadConstraints[i]
		mergeKeys(c.LabelSelector, c.MatchLabelKeys, metav1.LabelSelectorOpIn, p.Labels)
	}
	if p.Spec.Affinity == nil {
		return
	}
	term := func(t *corev1.PodAffinityTerm) {
		mergeKeys(t.LabelSelector, t.MatchLabelKeys, metav1.LabelSelectorOpIn, p.Labels)
		mergeKeys(t.LabelSelector, t.MismatchLabelKeys, metav1.LabelSelectorOpNotIn, p.Labels)
	}
	terms := func(must []corev1.PodAffinityTerm, may []corev1.WeightedPodAffinityTerm) {
		for i := range may {
			term(&may[i].PodAffinityTerm)
		}
		for i := range must {
			term(&must[i])
		}
	}
	if a := p.Spec.Affinity.PodAffinity; a != nil {
		terms(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a := p.Spec.Affinity.PodAntiAffinity; a != nil {
		terms(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

// mergeKeys adds to a selector one requirement for each key that the Pod has as a label.
func mergeKeys(s *metav1.LabelSelector, keys []string, op metav1.LabelSelectorOperator, labels map[string]string) {
	if s == nil {
		return
	}
	for _, key := range keys {
		if value, ok := labels[key]; ok {
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: op, Values: []string{value}})
		}
	}
}

// Graceful decides how a Pod is deleted: it writes the grace period into the options, in seconds. Zero, at once, for a Pod
// that no node runs or that has ended; else what the request or, without that, the Pod says.
func Graceful(p *corev1.Pod, options *metav1.DeleteOptions) bool {
	if options == nil {
		return false
	}
	period := int64(0)
	switch {
	case p.Spec.NodeName == "", p.Status.Phase == corev1.PodFailed, p.Status.Phase == corev1.PodSucceeded:
	case options.GracePeriodSeconds != nil:
		period = *options.GracePeriodSeconds
	case p.Spec.TerminationGracePeriodSeconds != nil:
		period = *p.Spec.TerminationGracePeriodSeconds
	}
	if period < 0 {
		period = 1
	}
	options.GracePeriodSeconds = &period
	return true
}
