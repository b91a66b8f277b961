package api

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func endpointsKind() *Kind {
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Endpoints"),
		Resource:         "endpoints", Singular: "endpoints", ShortNames: []string{"ep"},
		Namespaced: true,
		New:        func() runtime.Object { return &corev1.Endpoints{} },
		NewList:    func() runtime.Object { return &corev1.EndpointsList{} },

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
