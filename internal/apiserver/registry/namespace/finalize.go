package namespace

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"carob.dev/carob/internal/apiserver/registry"
)

// Finalize serves namespaces/finalize: an update of spec.finalizers, and nothing else.
type Finalize struct{ sub *registry.Subresource }

var _ rest.Updater = &Finalize{}

// NewFinalize makes the subresource, after New.
func NewFinalize(s *registry.Store) *Finalize {
	return &Finalize{sub: registry.NewSubresource(s, s.Kind.Finalize)}
}

// New implements rest.Storage.
func (r *Finalize) New() runtime.Object { return r.sub.New() }

// Destroy implements rest.Storage; the parent destroys the storage.
func (*Finalize) Destroy() {}

// GetResetFields implements rest.ResetFieldsStrategy.
func (r *Finalize) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return r.sub.GetResetFields()
}

// Update implements rest.Updater.
func (r *Finalize) Update(
	ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc, update rest.ValidateObjectUpdateFunc,
	_ bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	return r.sub.Update(ctx, name, info, create, update, false, options)
}
