package device

import (
	"fmt"
	"math"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validValuesMax is how many portions a capacity may list.
const validValuesMax = 10

// capacity checks an amount that a device has, and in which portions it may be asked for; only shared devices can be.
func capacity(at *field.Path, c *resourcev1.DeviceCapacity, shared bool) field.ErrorList {
	policy := c.RequestPolicy
	if policy == nil {
		return nil
	}
	at = at.Child("requestPolicy")
	switch values, span := len(policy.ValidValues) > 0, policy.ValidRange; {
	case !shared:
		return field.ErrorList{field.Forbidden(at, "allowMultipleAllocations must be true")}
	case values && span != nil:
		return field.ErrorList{field.Forbidden(at, `exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time`)}
	case values && policy.Default == nil:
		return field.ErrorList{field.Required(at.Child("default"), "required when validValues is defined")}
	case values:
		return validValues(at.Child("validValues"), policy.ValidValues, *policy.Default, c.Value)
	case span != nil && policy.Default == nil:
		return field.ErrorList{field.Required(at.Child("default"), "required when validRange is defined")}
	case span != nil:
		return validRange(at.Child("validRange"), span, *policy.Default, c.Value)
	}
	return nil
}

func validValues(at *field.Path, values []resource.Quantity, usual, most resource.Quantity) field.ErrorList {
	var errs field.ErrorList
	for i := 1; i < len(values); i++ {
		if values[i-1].Cmp(values[i]) > 0 {
			errs = append(errs, field.Invalid(at.Index(i), values[i].String(), "values must be sorted in ascending order"))
		}
	}
	found := false
	errs = append(errs, set(at, values, validValuesMax, func(q resource.Quantity) int64 { return q.Value() },
		func(at *field.Path, q resource.Quantity) field.ErrorList {
			found = found || q.Cmp(usual) == 0
			if q.Cmp(most) > 0 {
				return field.ErrorList{field.Invalid(at, q.String(), fmt.Sprintf("option is larger than capacity value: %s", most.String()))}
			}
			return nil
		})...)
	if !found {
		errs = append(errs, field.Invalid(at, usual.String(), "default value is not valid according to the requestPolicy"))
	}
	return errs
}

func validRange(at *field.Path, r *resourcev1.CapacityRequestPolicyRange, usual, most resource.Quantity) field.ErrorList {
	if r.Min == nil {
		return field.ErrorList{field.Required(at.Child("min"), "required when validRange is defined")}
	}
	var errs field.ErrorList
	wrong := func(name string, q *resource.Quantity, format string, than *resource.Quantity) {
		errs = append(errs, field.Invalid(at.Child(name), q.String(), fmt.Sprintf(format, than.String())))
	}
	if r.Min.Cmp(most) > 0 {
		wrong("min", r.Min, "min is larger than capacity value: %s", &most)
	}
	if usual.Cmp(*r.Min) < 0 {
		wrong("default", &usual, "default is less than min: %s", r.Min)
	}
	if r.Max != nil {
		if r.Min.Cmp(*r.Max) > 0 {
			wrong("max", r.Min, "min is larger than max: %s", r.Max)
		}
		if r.Max.Cmp(most) > 0 {
			wrong("max", r.Max, "max is larger than capacity value: %s", &most)
		}
		if usual.Cmp(*r.Max) > 0 {
			wrong("default", &usual, "default is more than max: %s", r.Max)
		}
	}
	if r.Step == nil {
		return errs
	}
	if r.Step.Sign() <= 0 {
		return append(errs, field.Invalid(at.Child("step"), r.Step.String(), "must be greater than zero"))
	}
	first := r.Min.DeepCopy()
	first.Add(*r.Step)
	if first.Cmp(most) > 0 {
		errs = append(errs, field.Invalid(at.Child("step"), r.Step.String(),
			fmt.Sprintf("one step %s is larger than capacity value: %s", first.String(), most.String())))
	}
	unsafe := false // beyond what can be reckoned with
	for _, p := range []struct {
		name string
		q    *resource.Quantity
	}{{"default", &usual}, {"min", r.Min}, {"max", r.Max}, {"step", r.Step}} {
		switch {
		case p.q == nil:
		case p.q.Sign() < 0:
			errs, unsafe = append(errs, field.Invalid(at.Child(p.name), p.q.String(), apivalidation.IsNegativeErrorMsg)), true
		case p.q.CmpInt64(math.MaxInt64) > 0:
			errs, unsafe = append(errs, field.Invalid(at.Child(p.name), p.q.String(), fmt.Sprintf("must not be larger than %d", int64(math.MaxInt64)))), true
		}
	}
	if unsafe {
		return errs
	}
	for _, q := range []*resource.Quantity{&usual, r.Max} {
		if q != nil && (q.Value()-r.Min.Value())%r.Step.Value() != 0 {
			errs = append(errs, field.Invalid(at.Child("step"), q.String(),
				fmt.Sprintf("value is not a multiple of a given step (%s) from (%s)", r.Step.String(), r.Min.String())))
		}
	}
	return errs
}
