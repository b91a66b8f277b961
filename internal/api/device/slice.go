package device

import (
	"fmt"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/pod"
	"carob.dev/carob/internal/api/rule"
)

// DropSliceFields drops what Kubernetes does not keep by default either.
func DropSliceFields(s *resourcev1.ResourceSliceSpec) {
	s.PartitionTypeAttribute, s.SkipNodeOperations = nil, nil
	for i := range s.Devices {
		d := &s.Devices[i]
		d.NodeAllocatableResources = nil
		for j := range d.ConsumesCounters {
			d.ConsumesCounters[j].CompatibilityGroups = nil
		}
		for name, a := range d.Attributes {
			a.BoolValues, a.IntValues, a.StringValues, a.VersionValues = nil, nil, nil, nil
			d.Attributes[name] = a
		}
	}
}

// Slice checks what a driver tells of its devices; old is nil for a new slice.
func Slice(s, old *resourcev1.ResourceSlice) field.ErrorList {
	at := field.NewPath("spec")
	errs := rule.Meta(&s.ObjectMeta, false, apivalidation.NameIsDNSSubdomain)
	spec := &s.Spec
	errs = append(errs, rule.DriverName(at.Child("driver"), spec.Driver)...)
	errs = append(errs, poolName(at.Child("pool", "name"), spec.Pool.Name)...)
	errs = append(errs, rule.Positive(at.Child("pool", "resourceSliceCount"), spec.Pool.ResourceSliceCount)...)
	if n := spec.Pool.Generation; n < 0 {
		errs = append(errs, field.Invalid(at.Child("pool", "generation"), n, "must be greater than or equal to zero"))
	}
	before := map[string]*resourcev1.Device{}
	if old != nil {
		errs = append(errs, rule.MetaUpdate(&s.ObjectMeta, &old.ObjectMeta)...)
		errs = append(errs, rule.Immutable(at.Child("pool", "name"), spec.Pool.Name, old.Spec.Pool.Name)...)
		errs = append(errs, rule.Immutable(at.Child("driver"), spec.Driver, old.Spec.Driver)...)
		errs = append(errs, rule.Immutable(at.Child("nodeName"), spec.NodeName, old.Spec.NodeName)...)
		for i := range old.Spec.Devices {
			before[old.Spec.Devices[i].Name] = &old.Spec.Devices[i]
		}
	}
	errs = append(errs, where(at, spec)...)
	if spec.SharedCounters != nil && spec.Devices != nil {
		errs = append(errs, field.Invalid(at, "", "only one of `sharedCounters` or `devices` is allowed"))
	}
	limit, perDevice := resourcev1.ResourceSliceMaxDevices, spec.PerDeviceNodeSelection != nil && *spec.PerDeviceNodeSelection
	for _, d := range spec.Devices {
		if len(d.Taints) > 0 || len(d.ConsumesCounters) > 0 {
			limit = resourcev1.ResourceSliceMaxDevicesWithAdvancedFeatures
		}
	}
	errs = append(errs, set(at.Child("devices"), spec.Devices, limit, func(d resourcev1.Device) string { return d.Name },
		func(at *field.Path, d resourcev1.Device) field.ErrorList {
			return oneDevice(at, &d, before[d.Name], perDevice)
		})...)
	return append(errs, set(at.Child("sharedCounters"), spec.SharedCounters, resourcev1.ResourceSliceMaxCounterSets,
		func(c resourcev1.CounterSet) string { return c.Name },
		func(at *field.Path, c resourcev1.CounterSet) field.ErrorList {
			return append(label(at.Child("name"), c.Name), counters(at.Child("counters"), c.Counters, resourcev1.ResourceSliceMaxCountersPerCounterSet)...)
		})...)
}

// label wants a DNS label; none is Required.
func label(at *field.Path, name string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return rule.DNSLabel(at, name)
}

func counters(at *field.Path, m map[string]resourcev1.Counter, limit int) field.ErrorList {
	if len(m) == 0 {
		return field.ErrorList{field.Required(at, "")}
	}
	return table(at, m, limit, rule.DNSLabel, nil)
}

// choice collects which of several fields are set, of which exactly one must be.
type choice struct {
	set  []string
	errs field.ErrorList
}

func (c *choice) flag(at *field.Path, name string, value *bool) {
	switch {
	case value == nil:
	case *value:
		c.set = append(c.set, "`"+name+"`")
	default:
		c.errs = append(c.errs, field.Invalid(at.Child(name), *value, "must be either unset or set to true"))
	}
}

// done reports that not exactly one is set: none by missing, several by tooMany.
func (c *choice) done(at *field.Path, missing, tooMany string) field.ErrorList {
	switch len(c.set) {
	case 0:
		c.errs = append(c.errs, field.Required(at, missing))
	case 1:
	default:
		c.errs = append(c.errs, field.Invalid(at, fmt.Sprintf("{%s}", strings.Join(c.set, ", ")), tooMany))
	}
	return c.errs
}

