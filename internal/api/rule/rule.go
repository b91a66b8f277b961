// Package rule is the validation rules that many kinds share: names, numbers, addresses, resources, metadata. Field paths
// and messages are Kubernetes' own, so that a user reads what the Kubernetes documentation explains.
//
// It imports nothing of the project. Every function is pure.
package rule

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// NameFunc tells what is wrong with a name; prefix says that the name is the start of a generated one.
type NameFunc = func(name string, prefix bool) []string

// Messages makes an Invalid error of each message.
func Messages(path *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(path, value, m))
	}
	return errs
}

// DNSLabel wants an RFC 1123 label.
func DNSLabel(path *field.Path, value string) field.ErrorList {
	return Messages(path, value, validation.IsDNS1123Label(value))
}

// Subdomain wants an RFC 1123 subdomain.
func Subdomain(path *field.Path, value string) field.ErrorList {
	return Messages(path, value, validation.IsDNS1123Subdomain(value))
}

// QualifiedName wants what Kubernetes calls a qualified name: an optional DNS prefix and a name.
func QualifiedName(path *field.Path, value string) field.ErrorList {
	return Messages(path, value, validation.IsQualifiedName(value))
}

// ConfigMapKey wants a key that can be a file name.
func ConfigMapKey(path *field.Path, value string) field.ErrorList {
	return Messages(path, value, validation.IsConfigMapKey(value))
}

// LabelValue wants a valid label value.
func LabelValue(path *field.Path, value string) field.ErrorList {
	return Messages(path, value, validation.IsValidLabelValue(value))
}

// IP wants an IP address, except that addresses of the old object may stay as they are.
func IP(path *field.Path, value string, old ...string) field.ErrorList {
	return validation.IsValidIPForLegacyField(path, value, true, old)
}

// CIDR wants a network with its prefix length, except that those of the old object may stay as they are.
func CIDR(path *field.Path, value string, old ...string) field.ErrorList {
	return validation.IsValidCIDRForLegacyField(path, value, true, old)
}

// Port wants a port number.
func Port(path *field.Path, value int32) field.ErrorList {
	return Messages(path, value, validation.IsValidPortNum(int(value)))
}

// PortOrName wants a port number or the name of a port.
func PortOrName(path *field.Path, port intstr.IntOrString) field.ErrorList {
	if port.Type == intstr.Int {
		return Messages(path, port.IntValue(), validation.IsValidPortNum(port.IntValue()))
	}
	return Messages(path, port.StrVal, validation.IsValidPortName(port.StrVal))
}

// Protocol wants TCP, UDP or SCTP.
func Protocol(path *field.Path, p corev1.Protocol) field.ErrorList {
	return OneOf(path, p, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
}

// EndpointIP refuses addresses that no endpoint can have from outside its machine.
func EndpointIP(path *field.Path, value string) field.ErrorList {
	ip := netutils.ParseIPSloppy(value) // that it is written well is IP's to say
	if ip == nil {
		return field.ErrorList{field.Invalid(path, value, "must be a valid IP address")}
	}
	wrong := ""
	switch {
	case ip.IsUnspecified():
		wrong = fmt.Sprintf("may not be unspecified (%v)", value)
	case ip.IsLoopback():
		wrong = "may not be in the loopback range (127.0.0.0/8, ::1/128)"
	case ip.IsLinkLocalUnicast():
		wrong = "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
	case ip.IsLinkLocalMulticast():
		wrong = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
	default:
		return nil
	}
	return field.ErrorList{field.Invalid(path, value, wrong)}
}

// NonNegative wants zero or more.
func NonNegative(path *field.Path, value int64) field.ErrorList {
	return apivalidation.ValidateNonnegativeField(value, path)
}

// Positive wants one or more.
func Positive(path *field.Path, value int64) field.ErrorList {
	if value > 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(path, value, "must be greater than zero")}
}

// Immutable wants the new value to be the old one.
func Immutable(path *field.Path, value, old any) field.ErrorList {
	if equality.Semantic.DeepEqual(value, old) {
		return nil
	}
	return field.ErrorList{field.Invalid(path, value, apivalidation.FieldImmutableErrorMsg)}
}

// OneOf wants one of the allowed values; an empty value is Required.
func OneOf[T ~string](path *field.Path, value T, allowed ...T) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return Known(path, value, allowed...)
}

// Known wants one of the allowed values; an empty value is one like any other.
func Known[T ~string](path *field.Path, value T, allowed ...T) field.ErrorList {
	if slices.Contains(allowed, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(path, value, allowed)}
}
