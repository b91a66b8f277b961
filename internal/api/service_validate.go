package api

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

// maxClientIPTimeout is the longest session affinity, in seconds: a day.
const maxClientIPTimeout = 86400

func validateNewService(s *corev1.Service) field.ErrorList {
	return append(rule.Meta(&s.ObjectMeta, true, apivalidation.NameIsDNSLabel), validateService(s, &corev1.Service{})...)
}

// validateService checks a Service as it is. Addresses that old has may stay, whatever is wrong with them.
func validateService(s, old *corev1.Service) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validateServiceType(spec, s)
	errs = append(errs, validateServicePorts(spec.Child("ports"), s)...)
	errs = append(errs, metav1validation.ValidateLabels(s.Spec.Selector, spec.Child("selector"))...)
	errs = append(errs, validateSessionAffinity(spec, &s.Spec)...)
	errs = append(errs, validateClusterIPs(spec, s, old)...)
	for i, ip := range s.Spec.ExternalIPs {
		at := spec.Child("externalIPs").Index(i)
		if wrong := rule.IP(at, ip, old.Spec.ExternalIPs...); len(wrong) > 0 {
			errs = append(errs, wrong...)
		} else {
			errs = append(errs, rule.EndpointIP(at, ip)...)
		}
	}
	errs = append(errs, validateLoadBalancer(spec, s, old)...)
	return append(errs, validateTraffic(spec, s)...)
}

func validateServiceType(spec *field.Path, s *corev1.Service) field.ErrorList {
	errs := rule.OneOf(spec.Child("type"), s.Spec.Type,
		corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort)
	if len(s.Spec.Ports) == 0 && !headless(s) && s.Spec.Type != corev1.ServiceTypeExternalName {
		errs = append(errs, field.Required(spec.Child("ports"), ""))
	}
	switch s.Spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		if headless(s) {
			errs = append(errs, field.Invalid(spec.Child("clusterIPs").Index(0), s.Spec.ClusterIPs[0],
				fmt.Sprintf("may not be set to 'None' for %s services", s.Spec.Type)))
		}
	case corev1.ServiceTypeExternalName:
		for _, f := range []struct {
			name string
			set  bool
		}{
			{"clusterIPs", len(s.Spec.ClusterIPs) > 0},
			{"ipFamilies", len(s.Spec.IPFamilies) > 0},
			{"ipFamilyPolicy", s.Spec.IPFamilyPolicy != nil},
		} {
			if f.set {
				errs = append(errs, field.Forbidden(spec.Child(f.name), "may not be set for ExternalName services"))
			}
		}
		if name := strings.TrimSuffix(s.Spec.ExternalName, "."); name == "" {
			errs = append(errs, field.Required(spec.Child("externalName"), ""))
		} else {
			errs = append(errs, rule.Subdomain(spec.Child("externalName"), name)...)
		}
	}
	return errs
}

func validateServicePorts(path *field.Path, s *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
	type key struct {
		protocol corev1.Protocol
		port     int32
	}
	ports, nodePorts := map[key]bool{}, map[key]bool{}
	for i, p := range s.Spec.Ports {
		at := path.Index(i)
		switch {
		case p.Name == "" && len(s.Spec.Ports) > 1:
			errs = append(errs, field.Required(at.Child("name"), ""))
		case p.Name != "":
			errs = append(errs, rule.DNSLabel(at.Child("name"), p.Name)...)
			if names[p.Name] {
				errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
			}
			names[p.Name] = true
		}
		errs = append(errs, rule.Port(at.Child("port"), p.Port)...)
		errs = append(errs, rule.Protocol(at.Child("protocol"), p.Protocol)...)
		errs = append(errs, rule.PortOrName(at.Child("targetPort"), p.TargetPort)...)
		if p.AppProtocol != nil {
			errs = append(errs, rule.QualifiedName(at.Child("appProtocol"), *p.AppProtocol)...)
		}
		if p.NodePort != 0 {
			if s.Spec.Type == corev1.ServiceTypeClusterIP {
				errs = append(errs, field.Forbidden(at.Child("nodePort"), "may not be used when `type` is 'ClusterIP'"))
			}
			if k := (key{p.Protocol, p.NodePort}); nodePorts[k] {
				errs = append(errs, field.Duplicate(at.Child("nodePort"), p.NodePort))
			} else {
				nodePorts[k] = true
			}
		}
		if k := (key{p.Protocol, p.Port}); ports[k] {
			errs = append(errs, field.Duplicate(at, corev1.ServicePort{Protocol: p.Protocol, Port: p.Port}))
		} else {
			ports[k] = true
		}
	}
	return errs
}

