package pod

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

// validateScheduling checks what the scheduler reads.
func validateScheduling(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	errs := validateAffinity(path.Child("affinity"), s.Affinity)
	gates := map[string]bool{}
	for i, g := range s.SchedulingGates {
		at := path.Child("schedulingGates").Index(i)
		errs = append(errs, rule.QualifiedName(at, g.Name)...)
		if gates[g.Name] {
			errs = append(errs, field.Duplicate(at, g.Name))
		}
		gates[g.Name] = true
	}
	for i, c := range s.TopologySpreadConstraints {
		errs = append(errs, validateSpread(path.Child("topologySpreadConstraints").Index(i), c, s.TopologySpreadConstraints[i+1:])...)
	}
	return append(errs, Tolerations(path.Child("tolerations"), s.Tolerations)...)
}

// Tolerations checks a list of tolerations.
func Tolerations(path *field.Path, tolerations []corev1.Toleration) field.ErrorList {
	var errs field.ErrorList
	for i, t := range tolerations {
		at := path.Index(i)
		if t.Key != "" {
			errs = append(errs, metav1validation.ValidateLabelName(t.Key, at.Child("key"))...)
		} else if t.Operator != corev1.TolerationOpExists {
			errs = append(errs, field.Invalid(at.Child("operator"), t.Operator,
				"operator must be Exists when `key` is empty, which means \"match all values and all keys\""))
		}
		if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
			errs = append(errs, field.Invalid(at.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"))
		}
		switch t.Operator {
		case corev1.TolerationOpEqual, "":
			if wrong := validation.IsValidLabelValue(t.Value); len(wrong) > 0 {
				errs = append(errs, field.Invalid(at.Child("operator"), t.Value, strings.Join(wrong, ";")))
			}
		case corev1.TolerationOpExists:
			if t.Value != "" {
				errs = append(errs, field.Invalid(at.Child("operator"), t.Value, "value must be empty when `operator` is 'Exists'"))
			}
		default:
			errs = append(errs, field.NotSupported(at.Child("operator"), t.Operator,
				[]corev1.TolerationOperator{corev1.TolerationOpEqual, corev1.TolerationOpExists}))
		}
		if t.Effect != "" {
			errs = append(errs, TaintEffect(at.Child("effect"), t.Effect)...)
		}
	}
	return errs
}

// TaintEffect wants one of the three effects.
func TaintEffect(at *field.Path, effect corev1.TaintEffect) field.ErrorList {
	return rule.OneOf(at, effect, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
}

func validateSpread(at *field.Path, c corev1.TopologySpreadConstraint, others []corev1.TopologySpreadConstraint) field.ErrorList {
	errs := rule.Positive(at.Child("maxSkew"), int64(c.MaxSkew))
	if c.TopologyKey == "" {
		errs = append(errs, field.Required(at.Child("topologyKey"), "can not be empty"))
	}
	if c.WhenUnsatisfiable != corev1.DoNotSchedule && c.WhenUnsatisfiable != corev1.ScheduleAnyway {
		errs = append(errs, field.NotSupported(at.Child("whenUnsatisfiable"), c.WhenUnsatisfiable,
			[]corev1.UnsatisfiableConstraintAction{corev1.DoNotSchedule, corev1.ScheduleAnyway}))
	}
	for _, o := range others {
		if o.TopologyKey == c.TopologyKey && o.WhenUnsatisfiable == c.WhenUnsatisfiable {
			errs = append(errs, field.Duplicate(at.Child("{topologyKey, whenUnsatisfiable}"), fmt.Sprintf("{%v, %v}", c.TopologyKey, c.WhenUnsatisfiable)))
			break
		}
	}
	if c.MinDomains != nil {
		errs = append(errs, rule.Positive(at.Child("minDomains"), int64(*c.MinDomains))...)
		if c.WhenUnsatisfiable != corev1.DoNotSchedule {
			errs = append(errs, field.Invalid(at.Child("minDomains"), c.MinDomains,
				fmt.Sprintf("can only use minDomains if whenUnsatisfiable=%s, not %s", corev1.DoNotSchedule, c.WhenUnsatisfiable)))
		}
	}
	for name, p := range map[string]*corev1.NodeInclusionPolicy{"nodeAffinityPolicy": c.NodeAffinityPolicy, "nodeTaintsPolicy": c.NodeTaintsPolicy} {
		if p != nil {
			errs = append(errs, rule.Known(at.Child(name), *p, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)...)
		}
	}
	errs = append(errs, labelKeys(at, c.MatchLabelKeys, nil, c.LabelSelector)...)
	return append(errs, selector(at.Child("labelSelector"), c.LabelSelector)...)
}

func selector(at *field.Path, s *metav1.LabelSelector) field.ErrorList {
	return metav1validation.ValidateLabelSelector(s, metav1validation.LabelSelectorValidationOptions{}, at)
}

// labelKeys checks matchLabelKeys and mismatchLabelKeys. They are merged into the selector when the Pod is made, so a key that is there twice
// was also written by hand.
func labelKeys(at *field.Path, match, mismatch []string, s *metav1.LabelSelector) field.ErrorList {
	var errs field.ErrorList
	for _, list := range []struct {
		name string
		keys []string
	}{{"matchLabelKeys", match}, {"mismatchLabelKeys", mismatch}} {
		if len(list.keys) > 0 && s == nil {
			errs = append(errs, field.Forbidden(at.Child(list.name), "must not be specified when labelSelector is not set"))
			continue
		}
		for i, key := range list.keys {
			errs = append(errs, metav1validation.ValidateLabelName(key, at.Child(list.name).Index(i))...)
		}
	}
	index := map[string]int{}
	for i, key := range match {
		index[key] = i
	}
	if s != nil {
		seen := map[string]bool{}
		for key := range s.MatchLabels {
			seen[key] = true
		}
		for _, e := range s.MatchExpressions {
			if i, ok := index[e.Key]; ok && seen[e.Key] {
				errs = append(errs, field.Invalid(at.Index(i), e.Key, "exists in both matchLabelKeys and labelSelector"))
			}
			seen[e.Key] = true
		}
	}
	for _, key := range mismatch {
		if i, ok := index[key]; ok {
			errs = append(errs, field.Invalid(at.Child("matchLabelKeys").Index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys"))
		}
	}
	return errs
}

func validateAffinity(path *field.Path, a *corev1.Affinity) field.ErrorList {
	if a == nil {
		return nil
	}
	const required, preferred = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
	var errs field.ErrorList
	if n := a.NodeAffinity; n != nil {
		at := path.Child("nodeAffinity")
		if n.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			errs = append(errs, NodeSelector(at.Child(required), n.RequiredDuringSchedulingIgnoredDuringExecution)...)
		}
		for i, t := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			at := at.Child(preferred).Index(i)
			errs = append(errs, weight(at, t.Weight)...)
			errs = append(errs, nodeTerm(at.Child("preference"), t.Preference, true)...)
		}
	}
	terms := func(at *field.Path, must []corev1.PodAffinityTerm, may []corev1.WeightedPodAffinityTerm) {
		for i, t := range must {
			errs = append(errs, podTerm(at.Child(required).Index(i), t)...)
		}
		for i, t := range may {
			at := at.Child(preferred).Index(i)
			errs = append(errs, weight(at, t.Weight)...)
			errs = append(errs, podTerm(at.Child("podAffinityTerm"), t.PodAffinityTerm)...)
		}
	}
	if p := a.PodAffinity; p != nil {
		terms(path.Child("podAffinity"), p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := a.PodAntiAffinity; p != nil {
		terms(path.Child("podAntiAffinity"), p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	return errs
}

func weight(at *field.Path, w int32) field.ErrorList {
	if w < 1 || w > 100 {
		return field.ErrorList{field.Invalid(at.Child("weight"), w, "must be in the range 1-100")}
	}
	return nil
}

func podTerm(at *field.Path, t corev1.PodAffinityTerm) field.ErrorList {
	errs := selector(at.Child("labelSelector"), t.LabelSelector)
	errs = append(errs, selector(at.Child("namespaceSelector"), t.NamespaceSelector)...)
	for _, ns := range t.Namespaces {
		errs = append(errs, rule.Messages(at.Child("namespace"), ns, apivalidation.ValidateNamespaceName(ns, false))...)
	}
	errs = append(errs, labelKeys(at, t.MatchLabelKeys, t.MismatchLabelKeys, t.LabelSelector)...)
	if t.TopologyKey == "" {
		errs = append(errs, field.Required(at.Child("topologyKey"), "can not be empty"))
	}
	return append(errs, metav1validation.ValidateLabelName(t.TopologyKey, at.Child("topologyKey"))...)
}
