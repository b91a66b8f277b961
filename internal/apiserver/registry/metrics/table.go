package metrics

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// ConvertToTable implements rest.TableConvertor.
func (*Nodes) ConvertToTable(_ context.Context, obj, _ runtime.Object) (*metav1.Table, error) {
	switch o := obj.(type) {
	case *metricsv1beta1.NodeMetrics:
		return table(row(o, o.Name, o.Usage, o.Window)), nil
	case *metricsv1beta1.NodeMetricsList:
		var rows []metav1.TableRow
		for i := range o.Items {
			rows = append(rows, row(&o.Items[i], o.Items[i].Name, o.Items[i].Usage, o.Items[i].Window))
		}
		return table(rows...), nil
	}
	return nil, fmt.Errorf("%T are no metrics of nodes", obj)
}

// ConvertToTable implements rest.TableConvertor.
func (*Pods) ConvertToTable(_ context.Context, obj, _ runtime.Object) (*metav1.Table, error) {
	switch o := obj.(type) {
	case *metricsv1beta1.PodMetrics:
		return table(row(o, o.Name, sum(o), o.Window)), nil
	case *metricsv1beta1.PodMetricsList:
		var rows []metav1.TableRow
		for i := range o.Items {
			rows = append(rows, row(&o.Items[i], o.Items[i].Name, sum(&o.Items[i]), o.Items[i].Window))
		}
		return table(rows...), nil
	}
	return nil, fmt.Errorf("%T are no metrics of Pods", obj)
}

func sum(p *metricsv1beta1.PodMetrics) corev1.ResourceList {
	total := corev1.ResourceList{}
	for _, c := range p.Containers {
		for name, q := range c.Usage {
			t := total[name]
			t.Add(q)
			total[name] = t
		}
	}
	return total
}

var resources = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

func row(obj runtime.Object, name string, usage corev1.ResourceList, window metav1.Duration) metav1.TableRow {
	r := metav1.TableRow{Cells: []any{name}, Object: runtime.RawExtension{Object: obj}}
	for _, n := range resources {
		q, ok := usage[n]
		if !ok {
			q = resource.Quantity{}
		}
		r.Cells = append(r.Cells, q.String())
	}
	r.Cells = append(r.Cells, window.Duration.String())
	return r
}

func table(rows ...metav1.TableRow) *metav1.Table {
	docs := metav1.ObjectMeta{}.SwaggerDoc()
	t := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{{Name: "Name", Type: "string", Format: "name", Description: docs["name"]}}, Rows: rows}
	for _, n := range resources {
		t.ColumnDefinitions = append(t.ColumnDefinitions, metav1.TableColumnDefinition{Name: string(n), Type: "string", Format: "quantity"})
	}
	t.ColumnDefinitions = append(t.ColumnDefinitions, metav1.TableColumnDefinition{Name: "Window", Type: "string", Format: "duration"})
	return t
}
