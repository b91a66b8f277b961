package pod

import (
	"fmt"
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

// changeable names the fields of a Pod's spec that may change, as Kubernetes words it.
const changeable = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`," +
	"`spec.tolerations` (only additions to existing tolerations)," +
	"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

// ValidateUpdate checks a changed Pod against the old one.
func ValidateUpdate(p, old *corev1.Pod) field.ErrorList {
	spec := field.NewPath("spec")
	errs := rule.MetaUpdate(&p.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, validatePod(p)...)
	errs = append(errs, changedAnnotations(p.Annotations, old.Annotations)...)
	for _, list := range []struct {
		name     string
		now, was []corev1.Container
	}{
		{"containers", p.Spec.Containers, old.Spec.Containers},
		{"initContainers", p.Spec.InitContainers, old.Spec.InitContainers},
	} {
		if len(list.now) != len(list.was) {
			return append(errs, field.Forbidden(spec.Child(list.name), "pod updates may not add or remove containers"))
		}
	}
	wrong, stop := changedDeadline(spec.Child("activeDeadlineSeconds"), p.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds)
	errs = append(errs, wrong...)
	if stop {
		return errs
	}
	errs = append(errs, addedTolerations(spec.Child("tolerations"), p.Spec.Tolerations, old.Spec.Tolerations)...)
	errs = append(errs, removedGates(spec.Child("schedulingGates"), p.Spec.SchedulingGates, old.Spec.SchedulingGates)...)
	if equality.Semantic.DeepEqual(p.Spec, old.Spec) {
		return errs
	}
	rest := p.Spec.DeepCopy()
	forgetChangeable(rest, &old.Spec)
	if len(old.Spec.SchedulingGates) > 0 {
		errs = append(errs, changedPlacement(spec, rest, &old.Spec)...)
	}
	if !equality.Semantic.DeepEqual(*rest, old.Spec) {
		errs = append(errs, field.Forbidden(spec,
			fmt.Sprintf("pod updates may not change fields other than %s\n%v", changeable, diff.Diff(old.Spec, *rest))))
	}
	return errs
}

// forgetChangeable gives s the old values of the fields that may change.
func forgetChangeable(s, old *corev1.PodSpec) {
	for i := range s.Containers {
		s.Containers[i].Image = old.Containers[i].Image
	}
	for i := range s.InitContainers {
		s.InitContainers[i].Image = old.InitContainers[i].Image
	}
	s.ActiveDeadlineSeconds = old.ActiveDeadlineSeconds
	s.SchedulingGates = old.SchedulingGates
	s.Tolerations = old.Tolerations
	if was, now := old.TerminationGracePeriodSeconds, s.TerminationGracePeriodSeconds; was != nil && *was < 0 && now != nil && *now == 1 {
		s.TerminationGracePeriodSeconds = was
	}
}

// changedAnnotations refuses changes of the annotation that marks a mirror of a static Pod.
func changedAnnotations(now, was map[string]string) field.ErrorList {
	const key = corev1.MirrorPodAnnotationKey
	at := field.NewPath("metadata", "annotations").Key(key)
	value, is := now[key]
	before, wasThere := was[key]
	switch {
	case wasThere && (!is || value != before):
		return field.ErrorList{field.Forbidden(at, "may not remove or update mirror pod annotation")}
	case is && !wasThere:
		return field.ErrorList{field.Forbidden(at, "may not add mirror pod annotation")}
	}
	return nil
}

// changedDeadline lets a deadline be set or come nearer; stop says that nothing more can be said.
func changedDeadline(at *field.Path, now, was *int64) (errs field.ErrorList, stop bool) {
	switch {
	case now == nil && was == nil:
		return nil, false
	case now == nil:
		return field.ErrorList{field.Invalid(at, now, "must not update from a positive integer to nil value")}, false
	case *now < 0 || *now > math.MaxInt32:
		return field.ErrorList{field.Invalid(at, *now, validation.InclusiveRangeError(0, math.MaxInt32))}, true
	case was != nil && *was < *now:
		return field.ErrorList{field.Invalid(at, *now, "must be less than or equal to previous value")}, true
	}
	return nil, false
}

// addedTolerations lets tolerations be added and their seconds be changed.
func addedTolerations(path *field.Path, now, was []corev1.Toleration) field.ErrorList {
	for _, old := range was {
		found := false
		for _, t := range now {
			old.TolerationSeconds = t.TolerationSeconds
			found = found || equality.Semantic.DeepEqual(old, t)
		}
		if !found {
			return field.ErrorList{field.Forbidden(path, "existing toleration can not be modified except its tolerationSeconds")}
		}
	}
	return nil
}

func removedGates(path *field.Path, now, was []corev1.PodSchedulingGate) field.ErrorList {
	known := map[string]bool{}
	for _, g := range was {
		known[g.Name] = true
	}
	var errs field.ErrorList
	for i, g := range now {
		if !known[g.Name] {
			errs = append(errs, field.Forbidden(path.Index(i).Child("name"),
				fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", g.Name)))
		}
	}
	return errs
}

// changedPlacement lets a Pod that is held by gates be narrowed to fewer nodes, and gives s the old values of what may change so.
func changedPlacement(path *field.Path, s, old *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	for key, value := range old.NodeSelector {
		if s.NodeSelector[key] != value {
			errs = append(errs, field.Invalid(path.Child("nodeSelector"), s.NodeSelector,
				"only additions to spec.nodeSelector are allowed (no mutations or deletions)"))
			break
		}
	}
	s.NodeSelector = old.NodeSelector

	var now, was *corev1.NodeAffinity
	if s.Affinity != nil {
		now = s.Affinity.NodeAffinity
	}
	if old.Affinity != nil {
		was = old.Affinity.NodeAffinity
	}
	if equality.Semantic.DeepEqual(now, was) {
		return errs
	}
	errs = append(errs, narrowedAffinity(path.Child("affinity", "nodeAffinity"), now, was)...)
	switch {
	case s.Affinity == nil:
		s.Affinity = &corev1.Affinity{NodeAffinity: was}
	case old.Affinity == nil && s.Affinity.PodAffinity == nil && s.Affinity.PodAntiAffinity == nil:
		s.Affinity = nil
	default:
		s.Affinity.NodeAffinity = was
	}
	return errs
}

// narrowedAffinity lets requirements be added to the terms that there are.
func narrowedAffinity(path *field.Path, now, was *corev1.NodeAffinity) field.ErrorList {
	terms := func(a *corev1.NodeAffinity) []corev1.NodeSelectorTerm {
		if a == nil || a.RequiredDuringSchedulingIgnoredDuringExecution == nil {
			return nil
		}
		return a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	}
	before, after := terms(was), terms(now)
	at := path.Child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
	if len(before) > 0 && len(before) != len(after) {
		return field.ErrorList{field.Invalid(at, after, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")}
	}
	var errs field.ErrorList
	for i, t := range before {
		if !narrower(after[i], t) {
			errs = append(errs, field.Invalid(at.Index(i), after[i], "only additions are allowed (no mutations or deletions)"))
		}
	}
	return errs
}

// narrower says that a term has all of the old one, first and in order. An empty term matches nothing, so adding to it would widen it.
func narrower(now, was corev1.NodeSelectorTerm) bool {
	if len(was.MatchExpressions) == 0 && len(was.MatchFields) == 0 {
		return len(now.MatchExpressions) == 0 && len(now.MatchFields) == 0
	}
	starts := func(now, was []corev1.NodeSelectorRequirement) bool {
		return len(now) >= len(was) && equality.Semantic.DeepEqual(now[:len(was)], was)
	}
	return starts(now.MatchExpressions, was.MatchExpressions) && starts(now.MatchFields, was.MatchFields)
}

// ValidateEphemeralUpdate checks an update through the ephemeralcontainers subresource: those that there are stay as they are.
func ValidateEphemeralUpdate(p, old *corev1.Pod) field.ErrorList {
	if _, ok := old.Annotations[corev1.MirrorPodAnnotationKey]; ok {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers")}
	}
	errs := rule.MetaUpdate(&p.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, validatePod(p)...)
	now := map[string]*corev1.EphemeralContainer{}
	for i := range p.Spec.EphemeralContainers {
		now[p.Spec.EphemeralContainers[i].Name] = &p.Spec.EphemeralContainers[i]
	}
	at := field.NewPath("spec", "ephemeralContainers")
	for i := range old.Spec.EphemeralContainers {
		was := &old.Spec.EphemeralContainers[i]
		switch c := now[was.Name]; {
		case c == nil:
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", was.Name)))
		case !equality.Semantic.DeepEqual(c, was):
			errs = append(errs, field.Forbidden(at,
				fmt.Sprintf("existing ephemeral containers %q may not be changed\n%v", was.Name, diff.Diff(*was, *c))))
		}
	}
	return errs
}

// ValidateBinding checks a request to bind a Pod to a node.
func ValidateBinding(b *corev1.Binding) field.ErrorList {
	target := field.NewPath("target")
	var errs field.ErrorList
	if b.Target.Kind != "" && b.Target.Kind != "Node" {
		errs = append(errs, field.NotSupported(target.Child("kind"), b.Target.Kind, []string{"Node", "<empty>"}))
	}
	switch {
	case strings.TrimSpace(b.Target.Name) == "":
		errs = append(errs, field.Required(target.Child("name"), ""))
	case b.Target.Kind == "" || b.Target.Kind == "Node":
		errs = append(errs, rule.Subdomain(target.Child("name"), b.Target.Name)...)
	}
	return errs
}
