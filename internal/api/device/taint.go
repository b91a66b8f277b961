package device

import (
	resourcev1 "k8s.io/api/resource/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

// TaintRule checks a rule that taints devices; old is nil for a new one.
func TaintRule(r, old *resourcev1.DeviceTaintRule) field.ErrorList {
	errs := rule.Meta(&r.ObjectMeta, false, apivalidation.NameIsDNSSubdomain)
	spec := field.NewPath("spec")
	if s := r.Spec.DeviceSelector; s != nil {
		at := spec.Child("deviceSelector")
		if s.Driver != nil {
			errs = append(errs, rule.DriverName(at.Child("driver"), *s.Driver)...)
		}
		if s.Pool != nil {
			errs = append(errs, poolName(at.Child("pool"), *s.Pool)...)
		}
		if s.Device != nil {
			errs = append(errs, rule.DNSLabel(at.Child("device"), *s.Device)...)
		}
	}
	var was *resourcev1.DeviceTaint
	if old != nil {
		errs = append(errs, rule.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta)...)
		was = &old.Spec.Taint
	}
	return append(errs, taint(spec.Child("taint"), r.Spec.Taint, was)...)
}

// TaintRuleStatus checks a changed status.
func TaintRuleStatus(r, old *resourcev1.DeviceTaintRule) field.ErrorList {
	errs := rule.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta)
	return append(errs, conditions(field.NewPath("status", "conditions"), r.Status.Conditions, resourcev1.DeviceTaintRuleStatusMaxConditions)...)
}

func conditions(at *field.Path, list []metav1.Condition, limit int) field.ErrorList {
	errs := metav1validation.ValidateConditions(list, at)
	if len(list) > limit {
		errs = append(errs, field.TooMany(at, len(list), limit))
	}
	return errs
}

// taint checks a taint; an effect that old has already may stay, whatever it is.
func taint(at *field.Path, t resourcev1.DeviceTaint, old *resourcev1.DeviceTaint) field.ErrorList {
	errs := metav1validation.ValidateLabelName(t.Key, at.Child("key"))
	if t.Value != "" {
		errs = append(errs, rule.LabelValue(at.Child("value"), t.Value)...)
	}
	if old == nil || old.Effect != t.Effect {
		errs = append(errs, rule.OneOf(at.Child("effect"), t.Effect, effects()...)...)
	}
	return errs
}

func effects() []resourcev1.DeviceTaintEffect {
	return []resourcev1.DeviceTaintEffect{resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone}
}

func toleration(at *field.Path, t resourcev1.DeviceToleration) field.ErrorList {
	var errs field.ErrorList
	if t.Key != "" {
		errs = append(errs, metav1validation.ValidateLabelName(t.Key, at.Child("key"))...)
	}
	switch t.Operator {
	case resourcev1.DeviceTolerationOpExists:
		if t.Value != "" {
			errs = append(errs, field.Invalid(at.Child("value"), t.Value, "must be empty for operator `Exists`"))
		}
	case resourcev1.DeviceTolerationOpEqual:
		errs = append(errs, rule.LabelValue(at.Child("value"), t.Value)...)
	default:
		errs = append(errs, rule.OneOf(at.Child("operator"), t.Operator, resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists)...)
	}
	if t.Effect != "" {
		errs = append(errs, rule.Known(at.Child("effect"), t.Effect, effects()...)...)
	}
	return errs
}