// where checks which nodes reach the devices of a slice.
func where(at *field.Path, s *resourcev1.ResourceSliceSpec) field.ErrorList {
	var c choice
	switch {
	case s.NodeName == nil:
	case *s.NodeName == "":
		c.errs = append(c.errs, field.Invalid(at.Child("nodeName"), "", "must be either unset or set to a non-empty string"))
	default:
		c.set = append(c.set, "`nodeName`")
		c.errs = append(c.errs, rule.Subdomain(at.Child("nodeName"), *s.NodeName)...)
	}
	if s.NodeSelector != nil {
		c.set = append(c.set, "`nodeSelector`")
		c.errs = append(c.errs, pod.NodeSelector(at.Child("nodeSelector"), s.NodeSelector)...)
		if terms := s.NodeSelector.NodeSelectorTerms; len(terms) != 1 {
			c.errs = append(c.errs, field.Invalid(at.Child("nodeSelector", "nodeSelectorTerms"), terms, "must have exactly one node selector term"))
		}
	}
	c.flag(at, "allNodes", s.AllNodes)
	c.flag(at, "perDeviceNodeSelection", s.PerDeviceNodeSelection)
	const one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	return c.done(at, one, one+", but multiple fields are set")
}

// oneDevice checks a device; what is as it was in old, nil for a new device, is not checked again where rules became stricter.
func oneDevice(at *field.Path, d, old *resourcev1.Device, perDevice bool) field.ErrorList {
	errs := rule.DNSLabel(at.Child("name"), d.Name)
	if n := len(d.Attributes) + len(d.Capacity); n > resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice {
		errs = append(errs, field.Invalid(at, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d",
			resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice)))
	}
	errs = append(errs, table(at.Child("attributes"), d.Attributes, unlimited, qualifiedName, attribute)...)
	if old == nil || !equality.Semantic.DeepEqual(old.Capacity, d.Capacity) {
		shared := d.AllowMultipleAllocations != nil && *d.AllowMultipleAllocations
		errs = append(errs, table(at.Child("capacity"), d.Capacity, unlimited, qualifiedName,
			func(at *field.Path, c resourcev1.DeviceCapacity) field.ErrorList { return capacity(at, &c, shared) })...)
	}
	if old == nil || !equality.Semantic.DeepEqual(old.Taints, d.Taints) {
		errs = append(errs, each(at.Child("taints"), d.Taints, resourcev1.DeviceTaintsMaxLength,
			func(at *field.Path, t resourcev1.DeviceTaint) field.ErrorList { return taint(at, t, nil) })...)
	}
	errs = append(errs, set(at.Child("consumesCounters"), d.ConsumesCounters, resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice,
		func(c resourcev1.DeviceCounterConsumption) string { return c.CounterSet },
		func(at *field.Path, c resourcev1.DeviceCounterConsumption) field.ErrorList {
			return append(label(at.Child("counterSet"), c.CounterSet),
				counters(at.Child("counters"), c.Counters, resourcev1.ResourceSliceMaxCountersPerDeviceCounterConsumption)...)
		})...)
	switch {
	case perDevice:
		errs = append(errs, whereDevice(at, d)...)
	case d.NodeName != nil || d.NodeSelector != nil || d.AllNodes != nil:
		errs = append(errs, field.Invalid(at, nil,
			"`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"))
	}
	return append(errs, bindingConditions(at, d.BindingConditions, d.BindingFailureConditions)...)
}

func whereDevice(at *field.Path, d *resourcev1.Device) field.ErrorList {
	var c choice
	switch {
	case d.NodeName == nil:
	case *d.NodeName == "":
		c.errs = append(c.errs, field.Invalid(at.Child("nodeName"), "", "must not be empty"))
	default:
		c.set = append(c.set, "`nodeName`")
		c.errs = append(c.errs, rule.Subdomain(at.Child("nodeName"), *d.NodeName)...)
	}
	if d.NodeSelector != nil {
		c.set = append(c.set, "`nodeSelector`")
		c.errs = append(c.errs, pod.NodeSelector(at.Child("nodeSelector"), d.NodeSelector)...)
	}
	c.flag(at, "allNodes", d.AllNodes)
	const one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
	return c.done(at, one, one)
}

func attribute(at *field.Path, a resourcev1.DeviceAttribute) field.ErrorList {
	var errs field.ErrorList
	count := 0
	for _, set := range []bool{a.BoolValue != nil, a.IntValue != nil, a.StringValue != nil, a.VersionValue != nil} {
		if set {
			count++
		}
	}
	text := func(at *field.Path, value *string) {
		if value != nil && len(*value) > resourcev1.DeviceAttributeMaxValueLength {
			errs = append(errs, field.TooLong(at, "", resourcev1.DeviceAttributeMaxValueLength))
		}
	}
	text(at.Child("string"), a.StringValue)
	if v := a.VersionValue; v != nil && !semver.MatchString(*v) {
		errs = append(errs, field.Invalid(at.Child("version"), *v, "must be a string compatible with semver.org spec 2.0.0"))
	}
	text(at.Child("version"), a.VersionValue)
	switch count {
	case 0:
		errs = append(errs, field.Invalid(at, "", "exactly one value must be specified"))
	case 1:
	default:
		errs = append(errs, field.Invalid(at, a, "exactly one value must be specified"))
	}
	return errs
}
