package device

import (
	"fmt"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

// DefaultClaimSpec has each request ask for one device, unless it says otherwise.
func DefaultClaimSpec(s *resourcev1.ResourceClaimSpec) {
	fill := func(mode *resourcev1.DeviceAllocationMode, count *int64) {
		if *mode == "" {
			*mode = resourcev1.DeviceAllocationModeExactCount
		}
		if *mode == resourcev1.DeviceAllocationModeExactCount && *count == 0 {
			*count = 1
		}
	}
	for i := range s.Devices.Requests {
		r := &s.Devices.Requests[i]
		if r.Exactly != nil {
			fill(&r.Exactly.AllocationMode, &r.Exactly.Count)
		}
		for j := range r.FirstAvailable {
			fill(&r.FirstAvailable[j].AllocationMode, &r.FirstAvailable[j].Count)
		}
	}
}

// DropClaimFields drops what Kubernetes does not keep by default either: attributes that a request works out itself.
func DropClaimFields(s *resourcev1.ResourceClaimSpec) {
	for i := range s.Devices.Requests {
		r := &s.Devices.Requests[i]
		if r.Exactly != nil {
			r.Exactly.DerivedAttributes = nil
		}
		for j := range r.FirstAvailable {
			r.FirstAvailable[j].DerivedAttributes = nil
		}
	}
}

// Claim checks a new claim for devices.
func Claim(c *resourcev1.ResourceClaim) field.ErrorList {
	return append(rule.Meta(&c.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), claimSpec(field.NewPath("spec"), &c.Spec)...)
}

// ClaimUpdate checks a changed claim: only metadata may change.
func ClaimUpdate(c, old *resourcev1.ResourceClaim) field.ErrorList {
	errs := append(rule.Meta(&c.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), rule.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)...)
	return append(errs, rule.Immutable(field.NewPath("spec"), c.Spec, old.Spec)...)
}

