package api

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

func serviceKind() *Kind {
	doc := corev1.ServiceSpec{}.SwaggerDoc()
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Service"),
		Resource:         "services", Singular: "service", ShortNames: []string{"svc"}, Categories: []string{"all"},
		Namespaced: true,
		New:        func() runtime.Object { return &corev1.Service{} },
		NewList:    func() runtime.Object { return &corev1.ServiceList{} },

		Default:                  defaulter(defaultService),
		PrepareForCreate:         onCreate(func(s *corev1.Service) { s.Status = corev1.ServiceStatus{} }),
		PrepareForUpdate:         onUpdate(prepareServiceUpdate),
		Validate:                 check(validateNewService),
		ValidateUpdate:           checkUpdate(validateServiceUpdate),
		Warnings:                 serviceWarnings,
		AllowCreateOnUpdate:      true,
		AllowUnconditionalUpdate: true,

		Columns: []metav1.TableColumnDefinition{
			nameColumn(),
			column("Type", "string", doc["type"]),
			column("Cluster-IP", "string", doc["clusterIP"]),
			column("External-IP", "string", doc["externalIPs"]),
			column("Port(s)", "string", doc["ports"]),
			ageColumn(),
			wide("Selector", doc["selector"]),
		},
		Row: row(serviceRow),
		Fields: selectable(func(s *corev1.Service) fields.Set {
			return fields.Set{"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
		}),
		Status: &Subresource{
			PrepareForUpdate: onUpdate(func(s, old *corev1.Service) { s.Spec = old.Spec }),
			ValidateUpdate:   checkUpdate(validateServiceStatus),
			ResetFields:      []string{"spec"},
		},
	}
}

func serviceRow(s *corev1.Service, now time.Time) []any {
	ip := "<none>"
	if len(s.Spec.ClusterIPs) > 0 {
		ip = s.Spec.ClusterIPs[0]
	}
	ports := make([]string, len(s.Spec.Ports))
	for i, p := range s.Spec.Ports {
		ports[i] = fmt.Sprintf("%d/%s", p.Port, p.Protocol)
		if p.NodePort > 0 {
			ports[i] = fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol)
		}
	}
	return []any{
		s.Name, string(s.Spec.Type), ip, serviceExternalIP(s), or(strings.Join(ports, ","), "<none>"), age(s.CreationTimestamp, now),
		labels.FormatLabels(s.Spec.Selector),
	}
}

func serviceExternalIP(s *corev1.Service) string {
	switch s.Spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
		return or(strings.Join(s.Spec.ExternalIPs, ","), "<none>")
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	case corev1.ServiceTypeLoadBalancer:
		var ips []string
		for _, in := range s.Status.LoadBalancer.Ingress {
			if ip := or(in.IP, in.Hostname); ip != "" {
				ips = append(ips, ip)
			}
		}
		slices.Sort(ips)
		return or(strings.Join(append(slices.Compact(ips), s.Spec.ExternalIPs...), ","), "<pending>")
	}
	return "<unknown>"
}
