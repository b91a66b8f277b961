package api

import (
	"fmt"
	"reflect"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// group is one served API group: where its types are registered from, and at which version.
type group struct {
	version schema.GroupVersion
	add     func(*runtime.Scheme) error
}

// groups lists the groups that are served. Each has one version, v1, so the v1 types are the hub too.
func groups() []group {
	return []group{
		{corev1.SchemeGroupVersion, corev1.AddToScheme},
		{appsv1.SchemeGroupVersion, appsv1.AddToScheme},
		{eventsv1.SchemeGroupVersion, eventsv1.AddToScheme},
		{discoveryv1.SchemeGroupVersion, discoveryv1.AddToScheme},
		{coordinationv1.SchemeGroupVersion, coordinationv1.AddToScheme},
		{authenticationv1.SchemeGroupVersion, authenticationv1.AddToScheme},
		{authorizationv1.SchemeGroupVersion, authorizationv1.AddToScheme},
		{policyv1.SchemeGroupVersion, policyv1.AddToScheme},
		{autoscalingv1.SchemeGroupVersion, autoscalingv1.AddToScheme},
		{nodev1.SchemeGroupVersion, nodev1.AddToScheme},
		{certificatesv1.SchemeGroupVersion, certificatesv1.AddToScheme},
		{rbacv1.SchemeGroupVersion, rbacv1.AddToScheme},
		{metricsv1beta1.SchemeGroupVersion, metricsv1beta1.AddToScheme},
		{storagev1.SchemeGroupVersion, storagev1.AddToScheme},
		{resourcev1.SchemeGroupVersion, resourcev1.AddToScheme},
	}
}

// NewScheme makes the scheme of all served types, with their defaults, conversions and field selectors.
//
// The machinery of API servers wants a hub version beside the served ones. The served version serves as the hub: each type is
// registered a second time under __internal, after v1, so that v1 stays the first kind that the scheme names for it.
// Events are the exception: their hub in events.k8s.io is core/v1's Event, in which form both groups' events are stored.
func NewScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, g := range groups() {
		if err := g.add(scheme); err != nil {
			return nil, fmt.Errorf("register %s: %w", g.version, err)
		}
		if err := scheme.SetVersionPriority(g.version); err != nil {
			return nil, fmt.Errorf("set the version of %s: %w", g.version, err)
		}
	}
	for _, g := range groups() {
		if err := addHub(scheme, g.version); err != nil {
			return nil, err
		}
	}
	if err := addEventConversions(scheme); err != nil {
		return nil, err
	}
	if err := addQueryConversions(scheme); err != nil {
		return nil, err
	}
	for _, k := range Kinds() {
		if k.Default != nil {
			scheme.AddTypeDefaultingFunc(k.New(), func(obj any) { k.Default(obj.(runtime.Object)) })
		}
		if err := addFieldLabels(scheme, k); err != nil {
			return nil, err
		}
	}
	return scheme, nil
}

// Codecs makes the codecs of a scheme from NewScheme.
func Codecs(scheme *runtime.Scheme) serializer.CodecFactory {
	return serializer.NewCodecFactory(scheme)
}

// addHub registers the types of a version as their group's hub too. The types that apimachinery registers beside them
// (list options, watch events) have hub forms of their own.
func addHub(scheme *runtime.Scheme, version schema.GroupVersion) error {
	hub := schema.GroupVersion{Group: version.Group, Version: runtime.APIVersionInternal}
	for kind, typ := range scheme.KnownTypes(version) {
		if !strings.HasPrefix(typ.PkgPath(), "k8s.io/api/") && !strings.HasPrefix(typ.PkgPath(), "k8s.io/metrics/") {
			continue
		}
		obj, ok := reflect.New(typ).Interface().(runtime.Object)
		if !ok {
			return fmt.Errorf("%s %s is no API object", version, kind)
		}
		switch obj.(type) {
		case *eventsv1.Event:
			obj = &corev1.Event{}
		case *eventsv1.EventList:
			obj = &corev1.EventList{}
		}
		scheme.AddKnownTypeWithName(hub.WithKind(kind), obj)
		if err := scheme.AddConversionFunc(obj, obj, assign); err != nil {
			return fmt.Errorf("register the conversion of %s: %w", hub.WithKind(kind), err)
		}
	}
	return nil
}

// assign is the conversion between two names of the same Go type.
func assign(in, out any, _ conversion.Scope) error {
	reflect.ValueOf(out).Elem().Set(reflect.ValueOf(in).Elem())
	return nil
}

// addFieldLabels says which field selectors a kind understands: those of FieldLabels if it has them, else its Fields.
func addFieldLabels(scheme *runtime.Scheme, k *Kind) error {
	labels := map[string]string{}
	switch {
	case k.FieldLabels != nil:
		labels = k.FieldLabels
	case k.Fields != nil:
		for name := range k.Fields(k.New()) {
			labels[name] = name
		}
	}
	known := func(label, value string) (string, string, error) {
		if label == "metadata.name" || label == "metadata.namespace" && k.Namespaced {
			return label, value, nil
		}
		name, ok := labels[label]
		if !ok {
			return "", "", fmt.Errorf("field label not supported: %s", label)
		}
		return name, value, nil
	}
	return scheme.AddFieldLabelConversionFunc(k.GroupVersionKind, known)
}
