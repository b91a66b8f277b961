package pod

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

// Validate checks a new Pod.
func Validate(p *corev1.Pod) field.ErrorList {
	errs := validatePod(p)
	spec := field.NewPath("spec")
	if len(p.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("ephemeralContainers"), "cannot be set on create"))
	}
	if p.Spec.NodeName != "" && len(p.Spec.SchedulingGates) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	return errs
}

// validatePod checks what holds for a Pod at any time.
func validatePod(p *corev1.Pod) field.ErrorList {
	spec := field.NewPath("spec")
	errs := rule.Meta(&p.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
	errs = append(errs, annotations(field.NewPath("metadata", "annotations"), p.Annotations, &p.Spec)...)
	errs = append(errs, validateSpec(spec, &p.Spec, true)...)
	if p.Name != "" {
		errs = append(errs, claimsOfPod(spec.Child("volumes"), p.Name, p.Spec.Volumes)...)
	}
	if p.Spec.ServiceAccountName == "" {
		errs = append(errs, tokensWithoutAccount(spec.Child("volumes"), p.Spec.Volumes)...)
	}
	if g := p.Spec.TerminationGracePeriodSeconds; g != nil {
		errs = append(errs, rule.NonNegative(spec.Child("terminationGracePeriodSeconds"), *g)...)
	}
	eachContainer(&p.Spec, spec, func(c *corev1.Container, path *field.Path) {
		if strings.TrimSpace(c.Image) != c.Image {
			errs = append(errs, field.Invalid(path.Child("image"), c.Image, "must not have leading or trailing whitespace"))
		}
	})
	return errs
}

func tokensWithoutAccount(path *field.Path, volumes []corev1.Volume) field.ErrorList {
	var errs field.ErrorList
	for i, v := range volumes {
		if v.Projected == nil {
			continue
		}
		for j, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil {
				at := path.Index(i).Child("projected", "sources").Index(j).Child("serviceAccountToken")
				errs = append(errs, field.Forbidden(at, "must not be specified when serviceAccountName is not set"))
			}
		}
	}
	return errs
}

