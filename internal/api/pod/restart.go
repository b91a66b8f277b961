package pod

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

// Greatest numbers of a container's restart rules, and of exit codes in one.
const (
	maxRestartRules     = 20
	maxRestartExitCodes = 255
)

// validateRestart checks a container's own restart policy and its rules. at is the container's path.
func validateRestart(at *field.Path, c *corev1.Container) field.ErrorList {
	var errs field.ErrorList
	switch p := c.RestartPolicy; {
	case p != nil:
		errs = append(errs, rule.Known(at.Child("restartPolicy"), *p, corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever,
			corev1.ContainerRestartPolicyOnFailure)...)
	case len(c.RestartPolicyRules) > 0:
		errs = append(errs, field.Required(at.Child("restartPolicy"), "must specify restartPolicy when restart rules are used"))
	}
	list := at.Child("restartPolicyRules")
	if n := len(c.RestartPolicyRules); n > maxRestartRules {
		errs = append(errs, field.TooMany(list, n, maxRestartRules))
	}
	for i, r := range c.RestartPolicyRules {
		errs = append(errs, rule.Known(list.Index(i).Child("action"), r.Action,
			corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)...)
		codes := list.Index(i).Child("exitCodes")
		if r.ExitCodes == nil {
			errs = append(errs, field.Required(codes, "must be specified"))
			continue
		}
		errs = append(errs, rule.Known(codes.Child("operator"), r.ExitCodes.Operator,
			corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)...)
		if n := len(r.ExitCodes.Values); n > maxRestartExitCodes {
			errs = append(errs, field.TooMany(codes.Child("values"), n, maxRestartExitCodes))
		}
	}
	return errs
}

// RestartRule is the action of the first of a container's rules that is about the exit code; empty if none is.
func RestartRule(c *corev1.Container, code int32) corev1.ContainerRestartRuleAction {
	for _, r := range c.RestartPolicyRules {
		if r.ExitCodes == nil {
			continue
		}
		named := slices.Contains(r.ExitCodes.Values, code)
		if r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn && named ||
			r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpNotIn && !named {
			return r.Action
		}
	}
	return ""
}

// Restarts says whether a container that ended with the code is to be started again: by its rules, then its own policy, then the Pod's.
func Restarts(s *corev1.PodSpec, c *corev1.Container, code int32) bool {
	switch RestartRule(c, code) {
	case corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers:
		return true
	}
	policy := corev1.ContainerRestartPolicy(s.RestartPolicy)
	if c.RestartPolicy != nil {
		policy = *c.RestartPolicy
	}
	switch policy {
	case corev1.ContainerRestartPolicyNever:
		return false
	case corev1.ContainerRestartPolicyOnFailure:
		return code != 0
	}
	return true
}

// MayRestartAll says whether some container has a rule that restarts all of them.
func MayRestartAll(s *corev1.PodSpec) bool {
	for _, list := range [][]corev1.Container{s.InitContainers, s.Containers} {
		for _, c := range list {
			for _, r := range c.RestartPolicyRules {
				if r.Action == corev1.ContainerRestartRuleActionRestartAllContainers {
					return true
				}
			}
		}
	}
	return false
}
