// Package review answers who somebody is and what they may do: the reviews of authentication.k8s.io and authorization.k8s.io.
//
// It imports k8s.io/apiserver. Nothing is stored.
package review

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
)

// REST serves one kind of review, of type T.
type REST[T runtime.Object] struct {
	singular   string
	namespaced bool
	make       func() T
	answer     func(context.Context, T) (T, error)
}

// New implements rest.Storage.
func (r *REST[T]) New() runtime.Object { return r.make() }

// Destroy implements rest.Storage.
func (*REST[T]) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (r *REST[T]) NamespaceScoped() bool { return r.namespaced }

// GetSingularName implements rest.SingularNameProvider.
func (r *REST[T]) GetSingularName() string { return r.singular }

// Create implements rest.Creater: the answer is the review with its status filled in.
func (r *REST[T]) Create(
	ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions,
) (runtime.Object, error) {
	review, ok := obj.(T)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a %T: %T", r.make(), obj))
	}
	if validate != nil {
		if err := validate(ctx, obj.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	return r.answer(ctx, review)
}
