package api

import (
	"strconv"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func endpointSliceKind() *Kind {
	doc := discoveryv1.EndpointSlice{}.SwaggerDoc()
	return &Kind{
		GroupVersionKind: discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"),
		Resource:         "endpointslices", Singular: "endpointslice",
		Namespaced: true,
		New:        func() runtime.Object { return &discoveryv1.EndpointSlice{} },
		NewList:    func() runtime.Object { return &discoveryv1.EndpointSliceList{} },

		Default:                  defaulter(defaultEndpointSlice),
		PrepareForCreate:         onCreate(func(s *discoveryv1.EndpointSlice) { s.Generation = 1 }),
		PrepareForUpdate:         onUpdate(prepareEndpointSliceUpdate),
		Validate:                 check(validateEndpointSlice),
		ValidateUpdate:           checkUpdate(validateEndpointSliceUpdate),
		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(),
			column("AddressType", "string", doc["addressType"]),
			column("Ports", "string", doc["ports"]),
			column("Endpoints", "string", doc["endpoints"]),
			ageColumn(),
		},
		Row: row(endpointSliceRow),
	}
}

func endpointSliceRow(s *discoveryv1.EndpointSlice, now time.Time) []any {
	var ports, addresses []string
	for _, p := range s.Ports {
		port := "*"
		if p.Port != nil {
			port = strconv.Itoa(int(*p.Port))
		} else if p.Name != nil {
			port = *p.Name
		}
		ports = append(ports, port)
	}
	for _, e := range s.Endpoints {
		addresses = append(addresses, e.Addresses...)
	}
	return []any{
		s.Name, string(s.AddressType), or(firstThree(ports), "<unset>"), or(firstThree(addresses), "<unset>"), age(s.CreationTimestamp, now),
	}
}
