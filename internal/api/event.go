package api

import (
	"context"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// eventTTL is how many seconds an event is kept: an hour, as on Kubernetes.
const eventTTL = 3600

func eventKind() *Kind {
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Event"),
		Resource:         "events", Singular: "event", ShortNames: []string{"ev"},
		Namespaced: true,
		New:        func() runtime.Object { return &corev1.Event{} },
		NewList:    func() runtime.Object { return &corev1.EventList{} },

		Validate: func(ctx context.Context, obj runtime.Object) field.ErrorList {
			if inEventsGroup(ctx) {
				return validateNewEvent(obj.(*corev1.Event))
			}
			return validateEvent(obj.(*corev1.Event), "reportingComponent")
		},
		ValidateUpdate: func(ctx context.Context, obj, old runtime.Object) field.ErrorList {
			if inEventsGroup(ctx) {
				return validateEventUpdate(obj.(*corev1.Event), old.(*corev1.Event))
			}
			return validateEvent(obj.(*corev1.Event), "reportingComponent")
		},
		AllowCreateOnUpdate:      true,
		AllowUnconditionalUpdate: true,

		Columns:    eventColumns(),
		Row:        row(eventRow),
		Fields:     selectable(eventFields),
		TTLSeconds: func(runtime.Object, uint64, bool) (uint64, error) { return eventTTL, nil },
	}
}

// inEventsGroup says that a request came through events.k8s.io, which is stricter: both groups share one registry.
func inEventsGroup(ctx context.Context) bool {
	info, ok := request.RequestInfoFrom(ctx)
	return ok && info.APIGroup == eventsv1.GroupName
}

// eventsEventKind shows the same events in events.k8s.io/v1. Its objects are core/v1's here: the scheme converts them at the edge.
func eventsEventKind() *Kind {
	k := eventKind()
	k.GroupVersionKind = eventsv1.SchemeGroupVersion.WithKind("Event")
	k.StoredAs = schema.GroupResource{Resource: "events"}
	k.FieldLabels = map[string]string{
		"reason":                    "reason",
		"regarding.kind":            "involvedObject.kind",
		"regarding.namespace":       "involvedObject.namespace",
		"regarding.name":            "involvedObject.name",
		"regarding.uid":             "involvedObject.uid",
		"regarding.apiVersion":      "involvedObject.apiVersion",
		"regarding.resourceVersion": "involvedObject.resourceVersion",
		"regarding.fieldPath":       "involvedObject.fieldPath",
		"reportingController":       "reportingComponent",
		"type":                      "type",
	}
	return k
}

func eventFields(e *corev1.Event) fields.Set {
	o := e.InvolvedObject
	source := or(e.Source.Component, e.ReportingController)
	return fields.Set{
		"involvedObject.kind":            o.Kind,
		"involvedObject.namespace":       o.Namespace,
		"involvedObject.name":            o.Name,
		"involvedObject.uid":             string(o.UID),
		"involvedObject.apiVersion":      o.APIVersion,
		"involvedObject.resourceVersion": o.ResourceVersion,
		"involvedObject.fieldPath":       o.FieldPath,
		"reason":                         e.Reason,
		"reportingComponent":             e.ReportingController,
		"source":                         source,
		"type":                           e.Type,
	}
}

func eventColumns() []metav1.TableColumnDefinition {
	doc := corev1.Event{}.SwaggerDoc()
	name := wide("Name", metav1.ObjectMeta{}.SwaggerDoc()["name"])
	name.Format = "name"
	return []metav1.TableColumnDefinition{
		column("Last Seen", "string", doc["lastTimestamp"]),
		column("Type", "string", doc["type"]),
		column("Reason", "string", doc["reason"]),
		column("Object", "string", doc["involvedObject"]),
		wide("Subobject", corev1.ObjectReference{}.SwaggerDoc()["fieldPath"]),
		wide("Source", doc["source"]),
		column("Message", "string", doc["message"]),
		wide("First Seen", doc["firstTimestamp"]),
		wide("Count", doc["count"]),
		name,
	}
}

func eventRow(e *corev1.Event, now time.Time) []any {
	first := age(e.FirstTimestamp, now)
	if e.FirstTimestamp.IsZero() {
		first = age(metav1.Time(e.EventTime), now)
	}
	last := age(e.LastTimestamp, now)
	if e.LastTimestamp.IsZero() {
		last = first
	}
	count := e.Count
	switch {
	case e.Series != nil:
		last, count = age(metav1.Time(e.Series.LastObservedTime), now), e.Series.Count
	case count == 0:
		count = 1 // events of the newer form carry a count only when they repeat
	}
	object := strings.ToLower(e.InvolvedObject.Kind)
	if e.InvolvedObject.Name != "" {
		object += "/" + e.InvolvedObject.Name
	}
	source := or(e.Source.Component, e.ReportingController)
	if host := or(e.Source.Host, e.ReportingInstance); host != "" {
		source += ", " + host
	}
	return []any{
		last, e.Type, e.Reason, object, e.InvolvedObject.FieldPath, source, strings.TrimSpace(e.Message), first, int64(count), e.Name,
	}
}
