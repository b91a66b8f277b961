// Package registry turns the kinds of package api into the storage that the API machinery serves: one generic registry per kind, with its
// /status and /scale, all driven by the kind's own functions. What a kind can do beyond that lives in a subpackage of its own.
//
// It imports api and k8s.io/apiserver. Invariant: every write of an object goes through the generic registry or its storage, so that
// resource versions, dry runs and preconditions hold everywhere.
package registry

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/client-go/tools/cache"

	"carob.dev/carob/internal/api"
)

// Store serves the objects of one kind.
type Store struct {
	*genericregistry.Store
	Kind *api.Kind
}

// ShortNames implements rest.ShortNamesProvider.
func (s *Store) ShortNames() []string { return s.Kind.ShortNames }

// Categories implements rest.CategoriesProvider.
func (s *Store) Categories() []string { return s.Kind.Categories }

// New makes the registry of a kind. index is a selectable field that many watchers select on, each another value; empty for none.
func New(kind *api.Kind, typer runtime.ObjectTyper, options generic.RESTOptionsGetter, index string) (*Store, error) {
	plain := newStrategy(kind, typer)
	group := schema.GroupResource{Group: kind.Group, Resource: kind.Resource}
	attrs := attributes(kind)
	s := &genericregistry.Store{
		NewFunc:                   kind.New,
		NewListFunc:               kind.NewList,
		DefaultQualifiedResource:  group,
		SingularQualifiedResource: schema.GroupResource{Group: kind.Group, Resource: kind.Singular},
		PredicateFunc: func(label labels.Selector, field fields.Selector) storage.SelectionPredicate {
			p := storage.SelectionPredicate{Label: label, Field: field, GetAttrs: attrs}
			if index != "" {
				p.IndexFields = []string{index}
			}
			return p
		},
		TTLFunc:        kind.TTLSeconds,
		CreateStrategy: plain,
		UpdateStrategy: plain,
		DeleteStrategy: plain,
		TableConvertor: table{kind},

		ReturnDeletedObject: kind.ReturnDeleted,
	}
	if kind.Graceful != nil {
		s.DeleteStrategy, s.ReturnDeletedObject = gracefulStrategy{plain}, true
	}
	if kind.Row == nil {
		s.TableConvertor = rest.NewDefaultTableConvertor(group)
	}
	if kind.Status != nil {
		s.ResetFieldsStrategy = newResetFields(kind, "status")
	}
	opts := &generic.StoreOptions{RESTOptions: options, AttrFunc: attrs}
	if index != "" {
		opts.TriggerFunc, opts.Indexers = triggers(attrs, index)
	}
	if err := s.CompleteWithOptions(opts); err != nil {
		return nil, fmt.Errorf("storage of %s: %w", group, err)
	}
	return &Store{Store: s, Kind: kind}, nil
}

// attributes gives what selectors look at.
func attributes(kind *api.Kind) storage.AttrFunc {
	return func(obj runtime.Object) (labels.Set, fields.Set, error) {
		object, err := meta.Accessor(obj)
		if err != nil {
			return nil, nil, err
		}
		set := fields.Set{}
		if kind.Fields != nil {
			set = kind.Fields(obj)
		}
		set["metadata.name"] = object.GetName()
		if kind.Namespaced {
			set["metadata.namespace"] = object.GetNamespace()
		}
		return object.GetLabels(), set, nil
	}
}

// triggers lets the watch cache find the watchers of one value of a field, and the objects that have it, without looking at all.
func triggers(attrs storage.AttrFunc, index string) (storage.IndexerFuncs, *cache.Indexers) {
	value := func(obj runtime.Object) string {
		_, set, err := attrs(obj)
		if err != nil {
			return ""
		}
		return set[index]
	}
	return storage.IndexerFuncs{index: value}, &cache.Indexers{
		storage.FieldIndex(index): func(obj any) ([]string, error) {
			o, ok := obj.(runtime.Object)
			if !ok {
				return nil, fmt.Errorf("%T is no API object", obj)
			}
			return []string{value(o)}, nil
		},
	}
}

// WithUpdateStrategy is the same store with another way to update, for a subresource. The hooks of the store that are about deletion are
// those of s, and so must be set before.
func (s *Store) WithUpdateStrategy(sub *api.Subresource) *genericregistry.Store {
	plain, ok := s.CreateStrategy.(strategy)
	if !ok {
		panic(fmt.Sprintf("the store of %s was not made by New", s.DefaultQualifiedResource))
	}
	c := *s.Store
	c.UpdateStrategy = subresourceStrategy{strategy: plain, sub: sub}
	c.ResetFieldsStrategy = newResetFields(s.Kind, sub.ResetFields...)
	c.BeginCreate, c.BeginUpdate = nil, nil // they are about what a subresource does not write
	return &c
}
