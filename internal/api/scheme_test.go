package api

import (
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
)

func newScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	scheme, err := NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	return scheme
}

func TestHubIsTheServedVersion(t *testing.T) {
	scheme := newScheme(t)
	for _, k := range Kinds() {
		hub := schema.GroupVersion{Group: k.Group, Version: runtime.APIVersionInternal}
		for kind, obj := range map[string]runtime.Object{k.Kind: k.New(), k.Kind + "List": k.NewList()} {
			internal, err := scheme.ConvertToVersion(obj, hub)
			if err != nil {
				t.Errorf("%s to the hub: %v", kind, err)
				continue
			}
			out, err := scheme.ConvertToVersion(internal, k.GroupVersion())
			if err != nil {
				t.Errorf("%s to %s: %v", kind, k.GroupVersion(), err)
				continue
			}
			if diff := cmp.Diff(k.GroupVersion().WithKind(kind), out.GetObjectKind().GroupVersionKind()); diff != "" {
				t.Errorf("%s: %s", kind, diff)
			}
		}
	}
}

func TestEventsOfBothGroupsAreOne(t *testing.T) {
	scheme := newScheme(t)
	codecs := Codecs(scheme)
	body := []byte(`{"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{"name":"e","namespace":"d"},"eventTime":"2026-01-02T03:04:05.000006Z",
		"regarding":{"kind":"Pod","name":"p"},"note":"hello","reason":"Started","type":"Normal","reportingController":"c","reportingInstance":"i",
		"series":{"count":2,"lastObservedTime":"2026-01-02T03:04:06.000000Z"}}`)
	hub := schema.GroupVersion{Group: "events.k8s.io", Version: runtime.APIVersionInternal}
	obj, err := runtime.Decode(codecs.DecoderToVersion(codecs.UniversalDeserializer(), hub), body)
	if err != nil {
		t.Fatal(err)
	}
	stored, ok := obj.(*corev1.Event)
	if !ok {
		t.Fatalf("decoded %T, want *corev1.Event", obj)
	}
	if stored.Message != "hello" || stored.InvolvedObject.Name != "p" || stored.Series.Count != 2 {
		t.Errorf("lost fields: %+v", stored)
	}
	back, err := scheme.ConvertToVersion(stored, eventsv1.SchemeGroupVersion)
	if err != nil {
		t.Fatal(err)
	}
	if e := back.(*eventsv1.Event); e.Note != "hello" || e.Regarding.Name != "p" || e.ReportingInstance != "i" {
		t.Errorf("lost fields on the way back: %+v", e)
	}
}

func TestFieldLabels(t *testing.T) {
	scheme := newScheme(t)
	for _, tc := range []struct {
		gvk   schema.GroupVersionKind
		label string
		want  string // empty: refused
	}{
		{corev1.SchemeGroupVersion.WithKind("Pod"), "metadata.name", "metadata.name"},
		{corev1.SchemeGroupVersion.WithKind("Pod"), "spec.host", "spec.nodeName"},
		{corev1.SchemeGroupVersion.WithKind("Pod"), "status.phase", "status.phase"},
		{corev1.SchemeGroupVersion.WithKind("Pod"), "spec.containers", ""},
		{corev1.SchemeGroupVersion.WithKind("Node"), "spec.unschedulable", "spec.unschedulable"},
		{corev1.SchemeGroupVersion.WithKind("Node"), "metadata.namespace", ""},
		{corev1.SchemeGroupVersion.WithKind("Event"), "involvedObject.uid", "involvedObject.uid"},
		{eventsv1.SchemeGroupVersion.WithKind("Event"), "regarding.uid", "involvedObject.uid"},
		{eventsv1.SchemeGroupVersion.WithKind("Event"), "involvedObject.uid", ""},
		{corev1.SchemeGroupVersion.WithKind("ConfigMap"), "metadata.namespace", "metadata.namespace"},
	} {
		got, _, err := scheme.ConvertFieldLabel(tc.gvk, tc.label, "x")
		if (err != nil) != (tc.want == "") || got != tc.want {
			t.Errorf("%s %s: got %q, %v; want %q", tc.gvk.Kind, tc.label, got, err, tc.want)
		}
	}
}

func TestQueryOptions(t *testing.T) {
	scheme := newScheme(t)
	params := runtime.NewParameterCodec(scheme)
	since := metav1.Unix(1700000000, 0)
	for _, tc := range []struct {
		query string
		got   runtime.Object
		want  runtime.Object
		fails bool
	}{
		{
			"container=c&follow=true&tailLines=5&previous&sinceTime=" + url.QueryEscape(since.UTC().Format("2006-01-02T15:04:05Z")), &corev1.PodLogOptions{},
			&corev1.PodLogOptions{Container: "c", Follow: true, Previous: true, TailLines: ptr.To[int64](5), SinceTime: &since}, false,
		},
		{"tailLines=x", &corev1.PodLogOptions{}, nil, true},
		{"command=sh&command=-c&stdin=1&tty=false", &corev1.PodExecOptions{}, &corev1.PodExecOptions{Command: []string{"sh", "-c"}, Stdin: true}, false},
		{"stdout=true", &corev1.PodAttachOptions{}, &corev1.PodAttachOptions{Stdout: true}, false},
		{"ports=80&ports=90", &corev1.PodPortForwardOptions{}, &corev1.PodPortForwardOptions{Ports: []int32{80, 90}}, false},
		{"path=/x", &corev1.NodeProxyOptions{}, &corev1.NodeProxyOptions{Path: "/x"}, false},
	} {
		values, err := url.ParseQuery(tc.query)
		if err != nil {
			t.Fatal(err)
		}
		err = params.DecodeParameters(values, corev1.SchemeGroupVersion, tc.got)
		if tc.fails {
			if err == nil {
				t.Errorf("%s: no error", tc.query)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.query, err)
			continue
		}
		if diff := cmp.Diff(tc.want, tc.got); diff != "" {
			t.Errorf("%s: %s", tc.query, diff)
		}
	}
}

func TestKindsHoldTogether(t *testing.T) {
	for _, k := range Kinds() {
		if k.Row == nil && k.Columns == nil {
			continue // it has the table that any kind has
		}
		cells, err := k.Row(k.New())
		if err != nil {
			t.Errorf("%s: %v", k.Kind, err)
		}
		if len(cells) != len(k.Columns) {
			t.Errorf("%s: %d cells for %d columns", k.Kind, len(cells), len(k.Columns))
		}
	}
}
