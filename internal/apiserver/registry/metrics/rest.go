package metrics

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"carob.dev/carob/internal/apiserver/registry"
)

// Nodes serves NodeMetrics.
type Nodes struct {
	Store  *registry.Store
	Source Source
}

// Pods serves PodMetrics.
type Pods struct {
	Store  *registry.Store
	Source Source
}

type storage interface {
	rest.Getter
	rest.Lister
	rest.Scoper
	rest.SingularNameProvider
	rest.KindProvider
}

var _, _ storage = &Nodes{}, &Pods{}

// New implements rest.Storage.
func (*Nodes) New() runtime.Object { return &metricsv1beta1.NodeMetrics{} }

// New implements rest.Storage.
func (*Pods) New() runtime.Object { return &metricsv1beta1.PodMetrics{} }

// NewList implements rest.Lister.
func (*Nodes) NewList() runtime.Object { return &metricsv1beta1.NodeMetricsList{} }

// NewList implements rest.Lister.
func (*Pods) NewList() runtime.Object { return &metricsv1beta1.PodMetricsList{} }

// Destroy implements rest.Storage; there is nothing.
func (*Nodes) Destroy() {}

// Destroy implements rest.Storage; there is nothing.
func (*Pods) Destroy() {}

// Kind implements rest.KindProvider.
func (*Nodes) Kind() string { return "NodeMetrics" }

// Kind implements rest.KindProvider.
func (*Pods) Kind() string { return "PodMetrics" }

// GetSingularName implements rest.SingularNameProvider; metrics have none.
func (*Nodes) GetSingularName() string { return "" }

// GetSingularName implements rest.SingularNameProvider; metrics have none.
func (*Pods) GetSingularName() string { return "" }

// NamespaceScoped implements rest.Scoper.
func (*Nodes) NamespaceScoped() bool { return false }

// NamespaceScoped implements rest.Scoper.
func (*Pods) NamespaceScoped() bool { return true }

// Get implements rest.Getter.
func (r *Nodes) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	node, err := registry.GetCached[*corev1.Node](ctx, r.Store, "", name)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	if err == nil {
		if list := r.metrics(ctx, []corev1.Node{*node}); len(list) == 1 {
			return &list[0], nil
		}
	}
	return nil, apierrors.NewNotFound(metricsv1beta1.Resource("nodes"), name)
}

// List implements rest.Lister.
func (r *Nodes) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	nodes := &corev1.NodeList{}
	if err := list(ctx, r.Store, options, nodes); err != nil {
		return nil, err
	}
	return &metricsv1beta1.NodeMetricsList{Items: r.metrics(ctx, nodes.Items)}, nil
}

func (r *Nodes) metrics(ctx context.Context, nodes []corev1.Node) []metricsv1beta1.NodeMetrics {
	names := map[string]bool{}
	for _, n := range nodes {
		names[n.Name] = true
	}
	known, out := r.Source.ask(ctx, names), []metricsv1beta1.NodeMetrics{}
	for _, n := range nodes {
		m, ok := known[n.Name]
		u := usage(m.Node.CPU, m.Node.Memory)
		if !ok || u == nil {
			continue
		}
		out = append(out, metricsv1beta1.NodeMetrics{ObjectMeta: objectMeta(n.ObjectMeta, m.Node.CPU.Time), Timestamp: m.Node.CPU.Time,
			Window: metav1.Duration{Duration: m.window}, Usage: u})
	}
	return out
}

// Get implements rest.Getter.
func (r *Pods) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	namespace := request.NamespaceValue(ctx)
	pod, err := registry.GetCached[*corev1.Pod](ctx, r.Store, namespace, name)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	if err == nil {
		if list := r.metrics(ctx, []corev1.Pod{*pod}); len(list) == 1 {
			return &list[0], nil
		}
	}
	return nil, apierrors.NewNotFound(metricsv1beta1.Resource("pods"), namespace+"/"+name)
}

// List implements rest.Lister.
func (r *Pods) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	pods := &corev1.PodList{}
	if err := list(ctx, r.Store, options, pods); err != nil {
		return nil, err
	}
	return &metricsv1beta1.PodMetricsList{Items: r.metrics(ctx, pods.Items)}, nil
}

// metrics are those of the Pods of which every running container is known.
func (r *Pods) metrics(ctx context.Context, pods []corev1.Pod) []metricsv1beta1.PodMetrics {
	names := map[string]bool{}
	for _, p := range pods {
		if p.Spec.NodeName != "" && p.Status.Phase == corev1.PodRunning {
			names[p.Spec.NodeName] = true
		}
	}
	known, out := r.Source.ask(ctx, names), []metricsv1beta1.PodMetrics{}
	for _, p := range pods {
		m, ok := known[p.Spec.NodeName]
		if !ok {
			continue
		}
		for _, s := range m.Pods {
			if s.PodRef.Namespace != p.Namespace || s.PodRef.Name != p.Name { // not by UID: a static Pod's is other than its mirror's
				continue
			}
			one := metricsv1beta1.PodMetrics{ObjectMeta: objectMeta(p.ObjectMeta, m.Node.CPU.Time), Timestamp: m.Node.CPU.Time, Window: metav1.Duration{Duration: m.window}}
			complete := len(s.Containers) > 0
			for _, c := range s.Containers {
				u := usage(c.CPU, c.Memory)
				complete = complete && u != nil
				one.Containers = append(one.Containers, metricsv1beta1.ContainerMetrics{Name: c.Name, Usage: u})
			}
			if complete {
				out = append(out, one)
			}
		}
	}
	return out
}

// list reads the objects that the metrics are about out of the watch cache. Fields that may be selected are name and namespace.
func list(ctx context.Context, s *registry.Store, options *internalversion.ListOptions, into runtime.Object) error {
	want := &internalversion.ListOptions{LabelSelector: labels.Everything(), FieldSelector: fields.Everything(), ResourceVersion: "0"}
	if options != nil && options.LabelSelector != nil {
		want.LabelSelector = options.LabelSelector
	}
	if options != nil && options.FieldSelector != nil {
		want.FieldSelector = options.FieldSelector
	}
	ctx = request.WithRequestInfo(ctx, &request.RequestInfo{APIGroup: s.DefaultQualifiedResource.Group, Resource: s.DefaultQualifiedResource.Resource,
		Namespace: request.NamespaceValue(ctx)})
	found, err := s.Store.List(ctx, want)
	if err != nil {
		return err
	}
	items, err := meta.ExtractList(found)
	if err != nil {
		return fmt.Errorf("list %s: %w", s.DefaultQualifiedResource, err)
	}
	return meta.SetList(into, items)
}
