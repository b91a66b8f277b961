package api

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

func endpointsKind() *Kind {
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Endpoints"),
		Resource:         "endpoints", Singular: "endpoints", ShortNames: []string{"ep"},
		Namespaced: true,
		New:        func() runtime.Object { return &corev1.Endpoints{} },
		NewList:    func() runtime.Object { return &corev1.EndpointsList{} },

		Default:  defaulter(defaultEndpoints),
		Validate: check(validateEndpoints),
		ValidateUpdate: checkUpdate(func(e, old *corev1.Endpoints) field.ErrorList {
			errs := rule.MetaUpdate(&e.ObjectMeta, &old.ObjectMeta)
			if equality.Semantic.DeepEqual(e.Subsets, old.Subsets) {
				return errs // what was accepted once may stay
			}
			return append(errs, validateEndpoints(e)...)
		}),
		AllowCreateOnUpdate:      true,
		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(), column("Endpoints", "string", corev1.Endpoints{}.SwaggerDoc()["subsets"]), ageColumn(),
		},
		Row: row(func(e *corev1.Endpoints, now time.Time) []any {
			return []any{e.Name, endpointsCell(e.Subsets), age(e.CreationTimestamp, now)}
		}),
	}
}

// endpointsCell lists the first three addresses, each with each of its ports.
func endpointsCell(subsets []corev1.EndpointSubset) string {
	if len(subsets) == 0 {
		return "<none>"
	}
	var all []string
	for _, s := range subsets {
		if len(s.Ports) == 0 {
			for _, a := range s.Addresses {
				all = append(all, a.IP)
			}
		}
		for _, p := range s.Ports {
			for _, a := range s.Addresses {
				all = append(all, net.JoinHostPort(a.IP, strconv.Itoa(int(p.Port))))
			}
		}
	}
	return firstThree(all)
}

// firstThree joins up to three values and counts the others.
func firstThree(all []string) string {
	if len(all) <= 3 {
		return strings.Join(all, ",")
	}
	return fmt.Sprintf("%s + %d more...", strings.Join(all[:3], ","), len(all)-3)
}

func defaultEndpoints(e *corev1.Endpoints) {
	for i := range e.Subsets {
		for j := range e.Subsets[i].Ports {
			if p := &e.Subsets[i].Ports[j]; p.Protocol == "" {
				p.Protocol = corev1.ProtocolTCP
			}
		}
	}
}

func validateEndpoints(e *corev1.Endpoints) field.ErrorList {
	errs := rule.Meta(&e.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
	for i, s := range e.Subsets {
		at := field.NewPath("subsets").Index(i)
		if len(s.Addresses) == 0 && len(s.NotReadyAddresses) == 0 {
			errs = append(errs, field.Required(at, "must specify `addresses` or `notReadyAddresses`"))
		}
		for j := range s.Addresses {
			errs = append(errs, validateEndpointAddress(at.Child("addresses").Index(j), &s.Addresses[j])...)
		}
		for j := range s.NotReadyAddresses {
			errs = append(errs, validateEndpointAddress(at.Child("notReadyAddresses").Index(j), &s.NotReadyAddresses[j])...)
		}
		for j := range s.Ports {
			errs = append(errs, validateEndpointPort(at.Child("ports").Index(j), &s.Ports[j], len(s.Ports) > 1)...)
		}
	}
	return errs
}

func validateEndpointAddress(at *field.Path, a *corev1.EndpointAddress) field.ErrorList {
	errs := rule.IP(at.Child("ip"), a.IP)
	if a.Hostname != "" {
		errs = append(errs, rule.DNSLabel(at.Child("hostname"), a.Hostname)...)
	}
	if a.NodeName != nil {
		errs = append(errs, rule.Subdomain(at.Child("nodeName"), *a.NodeName)...)
	}
	return append(errs, rule.EndpointIP(at.Child("ip"), a.IP)...)
}

func validateEndpointPort(at *field.Path, p *corev1.EndpointPort, named bool) field.ErrorList {
	var errs field.ErrorList
	switch {
	case p.Name != "":
		errs = append(errs, rule.DNSLabel(at.Child("name"), p.Name)...)
	case named:
		errs = append(errs, field.Required(at.Child("name"), ""))
	}
	errs = append(errs, rule.Port(at.Child("port"), p.Port)...)
	errs = append(errs, rule.Protocol(at.Child("protocol"), p.Protocol)...)
	if p.AppProtocol != nil {
		errs = append(errs, rule.QualifiedName(at.Child("appProtocol"), *p.AppProtocol)...)
	}
	return errs
}