func validateSessionAffinity(spec *field.Path, s *corev1.ServiceSpec) field.ErrorList {
	errs := rule.OneOf(spec.Child("sessionAffinity"), s.SessionAffinity, corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
	at, c := spec.Child("sessionAffinityConfig"), s.SessionAffinityConfig
	switch s.SessionAffinity {
	case corev1.ServiceAffinityNone:
		if c != nil {
			errs = append(errs, field.Forbidden(at, "must not be set when session affinity is None"))
		}
	case corev1.ServiceAffinityClientIP:
		const when = "when session affinity type is ClientIP"
		switch {
		case c == nil:
			errs = append(errs, field.Required(at, when))
		case c.ClientIP == nil:
			errs = append(errs, field.Required(at.Child("clientIP"), when))
		case c.ClientIP.TimeoutSeconds == nil:
			errs = append(errs, field.Required(at.Child("clientIP", "timeoutSeconds"), when))
		case *c.ClientIP.TimeoutSeconds <= 0 || *c.ClientIP.TimeoutSeconds > maxClientIPTimeout:
			errs = append(errs, field.Invalid(at.Child("clientIP", "timeoutSeconds"), c.ClientIP.TimeoutSeconds,
				fmt.Sprintf("must be greater than 0 and less than %d", maxClientIPTimeout)))
		}
	}
	return errs
}

// validateClusterIPs checks clusterIP, clusterIPs and their families, which must agree.
func validateClusterIPs(spec *field.Path, s, old *corev1.Service) field.ErrorList {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	var errs field.ErrorList
	at, ips := spec.Child("clusterIPs"), s.Spec.ClusterIPs
	switch {
	case s.Spec.ClusterIP == "" && len(ips) > 0:
		errs = append(errs, field.Invalid(at, ips, "must be empty when `clusterIP` is not specified"))
	case s.Spec.ClusterIP != "" && len(ips) == 0:
		errs = append(errs, field.Required(at, ""))
	case s.Spec.ClusterIP != "" && ips[0] != s.Spec.ClusterIP:
		errs = append(errs, field.Invalid(at, ips, "first value must match `clusterIP`"))
	}
	seen := map[corev1.IPFamily]bool{}
	for i, f := range s.Spec.IPFamilies {
		at := spec.Child("ipFamilies").Index(i)
		if f != corev1.IPv4Protocol && f != corev1.IPv6Protocol {
			errs = append(errs, field.NotSupported(at, f, []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}))
		}
		if seen[f] {
			errs = append(errs, field.Duplicate(at, f))
		}
		seen[f] = true
	}
	if p := s.Spec.IPFamilyPolicy; p != nil {
		errs = append(errs, rule.Known(spec.Child("ipFamilyPolicy"), *p,
			corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack)...)
	}
	bad := false
	for i, ip := range ips {
		if i == 0 && ip == corev1.ClusterIPNone {
			if len(ips) > 1 {
				bad = true
				errs = append(errs, field.Invalid(at, ips, "'None' must be the first and only value"))
			}
			continue
		}
		wrong := rule.IP(at.Index(i), ip, old.Spec.ClusterIPs...)
		bad = bad || len(wrong) > 0
		errs = append(errs, wrong...)
	}
	if len(ips) > 2 {
		errs = append(errs, field.Invalid(at, ips, "may only hold up to 2 values"))
	}
	if bad || headless(s) {
		return errs
	}
	return append(errs, matchFamilies(at, ips, s.Spec.IPFamilies)...)
}