// ValidateTemplate checks the Pod template of another kind.
func ValidateTemplate(path *field.Path, t *corev1.PodTemplateSpec) field.ErrorList {
	errs := metav1validation.ValidateLabels(t.Labels, path.Child("labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(t.Annotations, path.Child("annotations"))...)
	errs = append(errs, annotations(path.Child("annotations"), t.Annotations, &t.Spec)...)
	errs = append(errs, validateSpec(path.Child("spec"), &t.Spec, false)...)
	if len(t.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(path.Child("spec", "ephemeralContainers"), "ephemeral containers not allowed in pod template"))
	}
	return errs
}

// annotations checks those annotations that mean something to Kubernetes.
func annotations(path *field.Path, annotations map[string]string, spec *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	if value, ok := annotations[corev1.MirrorPodAnnotationKey]; ok && spec.NodeName == "" {
		errs = append(errs, field.Invalid(path.Key(corev1.MirrorPodAnnotationKey), value, "must set spec.nodeName if mirror pod annotation is set"))
	}
	if value, ok := annotations[corev1.PodDeletionCost]; ok {
		// Signs and leading zeros would make costs look different that are the same.
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil || strconv.FormatInt(n, 10) != value {
			errs = append(errs, field.Invalid(path.Key(corev1.PodDeletionCost), value, "must be a 32bit integer"))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		if strings.HasPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix) {
			errs = append(errs, unsupported(path.Key(key)))
		}
	}
	return errs
}

// validateSpec checks the spec of a Pod or, unless isPod, of a template.
func validateSpec(path *field.Path, s *corev1.PodSpec, isPod bool) field.ErrorList {
	var errs field.ErrorList
	add := func(more field.ErrorList) { errs = append(errs, more...) }
	if s.TerminationGracePeriodSeconds == nil {
		add(field.ErrorList{field.Required(path.Child("terminationGracePeriodSeconds"), "")})
	}
	volumes, wrong := validateVolumes(path.Child("volumes"), s.Volumes)
	add(wrong)
	add(validateContainers(path, s, volumes))
	add(validatePodResources(path, s))
	add(fileKeyVolumes(path, s))
	if s.HostNetwork {
		add(hostNetworkPorts(path.Child("containers"), s.Containers, isPod))
	}
	add(rule.OneOf(path.Child("restartPolicy"), s.RestartPolicy,
		corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever))
	add(validateDNS(path, s))
	add(metav1validation.ValidateLabels(s.NodeSelector, path.Child("nodeSelector")))
	add(validatePodSecurity(path, s))
	for i, ref := range s.ImagePullSecrets {
		if (ref != corev1.LocalObjectReference{Name: ref.Name}) {
			add(field.ErrorList{field.Invalid(path.Child("imagePullSecrets").Index(i), ref, "only name may be set")})
		}
	}
	add(validateScheduling(path, s))
	add(validateNames(path, s))
	if d := s.ActiveDeadlineSeconds; d != nil && (*d < 1 || *d > math.MaxInt32) {
		add(field.ErrorList{field.Invalid(path.Child("activeDeadlineSeconds"), *d, validation.InclusiveRangeError(1, math.MaxInt32))})
	}
	for i, a := range s.HostAliases {
		at := path.Child("hostAliases").Index(i)
		add(rule.IP(at.Child("ip"), a.IP))
		for j, name := range a.Hostnames {
			add(rule.Subdomain(at.Child("hostnames").Index(j), name))
		}
	}
	for i, g := range s.ReadinessGates {
		add(rule.QualifiedName(path.Child("readinessGates").Index(i).Child("conditionType"), string(g.ConditionType)))
	}
	if s.Overhead != nil {
		add(rule.Resources(path.Child("overhead"), &corev1.ResourceRequirements{Limits: s.Overhead}))
	}
	add(validateOS(path, s))
	add(validateWindows(path, s))
	add(validateWindowsOptions(path, s))
	add(unsupportedSpec(path, s))
	return errs
}

// validateNames checks the fields that name other objects, and the Pod's own host name.
func validateNames(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	for _, n := range []struct{ field, name string }{
		{"serviceAccountName", s.ServiceAccountName},
		{"nodeName", s.NodeName},
		{"priorityClassName", s.PriorityClassName},
	} {
		if n.name != "" {
			errs = append(errs, rule.Subdomain(path.Child(n.field), n.name)...)
		}
	}
	if s.RuntimeClassName != nil {
		errs = append(errs, rule.Subdomain(path.Child("runtimeClassName"), *s.RuntimeClassName)...)
	}
	if s.DeprecatedServiceAccount != s.ServiceAccountName {
		errs = append(errs, field.Invalid(path.Child("deprecatedServiceAccount"), s.DeprecatedServiceAccount,
			fmt.Sprintf("must be the same as serviceAccountName: %q", s.ServiceAccountName)))
	}
	if s.Hostname != "" {
		errs = append(errs, rule.DNSLabel(path.Child("hostname"), s.Hostname)...)
	}
	errs = append(errs, validateHostnameOverride(path, s)...)
	if s.Subdomain != "" {
		errs = append(errs, rule.DNSLabel(path.Child("subdomain"), s.Subdomain)...)
	}
	if p := s.PreemptionPolicy; p != nil {
		errs = append(errs, rule.OneOf(path.Child("preemptionPolicy"), *p, corev1.PreemptLowerPriority, corev1.PreemptNever)...)
	}
	return errs
}

func validateHostnameOverride(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	if s.HostnameOverride == nil {
		return nil
	}
	at := path.Child("hostnameOverride")
	var errs field.ErrorList
	if s.SetHostnameAsFQDN != nil && *s.SetHostnameAsFQDN {
		errs = append(errs, field.Forbidden(at, "may not be specified when setHostnameAsFQDN is true"))
	}
	if s.HostNetwork {
		errs = append(errs, field.Forbidden(at, "may not be specified when hostNetwork is true"))
	}
	const most = 64 // characters that the kernel takes
	if len(*s.HostnameOverride) > most {
		errs = append(errs, field.TooLong(at, "", most))
	}
	return append(errs, rule.Subdomain(at, *s.HostnameOverride)...)
}

// validateOS knows Linux and Windows.
func validateOS(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	switch {
	case s.OS == nil:
		return nil
	case s.OS.Name == "":
		return field.ErrorList{field.Required(path.Child("os", "name"), "")}
	}
	return rule.Known(path.Child("os"), s.OS.Name, corev1.Linux, corev1.Windows)
}
