package api

import (
	"net/url"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
)

// addQueryConversions lets the options of connect and log requests be read from URL parameters.
func addQueryConversions(scheme *runtime.Scheme) error {
	add := []struct {
		out  runtime.Object
		read func(q *query, out any)
	}{
		{&corev1.PodLogOptions{}, readPodLogOptions},
		{&corev1.PodExecOptions{}, func(q *query, out any) {
			o := out.(*corev1.PodExecOptions)
			o.Stdin, o.Stdout, o.Stderr, o.TTY = q.bool("stdin"), q.bool("stdout"), q.bool("stderr"), q.bool("tty")
			o.Container, o.Command = q.string("container"), q.values["command"]
		}},
		{&corev1.PodAttachOptions{}, func(q *query, out any) {
			o := out.(*corev1.PodAttachOptions)
			o.Stdin, o.Stdout, o.Stderr, o.TTY = q.bool("stdin"), q.bool("stdout"), q.bool("stderr"), q.bool("tty")
			o.Container = q.string("container")
		}},
		{&corev1.PodPortForwardOptions{}, func(q *query, out any) {
			ports := q.values["ports"]
			q.fail(metav1.Convert_Slice_string_To_Slice_int32(&ports, &out.(*corev1.PodPortForwardOptions).Ports, nil))
		}},
		{&corev1.PodProxyOptions{}, func(q *query, out any) { out.(*corev1.PodProxyOptions).Path = q.string("path") }},
		{&corev1.NodeProxyOptions{}, func(q *query, out any) { out.(*corev1.NodeProxyOptions).Path = q.string("path") }},
		{&corev1.ServiceProxyOptions{}, func(q *query, out any) { out.(*corev1.ServiceProxyOptions).Path = q.string("path") }},
	}
	for _, a := range add {
		convert := func(in, out any, _ conversion.Scope) error {
			q := &query{values: *in.(*url.Values)}
			a.read(q, out)
			return q.err
		}
		if err := scheme.AddConversionFunc((*url.Values)(nil), a.out, convert); err != nil {
			return err
		}
	}
	return nil
}

func readPodLogOptions(q *query, out any) {
	o := out.(*corev1.PodLogOptions)
	o.Container, o.Follow, o.Previous, o.Timestamps = q.string("container"), q.bool("follow"), q.bool("previous"), q.bool("timestamps")
	o.InsecureSkipTLSVerifyBackend = q.bool("insecureSkipTLSVerifyBackend")
	o.SinceSeconds, o.TailLines, o.LimitBytes = q.int64("sinceSeconds"), q.int64("tailLines"), q.int64("limitBytes")
	if since, ok := q.values["sinceTime"]; ok && len(since) > 0 {
		q.fail(metav1.Convert_Slice_string_To_Pointer_v1_Time(&since, &o.SinceTime, nil))
	}
	if stream := q.string("stream"); stream != "" {
		o.Stream = &stream
	}
}

// query reads typed parameters of a URL and keeps the first error.
type query struct {
	values url.Values
	err    error
}

func (q *query) fail(err error) {
	if q.err == nil {
		q.err = err
	}
}

func (q *query) string(name string) string { return q.values.Get(name) }

// bool follows Kubernetes: a parameter without a value is true, "false" and "0" are false, anything else is true.
func (q *query) bool(name string) bool {
	var b bool
	in, ok := q.values[name]
	if ok {
		q.fail(runtime.Convert_Slice_string_To_bool(&in, &b, nil))
	}
	return b
}

func (q *query) int64(name string) *int64 {
	in, ok := q.values[name]
	if !ok || len(in) == 0 {
		return nil
	}
	var n *int64
	q.fail(runtime.Convert_Slice_string_To_Pointer_int64(&in, &n, nil))
	return n
}