// Template checks a template of claims.
func Template(t *resourcev1.ResourceClaimTemplate) field.ErrorList {
	errs := rule.Meta(&t.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
	errs = append(errs, rule.TemplateMeta(field.NewPath("spec", "metadata"), &t.Spec.ObjectMeta)...)
	return append(errs, claimSpec(field.NewPath("spec", "spec"), &t.Spec.Spec)...)
}

// TemplateUpdate checks a changed template: only metadata may change.
func TemplateUpdate(t, old *resourcev1.ResourceClaimTemplate) field.ErrorList {
	errs := append(rule.MetaUpdate(&t.ObjectMeta, &old.ObjectMeta), rule.Immutable(field.NewPath("spec"), t.Spec, old.Spec)...)
	return append(errs, rule.Meta(&t.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)...)
}

func claimSpec(path *field.Path, s *resourcev1.ResourceClaimSpec) field.ErrorList {
	at, names := path.Child("devices"), requestNames(&s.Devices)
	errs := set(at.Child("requests"), s.Devices.Requests, resourcev1.DeviceRequestsMaxSize,
		func(r resourcev1.DeviceRequest) string { return r.Name }, request)
	errs = append(errs, each(at.Child("constraints"), s.Devices.Constraints, resourcev1.DeviceConstraintsMaxSize,
		func(at *field.Path, c resourcev1.DeviceConstraint) field.ErrorList { return constraint(at, c, names) })...)
	return append(errs, each(at.Child("config"), s.Devices.Config, resourcev1.DeviceConfigMaxSize,
		func(at *field.Path, c resourcev1.DeviceClaimConfiguration) field.ErrorList {
			return append(requests(at.Child("requests"), c.Requests, names), configuration(at, &c.DeviceConfiguration, false)...)
		})...)
}

// requestNames are the names by which the parts of a claim refer to its requests: "request" and "request/subrequest".
func requestNames(c *resourcev1.DeviceClaim) []string {
	var out []string
	for _, r := range c.Requests {
		out = append(out, r.Name)
		for _, s := range r.FirstAvailable {
			out = append(out, r.Name+"/"+s.Name)
		}
	}
	return out
}

func requests(at *field.Path, list, names []string) field.ErrorList {
	return set(at, list, resourcev1.DeviceRequestsMaxSize, itself,
		func(at *field.Path, name string) field.ErrorList { return requestRef(at, name, names) })
}

func requestRef(at *field.Path, name string, names []string) field.ErrorList {
	const what = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
	parts := strings.Split(name, "/")
	if len(parts) > 2 {
		return field.ErrorList{field.Invalid(at, name, what)}
	}
	var errs field.ErrorList
	for _, p := range parts {
		errs = append(errs, rule.DNSLabel(at, p)...)
	}
	if !slices.Contains(names, name) {
		errs = append(errs, field.Invalid(at, name, what))
	}
	return errs
}

func request(at *field.Path, r resourcev1.DeviceRequest) field.ErrorList {
	errs := rule.DNSLabel(at.Child("name"), r.Name)
	switch several := len(r.FirstAvailable) > 0; {
	case several && r.Exactly != nil:
		errs = append(errs, field.Invalid(at, nil, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"))
	case several:
		errs = append(errs, set(at.Child("firstAvailable"), r.FirstAvailable, resourcev1.FirstAvailableDeviceRequestMaxSize,
			func(s resourcev1.DeviceSubRequest) string { return s.Name },
			func(at *field.Path, s resourcev1.DeviceSubRequest) field.ErrorList {
				return append(rule.DNSLabel(at.Child("name"), s.Name),
					wanted(at, s.DeviceClassName, s.Selectors, s.AllocationMode, s.Count, s.Tolerations)...)
			})...)
	case r.Exactly != nil:
		e := r.Exactly
		errs = append(errs, wanted(at.Child("exactly"), e.DeviceClassName, e.Selectors, e.AllocationMode, e.Count, e.Tolerations)...)
	default:
		errs = append(errs, field.Required(at, "exactly one of `exactly` or `firstAvailable` is required"))
	}
	return errs
}

// wanted checks what a request and a subrequest have in common.
func wanted(at *field.Path, class string, by []resourcev1.DeviceSelector, mode resourcev1.DeviceAllocationMode, count int64,
	tolerations []resourcev1.DeviceToleration,
) field.ErrorList {
	var errs field.ErrorList
	if class == "" {
		errs = append(errs, field.Required(at.Child("deviceClassName"), ""))
	} else {
		errs = append(errs, rule.Subdomain(at.Child("deviceClassName"), class)...)
	}
	errs = append(errs, selectors(at.Child("selectors"), by, false)...)
	switch mode {
	case resourcev1.DeviceAllocationModeAll:
		if count != 0 {
			errs = append(errs, field.Invalid(at.Child("count"), count, fmt.Sprintf("must not be specified when allocationMode is '%s'", mode)))
		}
	case resourcev1.DeviceAllocationModeExactCount:
		errs = append(errs, rule.Positive(at.Child("count"), count)...)
	default:
		errs = append(errs, rule.Known(at.Child("allocationMode"), mode, resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount)...)
	}
	return append(errs, each(at.Child("tolerations"), tolerations, resourcev1.DeviceTolerationsMaxLength, toleration)...)
}

func constraint(at *field.Path, c resourcev1.DeviceConstraint, names []string) field.ErrorList {
	errs := requests(at.Child("requests"), c.Requests, names)
	switch {
	case c.MatchAttribute != nil:
		errs = append(errs, fullName(at.Child("matchAttribute"), *c.MatchAttribute)...)
	case c.DistinctAttribute != nil:
		errs = append(errs, fullName(at.Child("distinctAttribute"), *c.DistinctAttribute)...)
	default:
		errs = append(errs, field.Required(at, `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`))
	}
	return errs
}

// AdminAccess is where a claim asks for devices that others use; nil if it does not.
func AdminAccess(path *field.Path, s *resourcev1.ResourceClaimSpec) *field.Path {
	for i, r := range s.Devices.Requests {
		if r.Exactly != nil && r.Exactly.AdminAccess != nil && *r.Exactly.AdminAccess {
			return path.Child("devices", "requests").Index(i).Child("adminAccess")
		}
	}
	return nil
}
