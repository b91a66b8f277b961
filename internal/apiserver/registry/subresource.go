package registry

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"carob.dev/carob/internal/api"
)

// Subresource serves a part of a kind's objects, such as /status: get, update and patch.
type Subresource struct{ store *genericregistry.Store }

var (
	_ rest.Patcher             = &Subresource{}
	_ rest.ResetFieldsStrategy = &Subresource{}
)

// NewSubresource makes the subresource sub of a kind.
func NewSubresource(s *Store, sub *api.Subresource) *Subresource {
	return &Subresource{store: s.WithUpdateStrategy(sub)}
}

// New implements rest.Storage.
func (r *Subresource) New() runtime.Object { return r.store.New() }

// Destroy implements rest.Storage; the parent destroys the storage.
func (r *Subresource) Destroy() {}

// Get implements rest.Getter.
func (r *Subresource) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return r.store.Get(ctx, name, options)
}

// Update implements rest.Updater. It never creates.
func (r *Subresource) Update(
	ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc, update rest.ValidateObjectUpdateFunc,
	_ bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	return r.store.Update(ctx, name, info, create, update, false, options)
}

// GetResetFields implements rest.ResetFieldsStrategy.
func (r *Subresource) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return r.store.GetResetFields()
}

// ConvertToTable implements rest.TableConvertor.
func (r *Subresource) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return r.store.ConvertToTable(ctx, obj, options)
}

// OwnedPart is a subresource that owns a few fields of its object, and none of the others.
type OwnedPart struct {
	part  *Subresource
	owned resetFilter
}

var (
	_ rest.Patcher                   = &OwnedPart{}
	_ rest.ResetFieldsFilterStrategy = &OwnedPart{}
)

// NewOwnedPart makes the subresource sub of a kind, which owns sub.OwnFields.
func NewOwnedPart(s *Store, sub *api.Subresource) *OwnedPart {
	return &OwnedPart{part: NewSubresource(s, sub), owned: newOwnFields(s.Kind, sub.OwnFields...)}
}

// New implements rest.Storage.
func (r *OwnedPart) New() runtime.Object { return r.part.New() }

// Destroy implements rest.Storage; the parent destroys the storage.
func (r *OwnedPart) Destroy() {}

// Get implements rest.Getter.
func (r *OwnedPart) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return r.part.Get(ctx, name, options)
}

// Update implements rest.Updater. It never creates.
func (r *OwnedPart) Update(
	ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc, update rest.ValidateObjectUpdateFunc,
	_ bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	return r.part.Update(ctx, name, info, create, update, false, options)
}

// GetResetFieldsFilter implements rest.ResetFieldsFilterStrategy.
func (r *OwnedPart) GetResetFieldsFilter() map[fieldpath.APIVersion]fieldpath.Filter { return r.owned }

// ConvertToTable implements rest.TableConvertor.
func (r *OwnedPart) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return r.part.ConvertToTable(ctx, obj, options)
}
