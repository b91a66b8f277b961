package volume

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

// DefaultClaimSpec fills in what a claim, or a template of claims, leaves out.
func DefaultClaimSpec(s *corev1.PersistentVolumeClaimSpec) {
	fillPointer(&s.VolumeMode, corev1.PersistentVolumeFilesystem)
	milliScale(s.Resources.Limits)
	milliScale(s.Resources.Requests)
}

// DefaultClaim fills in what a claim leaves out.
func DefaultClaim(c *corev1.PersistentVolumeClaim) {
	if c.Status.Phase == "" {
		c.Status.Phase = corev1.ClaimPending
	}
	DefaultClaimSpec(&c.Spec)
	milliScale(c.Status.Capacity)
	milliScale(c.Status.AllocatedResources)
}

// ClaimSpec checks what a new claim asks for.
func ClaimSpec(path *field.Path, s *corev1.PersistentVolumeClaimSpec) field.ErrorList {
	return claimSpec(path, s, nil)
}

// claimSpec checks a spec; what was wrong in old already may stay so, where Kubernetes came to be strict later.
func claimSpec(path *field.Path, s, old *corev1.PersistentVolumeClaimSpec) field.ErrorList {
	var errs field.ErrorList
	if len(s.AccessModes) == 0 {
		errs = append(errs, field.Required(path.Child("accessModes"), "at least 1 access mode is required"))
	}
	if s.Selector != nil {
		options := metav1validation.LabelSelectorValidationOptions{}
		if old != nil {
			options.AllowInvalidLabelValueInSelector = len(metav1validation.ValidateLabelSelector(old.Selector, options, nil)) > 0
		}
		errs = append(errs, metav1validation.ValidateLabelSelector(s.Selector, options, path.Child("selector"))...)
	}
	errs = append(errs, accessModes(path.Child("accessModes"), s.AccessModes)...)
	size := path.Child("resources").Key(string(corev1.ResourceStorage))
	switch q, ok := s.Resources.Requests[corev1.ResourceStorage]; {
	case !ok:
		errs = append(errs, field.Required(size, ""))
	case q.Sign() <= 0:
		errs = append(errs, field.Invalid(size, q.String(), notPositive))
	}
	if c := s.StorageClassName; c != nil && *c != "" {
		errs = append(errs, rule.ClassName(path.Child("storageClassName"), *c)...)
	}
	errs = append(errs, volumeMode(path.Child("volumeMode"), s.VolumeMode)...)
	errs = append(errs, dataSources(path, s, old != nil && (named(old.DataSource) || namedRef(old.DataSourceRef)))...)
	if c := s.VolumeAttributesClassName; c != nil && *c != "" {
		errs = append(errs, rule.ClassName(path.Child("volumeAttributesClassName"), *c)...)
	}
	return errs
}

// ClaimTemplate checks a template of claims in a Pod or a set of Pods: of the metadata, only labels and annotations mean anything.
func ClaimTemplate(path *field.Path, t *corev1.PersistentVolumeClaimTemplate) field.ErrorList {
	return append(rule.TemplateMeta(path.Child("metadata"), &t.ObjectMeta), ClaimSpec(path.Child("spec"), &t.Spec)...)
}

// Claim checks a new claim.
func Claim(c *corev1.PersistentVolumeClaim) field.ErrorList {
	return append(rule.Meta(&c.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), ClaimSpec(field.NewPath("spec"), &c.Spec)...)
}

// ClaimUpdate checks a changed claim. Once made, a claim may get its volume and its class, once each; a bound one may also ask for another
// size and for other attributes.
func ClaimUpdate(c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	errs := rule.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, rule.Meta(&c.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)...)
	spec := field.NewPath("spec")
	errs = append(errs, claimSpec(spec, &c.Spec, &old.Spec)...)

	now, was := c.Spec.DeepCopy(), old.Spec.DeepCopy()
	if was.VolumeName == "" {
		was.VolumeName = now.VolumeName
	}
	oldClass, hadClass := old.Annotations[corev1.BetaStorageClassAnnotation]
	newClass, hasClass := c.Annotations[corev1.BetaStorageClassAnnotation]
	gained := was.StorageClassName == nil && now.StorageClassName != nil
	if gained && hadClass && *now.StorageClassName == oldClass && (!hasClass || newClass == oldClass) {
		now.StorageClassName = nil // the field takes over from the annotation
	} else {
		if newClass != oldClass {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "annotations", corev1.BetaStorageClassAnnotation), newClass,
				apivalidation.FieldImmutableErrorMsg))
		}
		if gained && (!hadClass || *now.StorageClassName == oldClass) {
			now.StorageClassName = nil
		}
	}
	if c.Status.Phase == corev1.ClaimBound {
		if now.Resources.Requests != nil {
			now.Resources.Requests[corev1.ResourceStorage] = was.Resources.Requests[corev1.ResourceStorage]
		}
		now.VolumeAttributesClassName = was.VolumeAttributesClassName
	}
	if !equality.Semantic.DeepEqual(now, was) {
		errs = append(errs, field.Forbidden(spec, fmt.Sprintf(
			"spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n%v", diff.Diff(was, now))))
	}
	asked, before, have := c.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage],
		old.Status.Capacity[corev1.ResourceStorage]
	if asked.Cmp(before) < 0 && asked.Cmp(have) <= 0 {
		errs = append(errs, field.Forbidden(spec.Child("resources", "requests", "storage"), "field can not be less than status.capacity"))
	}
	errs = append(errs, rule.Immutable(field.NewPath("volumeMode"), c.Spec.VolumeMode, old.Spec.VolumeMode)...)
	if old.Status.CurrentVolumeAttributesClassName != nil &&
		!equality.Semantic.DeepEqual(c.Spec.VolumeAttributesClassName, old.Spec.VolumeAttributesClassName) {
		switch to := c.Spec.VolumeAttributesClassName; {
		case to == nil:
			errs = append(errs, field.Forbidden(spec.Child("volumeAttributesClassName"),
				"update to nil is forbidden when status.currentVolumeAttributesClassName is not nil"))
		case *to == "":
			errs = append(errs, field.Forbidden(spec.Child("volumeAttributesClassName"),
				"update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil"))
		}
	}
	return errs
}

