package service

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// noAddress says whether a Service has no ClusterIP of any kind: it is only another name.
func noAddress(s *corev1.Service) bool { return s.Spec.Type == corev1.ServiceTypeExternalName }

func headless(s *corev1.Service) bool {
	return len(s.Spec.ClusterIPs) == 1 && s.Spec.ClusterIPs[0] == corev1.ClusterIPNone
}

// family is the one family of the cluster's services.
func family(prefix netip.Prefix) corev1.IPFamily {
	if prefix.Addr().Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// syncClusterIPs keeps clusterIP and clusterIPs the same for clients that know only the former. old is nil for a new Service.
func syncClusterIPs(s, old *corev1.Service) {
	if old == nil || s.Spec.ClusterIP != old.Spec.ClusterIP && slices.Equal(s.Spec.ClusterIPs, old.Spec.ClusterIPs) {
		switch {
		case s.Spec.ClusterIP == "" && old != nil:
			s.Spec.ClusterIPs = nil
		case s.Spec.ClusterIP != "" && (old != nil || len(s.Spec.ClusterIPs) == 0):
			s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
		}
	} else if s.Spec.ClusterIP == old.Spec.ClusterIP && len(s.Spec.ClusterIPs) == 0 && s.Spec.ClusterIP != "" {
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
}

// setFamilies fills in the IP family and its policy, on a cluster that has one family.
func setFamilies(s *corev1.Service, own corev1.IPFamily) field.ErrorList {
	spec := &s.Spec
	if noAddress(s) {
		spec.IPFamilies, spec.IPFamilyPolicy = nil, nil
		return nil
	}
	var errs field.ErrorList
	bare := headless(s) && len(spec.Selector) == 0 // its endpoints are made by someone else and may be of any family
	if spec.IPFamilyPolicy == nil {
		policy := corev1.IPFamilyPolicySingleStack
		switch {
		case bare:
			policy = corev1.IPFamilyPolicyRequireDualStack
		case len(spec.IPFamilies) == 2:
			errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilyPolicy"), spec.IPFamilyPolicy,
				"must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"))
		}
		spec.IPFamilyPolicy = &policy
	}
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = []corev1.IPFamily{own}
	}
	if bare {
		if *spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack && len(spec.IPFamilies) == 1 {
			spec.IPFamilies = append(spec.IPFamilies, other(spec.IPFamilies[0]))
		}
		return errs
	}
	if *spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack {
		errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilyPolicy"), *spec.IPFamilyPolicy,
			"this cluster is not configured for dual-stack services"))
	}
	for i, f := range spec.IPFamilies {
		if f != own {
			errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilies").Index(i), f, "not configured on this cluster"))
		}
	}
	return errs
}

func other(f corev1.IPFamily) corev1.IPFamily {
	if f == corev1.IPv4Protocol {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}
