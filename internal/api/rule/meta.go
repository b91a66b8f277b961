package rule

import (
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	corev1 "k8s.io/api/core/v1"
)

// Meta checks the metadata of a new object.
func Meta(meta *metav1.ObjectMeta, namespaced bool, name NameFunc) field.ErrorList {
	path := field.NewPath("metadata")
	return append(apivalidation.ValidateObjectMeta(meta, namespaced, name, path), finalizers(path, meta)...)
}

// MetaUpdate checks the metadata of a changed object.
func MetaUpdate(meta, old *metav1.ObjectMeta) field.ErrorList {
	path := field.NewPath("metadata")
	return append(apivalidation.ValidateObjectMetaUpdate(meta, old, path), finalizers(path, meta)...)
}

func finalizers(path *field.Path, meta *metav1.ObjectMeta) field.ErrorList {
	var errs field.ErrorList
	for i, f := range meta.Finalizers {
		errs = append(errs, standardFinalizer(path.Child("finalizers").Index(i), f)...)
	}
	return errs
}

// Finalizer checks the name of a finalizer.
func Finalizer(path *field.Path, name string) field.ErrorList {
	return append(apivalidation.ValidateFinalizerName(name, path), standardFinalizer(path, name)...)
}

func standardFinalizer(path *field.Path, name string) field.ErrorList {
	switch name {
	case string(corev1.FinalizerKubernetes), metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents:
		return nil
	}
	if strings.Contains(name, "/") {
		return nil
	}
	return field.ErrorList{field.Invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified")}
}

// TemplateMeta checks the metadata of a template of objects that are named by whoever makes them: only labels and annotations may be set.
func TemplateMeta(path *field.Path, meta *metav1.ObjectMeta) field.ErrorList {
	errs := apivalidation.ValidateAnnotations(meta.Annotations, path.Child("annotations"))
	errs = append(errs, metav1validation.ValidateLabels(meta.Labels, path.Child("labels"))...)
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"name", meta.Name != ""}, {"generateName", meta.GenerateName != ""}, {"namespace", meta.Namespace != ""},
		{"selfLink", meta.SelfLink != ""}, {"uID", meta.UID != ""}, {"resourceVersion", meta.ResourceVersion != ""},
		{"generation", meta.Generation != 0}, {"creationTimestamp", !meta.CreationTimestamp.IsZero()},
		{"deletionTimestamp", meta.DeletionTimestamp != nil}, {"deletionGracePeriodSeconds", meta.DeletionGracePeriodSeconds != nil},
		{"ownerReferences", len(meta.OwnerReferences) > 0}, {"finalizers", len(meta.Finalizers) > 0}, {"managedFields", len(meta.ManagedFields) > 0},
	} {
		if f.set {
			errs = append(errs, field.Forbidden(path.Child(f.name), "cannot be set"))
		}
	}
	return errs
}
