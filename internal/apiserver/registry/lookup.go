package registry

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// Get reads an object as it is now. namespace is empty for cluster-wide kinds.
func Get[T runtime.Object](ctx context.Context, s *Store, namespace, name string) (T, error) {
	return get[T](ctx, s, namespace, name, "")
}

// GetCached reads an object out of the watch cache, or the store if the cache does not have it (yet). What it returns may be a moment
// old, and must not be changed.
func GetCached[T runtime.Object](ctx context.Context, s *Store, namespace, name string) (T, error) {
	obj, err := get[T](ctx, s, namespace, name, "0")
	if apierrors.IsNotFound(err) {
		return get[T](ctx, s, namespace, name, "")
	}
	return obj, err
}

// ListCached adds to list the objects of a namespace, or of all if that is empty, that have the value in the indexed field of the kind;
// an empty field lets all pass. They come out of the watch cache, and must not be changed.
func ListCached[L runtime.Object](ctx context.Context, s *Store, namespace, field, value string) (L, error) {
	var none L
	ctx = request.WithNamespace(request.WithRequestInfo(ctx, &request.RequestInfo{
		APIGroup: s.DefaultQualifiedResource.Group, Resource: s.DefaultQualifiedResource.Resource, Namespace: namespace,
	}), namespace)
	options := &metainternalversion.ListOptions{ResourceVersion: "0"}
	if field != "" {
		options.FieldSelector = fields.OneTermEqualSelector(field, value)
	}
	obj, err := s.List(ctx, options)
	if err != nil {
		return none, err
	}
	l, ok := obj.(L)
	if !ok {
		return none, fmt.Errorf("%s are listed as %T, not %T", s.DefaultQualifiedResource, obj, none)
	}
	return l, nil
}

func get[T runtime.Object](ctx context.Context, s *Store, namespace, name, version string) (T, error) {
	var none T
	ctx = request.WithNamespace(request.WithRequestInfo(ctx, &request.RequestInfo{
		APIGroup: s.DefaultQualifiedResource.Group, Resource: s.DefaultQualifiedResource.Resource, Namespace: namespace, Name: name,
	}), namespace)
	obj, err := s.Get(ctx, name, &metav1.GetOptions{ResourceVersion: version})
	if err != nil {
		return none, err
	}
	t, ok := obj.(T)
	if !ok {
		return none, fmt.Errorf("%s are stored as %T, not %T", s.DefaultQualifiedResource, obj, none)
	}
	return t, nil
}
