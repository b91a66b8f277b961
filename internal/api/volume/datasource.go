package volume

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

const claimKind = "PersistentVolumeClaim"

func named(s *corev1.TypedLocalObjectReference) bool { return s != nil && s.APIGroup != nil }
func namedRef(s *corev1.TypedObjectReference) bool   { return s != nil && s.APIGroup != nil }

// dataSources checks what a volume is to be filled from. anyGroup lets groups pass that are no DNS names.
func dataSources(path *field.Path, s *corev1.PersistentVolumeClaimSpec, anyGroup bool) field.ErrorList {
	var errs field.ErrorList
	one := func(at *field.Path, group *string, kind, name string) {
		errs = append(errs, required(at.Child("name"), name)...)
		errs = append(errs, required(at.Child("kind"), kind)...)
		switch {
		case group == nil || *group == "":
			if kind != claimKind {
				errs = append(errs, field.Invalid(at, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"))
			}
		case !anyGroup:
			errs = append(errs, rule.Subdomain(at.Child("apiGroup"), *group)...)
		}
	}
	from, ref := s.DataSource, s.DataSourceRef
	if from != nil {
		one(path.Child("dataSource"), from.APIGroup, from.Kind, from.Name)
	}
	if ref != nil {
		one(path.Child("dataSourceRef"), ref.APIGroup, ref.Kind, ref.Name)
		if ns := ref.Namespace; ns != nil && *ns != "" {
			errs = append(errs, rule.Messages(path.Child("dataSourceRef", "namespace"), *ns, apivalidation.ValidateNamespaceName(*ns, false))...)
		}
	}
	switch {
	case from == nil || ref == nil:
	case ref.Namespace != nil && *ref.Namespace != "":
		errs = append(errs, field.Invalid(path, path.Child("dataSource"), "may not be specified when dataSourceRef.namespace is specified"))
	case !equality.Semantic.DeepEqual(from.APIGroup, ref.APIGroup) || from.Kind != ref.Kind || from.Name != ref.Name:
		errs = append(errs, field.Invalid(path, path.Child("dataSource"), "must match dataSourceRef"))
	}
	return errs
}

// PrepareDataSources keeps dataSource and dataSourceRef the same where only one is given. What dataSource alone may not name (anything but a
// claim or a snapshot) is dropped, as it always was, unless old had a source. old is nil on create.
func PrepareDataSources(s, old *corev1.PersistentVolumeClaimSpec) {
	hadRef := old != nil && old.DataSourceRef != nil
	if ref := s.DataSourceRef; ref != nil && ref.Namespace != nil && *ref.Namespace != "" && !hadRef {
		s.DataSourceRef = nil // sources in other namespaces are not served, as in Kubernetes without that feature
	}
	if had := old != nil && (old.DataSource != nil || old.DataSourceRef != nil); !had && s.DataSourceRef == nil && !claimOrSnapshot(s.DataSource) {
		s.DataSource = nil
	}
	normalize(s)
	if old != nil {
		normalize(old)
	}
}

func claimOrSnapshot(s *corev1.TypedLocalObjectReference) bool {
	if s == nil {
		return false
	}
	group := ""
	if s.APIGroup != nil {
		group = *s.APIGroup
	}
	return s.Kind == claimKind && group == "" || s.Kind == "VolumeSnapshot" && group == "snapshot.storage.k8s.io"
}

func normalize(s *corev1.PersistentVolumeClaimSpec) {
	switch from, ref := s.DataSource, s.DataSourceRef; {
	case from != nil && ref == nil:
		s.DataSourceRef = &corev1.TypedObjectReference{APIGroup: from.APIGroup, Kind: from.Kind, Name: from.Name}
	case ref != nil && from == nil && (ref.Namespace == nil || *ref.Namespace == ""):
		s.DataSource = &corev1.TypedLocalObjectReference{APIGroup: ref.APIGroup, Kind: ref.Kind, Name: ref.Name}
	}
}