// matchFamilies wants one address of each family at most, each of the family in its place.
func matchFamilies(at *field.Path, ips []string, families []corev1.IPFamily) field.ErrorList {
	var errs field.ErrorList
	four := make([]bool, len(ips))
	for i, ip := range ips {
		a, err := netip.ParseAddr(ip)
		four[i] = err == nil && a.Unmap().Is4()
	}
	if len(ips) > 1 && (len(ips) > 2 || four[0] == four[1]) {
		errs = append(errs, field.Invalid(at, ips, "may specify no more than one IP for each IP family"))
	}
	for i := range min(len(ips), len(families)) {
		if families[i] == corev1.IPv4Protocol && !four[i] || families[i] == corev1.IPv6Protocol && four[i] {
			errs = append(errs, field.Invalid(at.Index(i), ips[i],
				fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%v]`", families[i], i)))
		}
	}
	return errs
}

// validateLoadBalancer checks the fields that only load balancers have.
func validateLoadBalancer(spec *field.Path, s, old *corev1.Service) field.ErrorList {
	const only = "may only be used when `type` is 'LoadBalancer'"
	var errs field.ErrorList
	balancer := s.Spec.Type == corev1.ServiceTypeLoadBalancer
	trim := func(list []string) []string {
		out := make([]string, len(list))
		for i, v := range list {
			out[i] = strings.TrimSpace(v) // spaces are allowed here, once and for all
		}
		return out
	}
	if ranges := trim(s.Spec.LoadBalancerSourceRanges); len(ranges) > 0 {
		at := spec.Child("LoadBalancerSourceRanges")
		if !balancer {
			errs = append(errs, field.Forbidden(at, only))
		}
		for i, r := range ranges {
			errs = append(errs, rule.CIDR(at.Index(i), r, trim(old.Spec.LoadBalancerSourceRanges)...)...)
		}
	}
	if s.Spec.AllocateLoadBalancerNodePorts != nil && !balancer {
		errs = append(errs, field.Forbidden(spec.Child("allocateLoadBalancerNodePorts"), only))
	}
	if balancer && s.Spec.AllocateLoadBalancerNodePorts == nil {
		errs = append(errs, field.Required(field.NewPath("allocateLoadBalancerNodePorts"), ""))
	}
	if c := s.Spec.LoadBalancerClass; c != nil {
		if balancer {
			errs = append(errs, rule.QualifiedName(spec.Child("loadBalancerClass"), *c)...)
		} else {
			errs = append(errs, field.Forbidden(spec.Child("loadBalancerClass"), only))
		}
	}
	return errs
}

// validateTraffic checks which traffic may go to which endpoints.
func validateTraffic(spec *field.Path, s *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	at := spec.Child("externalTrafficPolicy")
	switch {
	case external(s):
		errs = append(errs, rule.OneOf(at, s.Spec.ExternalTrafficPolicy,
			corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)...)
	case s.Spec.ExternalTrafficPolicy != "":
		errs = append(errs, field.Invalid(at, s.Spec.ExternalTrafficPolicy, "may only be set for externally-accessible services"))
	}
	at = spec.Child("healthCheckNodePort")
	switch port := s.Spec.HealthCheckNodePort; {
	case !healthChecked(s) && port != 0:
		errs = append(errs, field.Invalid(at, port, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"))
	case healthChecked(s) && port == 0:
		errs = append(errs, field.Required(at, ""))
	case healthChecked(s):
		errs = append(errs, rule.Port(at, port)...)
	}
	at = spec.Child("internalTrafficPolicy")
	if p := s.Spec.InternalTrafficPolicy; p != nil {
		errs = append(errs, rule.Known(at, *p, corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)...)
	} else if external(s) || s.Spec.Type == corev1.ServiceTypeClusterIP {
		errs = append(errs, field.Required(at, ""))
	}
	if d := s.Spec.TrafficDistribution; d != nil {
		errs = append(errs, rule.Known(spec.Child("trafficDistribution"), *d, corev1.ServiceTrafficDistributionPreferClose,
			corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode)...)
	}
	return errs
}
