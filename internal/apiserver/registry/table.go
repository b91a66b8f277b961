package registry

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"carob.dev/carob/internal/api"
)

// table prints objects of a kind, one or a list, in the kind's columns.
type table struct{ kind *api.Kind }

// ConvertToTable implements rest.TableConvertor.
func (t table) ConvertToTable(_ context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	out := &metav1.Table{}
	add := func(obj runtime.Object) error {
		cells, err := t.kind.Row(obj)
		if err != nil {
			return err
		}
		row := metav1.TableRow{Cells: cells, Object: runtime.RawExtension{Object: obj}}
		if t.kind.Completed != nil {
			row.Conditions = t.kind.Completed(obj)
		}
		out.Rows = append(out.Rows, row)
		return nil
	}
	if meta.IsListType(obj) {
		if err := meta.EachListItem(obj, add); err != nil {
			return nil, err
		}
		t.mark(out.Rows)
		if list, err := meta.ListAccessor(obj); err == nil {
			out.ResourceVersion, out.Continue, out.RemainingItemCount =
				list.GetResourceVersion(), list.GetContinue(), list.GetRemainingItemCount()
		}
	} else {
		if err := add(obj); err != nil {
			return nil, err
		}
		if object, err := meta.Accessor(obj); err == nil {
			out.ResourceVersion = object.GetResourceVersion()
		}
	}
	if o, ok := options.(*metav1.TableOptions); !ok || !o.NoHeaders {
		out.ColumnDefinitions = t.kind.Columns
	}
	return out, nil
}

// mark lets the kind change the rows of a list.
func (t table) mark(rows []metav1.TableRow) {
	if t.kind.Mark == nil {
		return
	}
	objs, cells := make([]runtime.Object, len(rows)), make([][]any, len(rows))
	for i, r := range rows {
		objs[i], cells[i] = r.Object.Object, r.Cells
	}
	t.kind.Mark(objs, cells)
}
