package api

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/rule"
)

// Sizes of an EndpointSlice.
const (
	maxEndpoints         = 1000
	maxEndpointAddresses = 100
	maxEndpointPorts     = 20000
	maxEndpointTopology  = 16
	maxEndpointHints     = 8
)

func defaultEndpointSlice(s *discoveryv1.EndpointSlice) {
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Name == nil {
			p.Name = ptr.To("")
		}
		if p.Protocol == nil {
			p.Protocol = ptr.To(corev1.ProtocolTCP)
		}
	}
}

// prepareEndpointSliceUpdate counts a change of anything but metadata, and of the labels, as a new generation.
func prepareEndpointSliceUpdate(s, old *discoveryv1.EndpointSlice) {
	now, was := *s, *old
	now.ObjectMeta, was.ObjectMeta = metav1.ObjectMeta{}, metav1.ObjectMeta{}
	now.TypeMeta, was.TypeMeta = metav1.TypeMeta{}, metav1.TypeMeta{}
	if !equality.Semantic.DeepEqual(now, was) || !equality.Semantic.DeepEqual(s.Labels, old.Labels) {
		s.Generation = old.Generation + 1
	}
}

func validateEndpointSlice(s *discoveryv1.EndpointSlice) field.ErrorList {
	errs := rule.Meta(&s.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
	errs = append(errs, rule.OneOf(field.NewPath("addressType"), s.AddressType,
		discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6)...)
	errs = append(errs, validateSlicePorts(field.NewPath("ports"), s.Ports)...)
	at := field.NewPath("endpoints")
	if len(s.Endpoints) > maxEndpoints {
		return append(errs, field.TooMany(at, len(s.Endpoints), maxEndpoints))
	}
	for i := range s.Endpoints {
		errs = append(errs, validateEndpoint(at.Index(i), &s.Endpoints[i], s.AddressType)...)
	}
	return errs
}

func validateSlicePorts(path *field.Path, ports []discoveryv1.EndpointPort) field.ErrorList {
	if len(ports) > maxEndpointPorts {
		return field.ErrorList{field.TooMany(path, len(ports), maxEndpointPorts)}
	}
	var errs field.ErrorList
	names := map[string]bool{}
	for i, p := range ports {
		at := path.Index(i)
		name := ptr.Deref(p.Name, "")
		if name != "" {
			errs = append(errs, rule.DNSLabel(at.Child("name"), name)...)
		}
		if names[name] {
			errs = append(errs, field.Duplicate(at.Child("name"), name))
		}
		names[name] = true
		if p.Protocol == nil {
			errs = append(errs, field.Required(at.Child("protocol"), ""))
		} else {
			errs = append(errs, rule.Known(at.Child("protocol"), *p.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
		}
		if p.AppProtocol != nil {
			errs = append(errs, rule.QualifiedName(at.Child("appProtocol"), *p.AppProtocol)...)
		}
	}
	return errs
}

func validateEndpoint(at *field.Path, e *discoveryv1.Endpoint, typ discoveryv1.AddressType) field.ErrorList {
	var errs field.ErrorList
	addresses := at.Child("addresses")
	switch n := len(e.Addresses); {
	case n == 0:
		errs = append(errs, field.Required(addresses, "must contain at least 1 address"))
	case n > maxEndpointAddresses:
		errs = append(errs, field.TooMany(addresses, n, maxEndpointAddresses))
	}
	for i, a := range e.Addresses {
		switch typ {
		case discoveryv1.AddressTypeFQDN:
			errs = append(errs, validation.IsFullyQualifiedDomainName(addresses.Index(i), a)...)
		case discoveryv1.AddressTypeIPv4:
			errs = append(errs, validateSliceIP(addresses, i, a, true, "must be an IPv4 address")...)
		case discoveryv1.AddressTypeIPv6:
			errs = append(errs, validateSliceIP(addresses, i, a, false, "must be an IPv6 address")...)
		}
	}
	if e.NodeName != nil {
		errs = append(errs, rule.Subdomain(at.Child("nodeName"), *e.NodeName)...)
	}
	topology := at.Child("deprecatedTopology")
	if len(e.DeprecatedTopology) > maxEndpointTopology {
		errs = append(errs, field.TooMany(topology, len(e.DeprecatedTopology), maxEndpointTopology))
	}
	errs = append(errs, metav1validation.ValidateLabels(e.DeprecatedTopology, topology)...)
	if e.Hostname != nil {
		errs = append(errs, rule.DNSLabel(at.Child("hostname"), *e.Hostname)...)
	}
	return append(errs, validateHints(at.Child("hints"), e.Hints)...)
}

func validateSliceIP(path *field.Path, i int, value string, four bool, why string) field.ErrorList {
	errs := rule.IP(path.Index(i), value)
	if len(errs) > 0 {
		return errs
	}
	if ip, err := netip.ParseAddr(value); err == nil && ip.Is4() != four {
		errs = append(errs, field.Invalid(path, value, why))
	}
	return append(errs, rule.EndpointIP(path.Index(i), value)...)
}

func validateHints(at *field.Path, h *discoveryv1.EndpointHints) field.ErrorList {
	if h == nil {
		return nil
	}
	var zones, nodes []string
	for _, z := range h.ForZones {
		zones = append(zones, z.Name)
	}
	for _, n := range h.ForNodes {
		nodes = append(nodes, n.Name)
	}
	errs := hintNames(at.Child("forZones"), zones, validation.IsValidLabelValue)
	return append(errs, hintNames(at.Child("forNodes"), nodes, validation.IsDNS1123Subdomain)...)
}

func hintNames(path *field.Path, names []string, check func(string) []string) field.ErrorList {
	if len(names) > maxEndpointHints {
		return field.ErrorList{field.TooMany(path, len(names), maxEndpointHints)}
	}
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, name := range names {
		at := path.Index(i).Child("name")
		if seen[name] {
			errs = append(errs, field.Duplicate(at, name))
		}
		seen[name] = true
		errs = append(errs, rule.Messages(at, name, check(name))...)
	}
	return errs
}

func validateEndpointSliceUpdate(s, old *discoveryv1.EndpointSlice) field.ErrorList {
	errs := rule.MetaUpdate(&s.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, validateEndpointSlice(s)...)
	return append(errs, rule.Immutable(field.NewPath("addressType"), s.AddressType, old.AddressType)...)
}
