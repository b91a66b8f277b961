package api

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The functions here turn functions of one Go type into the untyped ones of Kind. Handing a Kind an object of another type is
// a programming error and panics, but for rows, which are also made of what comes from outside.

func defaulter[T runtime.Object](f func(T)) func(runtime.Object) {
	return func(obj runtime.Object) { f(obj.(T)) }
}

func onCreate[T runtime.Object](f func(T)) func(context.Context, runtime.Object) {
	return func(_ context.Context, obj runtime.Object) { f(obj.(T)) }
}

func onUpdate[T runtime.Object](f func(obj, old T)) func(context.Context, runtime.Object, runtime.Object) {
	return func(_ context.Context, obj, old runtime.Object) { f(obj.(T), old.(T)) }
}

func check[T runtime.Object](f func(T) field.ErrorList) func(context.Context, runtime.Object) field.ErrorList {
	return func(_ context.Context, obj runtime.Object) field.ErrorList { return f(obj.(T)) }
}

func checkUpdate[T runtime.Object](f func(obj, old T) field.ErrorList) func(context.Context, runtime.Object, runtime.Object) field.ErrorList {
	return func(_ context.Context, obj, old runtime.Object) field.ErrorList { return f(obj.(T), old.(T)) }
}

func selectable[T runtime.Object](f func(T) fields.Set) func(runtime.Object) fields.Set {
	return func(obj runtime.Object) fields.Set { return f(obj.(T)) }
}

// row gives f the time of printing, against which ages are told.
func row[T runtime.Object](f func(obj T, now time.Time) []any) func(runtime.Object) ([]any, error) {
	return func(obj runtime.Object) ([]any, error) {
		t, ok := obj.(T)
		if !ok {
			return nil, fmt.Errorf("print %T as %T", obj, t)
		}
		return f(t, time.Now()), nil
	}
}
