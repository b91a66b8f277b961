package rule

import (
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