// resizeStates are the states of a change of size that a claim's status may tell.
var resizeStates = []corev1.ClaimResourceStatus{
	corev1.PersistentVolumeClaimControllerResizeInProgress, corev1.PersistentVolumeClaimControllerResizeInfeasible,
	corev1.PersistentVolumeClaimNodeResizePending, corev1.PersistentVolumeClaimNodeResizeInProgress, corev1.PersistentVolumeClaimNodeResizeInfeasible,
}

// ClaimStatusUpdate checks a changed status of a claim.
func ClaimStatusUpdate(c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	errs := rule.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, required(field.NewPath("resourceVersion"), c.ResourceVersion)...)
	if len(c.Spec.AccessModes) == 0 {
		errs = append(errs, field.Required(field.NewPath("Spec", "accessModes"), ""))
	}
	status := field.NewPath("status")
	errs = append(errs, amounts(status.Child("capacity"), c.Status.Capacity)...)
	if h := c.Status.HealthStatus; h != nil {
		for i, condition := range h.HealthConditions {
			if condition.Reason != "" {
				errs = append(errs, rule.Messages(status.Child("healthStatus", "healthConditions").Index(i).Child("reason"), condition.Reason,
					metav1validation.IsValidConditionReason(condition.Reason))...)
			}
		}
	}
	at := status.Child("allocatedResourceStatuses")
	for name, state := range c.Status.AllocatedResourceStatuses {
		errs = append(errs, claimResource(at, name)...)
		if !slices.Contains(resizeStates, state) {
			errs = append(errs, field.NotSupported(at, name, resizeStates))
		}
	}
	at = status.Child("allocatedResources")
	for name, q := range c.Status.AllocatedResources {
		if wrong := claimResource(at, name); len(wrong) > 0 {
			errs = append(errs, wrong...)
			continue
		}
		errs = append(errs, amount(at.Key(string(name)), q)...)
	}
	return errs
}

// claimResource wants the name of a resource that a claim's status may count: storage, or one of an operator's own.
func claimResource(at *field.Path, name corev1.ResourceName) field.ErrorList {
	errs := rule.QualifiedName(at, string(name))
	if len(errs) == 0 && native(name) && name != corev1.ResourceStorage {
		errs = append(errs, field.NotSupported(at, name, []corev1.ResourceName{corev1.ResourceStorage}))
	}
	return errs
}

// native says that the name is Kubernetes' own: without a prefix or under kubernetes.io.
func native(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// ClaimWarnings are what a client is told about a claim that is right but odd.
func ClaimWarnings(c *corev1.PersistentVolumeClaim) []string {
	var out []string
	if _, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		out = append(out, fmt.Sprintf("%s: %s", field.NewPath("metadata", "annotations").Key(corev1.BetaStorageClassAnnotation), useClassName))
	}
	return append(out, ClaimSpecWarnings(field.NewPath("spec"), &c.Spec)...)
}

// ClaimSpecWarnings are ClaimWarnings for the spec alone, as in templates.
func ClaimSpecWarnings(path *field.Path, s *corev1.PersistentVolumeClaimSpec) []string {
	var out []string
	for _, l := range []struct {
		name string
		list corev1.ResourceList
	}{{"requests", s.Resources.Requests}, {"limits", s.Resources.Limits}} {
		if q := l.list[corev1.ResourceStorage]; q.MilliValue()%1000 != 0 {
			out = append(out, fmt.Sprintf("%s: fractional byte value %q is invalid, must be an integer",
				path.Child("resources", l.name).Key(string(corev1.ResourceStorage)), q.String()))
		}
	}
	return out
}
