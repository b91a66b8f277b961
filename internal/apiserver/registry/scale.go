package registry

import (
	"context"
	"fmt"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// Scale serves /scale of a kind: replicas read and written in one form for all kinds that have them.
type Scale struct{ store *Store }

var (
	_ rest.Patcher                  = &Scale{}
	_ rest.GroupVersionKindProvider = &Scale{}
)

// NewScale makes the /scale of a kind that has one.
func NewScale(s *Store) *Scale { return &Scale{store: s} }

// GroupVersionKind implements rest.GroupVersionKindProvider.
func (*Scale) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return autoscalingv1.SchemeGroupVersion.WithKind("Scale")
}

// New implements rest.Storage.
func (*Scale) New() runtime.Object { return &autoscalingv1.Scale{} }

// Destroy implements rest.Storage; the parent destroys the storage.
func (*Scale) Destroy() {}

// Get implements rest.Getter.
func (r *Scale) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	obj, err := r.store.Get(ctx, name, options)
	if err != nil {
		return nil, err
	}
	return r.of(obj)
}

// Update implements rest.Updater. It never creates.
func (r *Scale) Update(
	ctx context.Context, name string, info rest.UpdatedObjectInfo, _ rest.ValidateObjectFunc, update rest.ValidateObjectUpdateFunc,
	_ bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	obj, _, err := r.store.Update(ctx, name, &scaledObject{scale: r, name: name, info: info}, rest.ValidateAllObjectFunc,
		func(ctx context.Context, obj, old runtime.Object) error {
			if update == nil {
				return nil
			}
			oldScale, err := r.of(old)
			if err != nil {
				return err
			}
			newScale, err := r.of(obj)
			if err != nil {
				return err
			}
			return update(ctx, newScale, oldScale)
		}, false, options)
	if err != nil {
		return nil, false, err
	}
	scale, err := r.of(obj)
	if err != nil {
		return nil, false, err
	}
	return scale, false, nil
}

// ConvertToTable implements rest.TableConvertor.
func (r *Scale) ConvertToTable(_ context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	s, ok := obj.(*autoscalingv1.Scale)
	if !ok {
		return nil, fmt.Errorf("print %T as a Scale", obj)
	}
	age := "<unknown>"
	if !s.CreationTimestamp.IsZero() {
		age = duration.HumanDuration(time.Since(s.CreationTimestamp.Time))
	}
	out := &metav1.Table{
		ListMeta: metav1.ListMeta{ResourceVersion: s.ResourceVersion},
		Rows: []metav1.TableRow{{
			Cells: []any{s.Name, int64(s.Spec.Replicas), int64(s.Status.Replicas), age}, Object: runtime.RawExtension{Object: obj},
		}},
	}
	if o, ok := options.(*metav1.TableOptions); !ok || !o.NoHeaders {
		meta := metav1.ObjectMeta{}.SwaggerDoc()
		out.ColumnDefinitions = []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name", Description: meta["name"]},
			{Name: "Desired", Type: "integer", Description: autoscalingv1.ScaleSpec{}.SwaggerDoc()["replicas"]},
			{Name: "Available", Type: "integer", Description: autoscalingv1.ScaleStatus{}.SwaggerDoc()["replicas"]},
			{Name: "Age", Type: "string", Description: meta["creationTimestamp"]},
		}
	}
	return out, nil
}

func (r *Scale) of(obj runtime.Object) (*autoscalingv1.Scale, error) {
	object, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	spec, status, selector, err := r.store.Kind.Scale.Get(obj)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Name: object.GetName(), Namespace: object.GetNamespace(), UID: object.GetUID(),
			ResourceVersion: object.GetResourceVersion(), CreationTimestamp: object.GetCreationTimestamp(),
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: spec},
		Status: autoscalingv1.ScaleStatus{Replicas: status, Selector: selector},
	}, nil
}

// scaledObject turns an update of a Scale into one of its object.
type scaledObject struct {
	scale *Scale
	name  string
	info  rest.UpdatedObjectInfo
}

// Preconditions implements rest.UpdatedObjectInfo.
func (s *scaledObject) Preconditions() *metav1.Preconditions { return s.info.Preconditions() }

// UpdatedObject implements rest.UpdatedObjectInfo.
func (s *scaledObject) UpdatedObject(ctx context.Context, old runtime.Object) (runtime.Object, error) {
	kind := s.scale.store.Kind
	obj := old.DeepCopyObject()
	object, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	if object.GetResourceVersion() == "" { // there is none: only objects that exist can be scaled
		return nil, apierrors.NewNotFound(s.scale.store.DefaultQualifiedResource, s.name)
	}
	fieldsHandler := managedfields.NewScaleHandler(object.GetManagedFields(), kind.GroupVersion(), managedfields.ResourcePathMappings{
		kind.GroupVersion().String(): fieldpath.MakePathOrDie("spec", "replicas"),
	})
	oldScale, err := s.scale.of(obj)
	if err != nil {
		return nil, err
	}
	if oldScale.ManagedFields, err = fieldsHandler.ToSubresource(); err != nil {
		return nil, err
	}
	updated, err := s.info.UpdatedObject(ctx, oldScale)
	if err != nil {
		return nil, err
	}
	scale, ok := updated.(*autoscalingv1.Scale)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("expected input object type to be Scale, but %T", updated))
	}
	if errs := validateScale(scale); len(errs) > 0 {
		return nil, apierrors.NewInvalid(autoscalingv1.SchemeGroupVersion.WithKind("Scale").GroupKind(), s.name, errs)
	}
	if scale.UID != "" && scale.UID != object.GetUID() {
		return nil, apierrors.NewConflict(s.scale.store.DefaultQualifiedResource, s.name,
			fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", scale.UID, object.GetUID()))
	}
	kind.Scale.Set(obj, scale.Spec.Replicas)
	object.SetResourceVersion(scale.ResourceVersion)
	entries, err := fieldsHandler.ToParent(scale.ManagedFields)
	if err != nil {
		return nil, err
	}
	object.SetManagedFields(entries)
	return obj, nil
}

func validateScale(scale *autoscalingv1.Scale) field.ErrorList {
	errs := validation.ValidateObjectMeta(&scale.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	if scale.Spec.Replicas < 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "replicas"), scale.Spec.Replicas, "must be greater than or equal to 0").
			WithOrigin("minimum"))
	}
	return errs
}
