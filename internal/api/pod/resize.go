package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-helpers/resource"

	"carob.dev/carob/internal/api/rule"
)

// validateResizePolicy reports what is wrong with an entry at the list, as Kubernetes does. policy is the Pod's.
func validateResizePolicy(path *field.Path, list []corev1.ContainerResizePolicy, policy corev1.RestartPolicy) field.ErrorList {
	var errs field.ErrorList
	seen := map[corev1.ResourceName]bool{}
	for i, p := range list {
		if seen[p.ResourceName] {
			errs = append(errs, field.Duplicate(path.Index(i), p.ResourceName))
		}
		seen[p.ResourceName] = true
		errs = append(errs, rule.OneOf(path, p.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)...)
		errs = append(errs, rule.OneOf(path, p.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)...)
		if policy == corev1.RestartPolicyNever && p.RestartPolicy != corev1.NotRequired {
			errs = append(errs, field.Invalid(path, p.RestartPolicy, "must be 'NotRequired' when pod `restartPolicy` is 'Never'"))
		}
	}
	return errs
}

// PrepareResize keeps everything but the resources and resize policies. A Pod whose containers are not those it had is left for
// ValidateResize to refuse.
func PrepareResize(p, old *corev1.Pod) {
	if len(p.Spec.Containers) == len(old.Spec.Containers) && len(p.Spec.InitContainers) == len(old.Spec.InitContainers) {
		now := p.Spec
		p.Spec = *old.Spec.DeepCopy()
		p.Spec.Resources = now.Resources
		p.Spec.InitContainers = resized(now.InitContainers, p.Spec.InitContainers)
		p.Spec.Containers = resized(now.Containers, p.Spec.Containers)
		p.Status = old.Status
		metav1.ResetObjectMetaForStatus(&p.ObjectMeta, &old.ObjectMeta)
	}
	if p.Spec.Resources == nil && old.Spec.Resources != nil { // who does not know of it keeps it
		p.Spec.Resources = old.Spec.Resources.DeepCopy()
	}
	defaultPodResources(p)
	countGeneration(p, old)
}

// resized are the old containers with the new resources; the new ones if they are others.
func resized(now, was []corev1.Container) []corev1.Container {
	for i := range now {
		if now[i].Name != was[i].Name {
			return now
		}
	}
	for i := range now {
		was[i].Resources, was[i].ResizePolicy = now[i].Resources, now[i].ResizePolicy
	}
	return was
}

// ValidateResize checks an update through the resize subresource: the same containers, whose cpu and memory may change but not go away, and
// a Pod that keeps its quality of service.
func ValidateResize(p, old *corev1.Pod) field.ErrorList {
	if _, ok := old.Annotations[corev1.MirrorPodAnnotationKey]; ok {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods cannot be resized")}
	}
	spec := field.NewPath("spec")
	errs := rule.MetaUpdate(&p.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, validatePod(p)...)
	if QOS(old) != computeQOS(p) {
		errs = append(errs, field.Invalid(spec, p.Status.QOSClass, "Pod QOS Class may not change as a result of resizing"))
	}
	rest := p.Spec.DeepCopy()
	if set(p) || set(old) {
		errs = append(errs, resizedPodResources(spec, rest, &old.Spec)...)
	}
	if wrong := sameContainers(spec, &p.Spec, &old.Spec); len(wrong) > 0 {
		return append(errs, wrong...)
	}
	for i := range old.Spec.InitContainers {
		now, was := &rest.InitContainers[i], &old.Spec.InitContainers[i]
		at := spec.Child("initContainers").Index(i)
		errs = append(errs, keptResources(at.Child("resources"), &now.Resources, &was.Resources)...)
		changed := !equality.Semantic.DeepEqual(*now, *was)
		forgetCompute(&now.Resources, &was.Resources)
		if !equality.Semantic.DeepEqual(*now, *was) {
			errs = append(errs, field.Forbidden(at, "only cpu and memory resources for init or sidecar containers are mutable"))
		}
		if changed && !isSidecar(now) {
			for _, policy := range now.ResizePolicy {
				if policy.RestartPolicy == corev1.RestartContainer {
					errs = append(errs, field.Forbidden(at, "non-sidecar init containers with a resize policy of RestartContainer cannot be resized"))
				}
			}
		}
	}
	for i := range old.Spec.Containers {
		now, was := &rest.Containers[i], &old.Spec.Containers[i]
		errs = append(errs, keptResources(spec.Child("containers").Index(i).Child("resources"), &now.Resources, &was.Resources)...)
		forgetCompute(&now.Resources, &was.Resources)
		if !equality.Semantic.DeepEqual(*now, *was) {
			errs = append(errs, field.Forbidden(spec, "only cpu and memory resources are mutable"))
		}
	}
	if len(errs) == 0 && !equality.Semantic.DeepEqual(*rest, old.Spec) {
		errs = append(errs, field.Forbidden(spec, "only cpu and memory resources are mutable"))
	}
	return errs
}

// set says whether the Pod as a whole has resources.
func set(p *corev1.Pod) bool { return resource.IsPodLevelResourcesSet(p) }

// resizedPodResources checks the resources of the Pod as a whole, and gives rest the old ones where they may change.
func resizedPodResources(spec *field.Path, rest, old *corev1.PodSpec) field.ErrorList {
	at := spec.Child("resources")
	if rest.Resources == nil {
		return field.ErrorList{field.Forbidden(at, "pod-level resources cannot be removed")}
	}
	was := old.Resources
	if was == nil {
		was = &corev1.ResourceRequirements{}
	}
	var errs field.ErrorList
	if removed(rest.Resources.Requests, was.Requests) {
		errs = append(errs, field.Forbidden(at.Child("requests"), "pod-level resource requests cannot be removed"))
	}
	if removed(rest.Resources.Limits, was.Limits) {
		errs = append(errs, field.Forbidden(at.Child("limits"), "pod-level resource limits cannot be removed"))
	}
	forgetCompute(rest.Resources, was)
	if r := rest.Resources; old.Resources == nil && len(r.Requests) == 0 && len(r.Limits) == 0 && len(r.Claims) == 0 {
		rest.Resources = nil
	}
	if !equality.Semantic.DeepEqual(rest.Resources, old.Resources) {
		errs = append(errs, field.Forbidden(spec, "only cpu and memory resources are mutable at pod-level"))
	}
	return errs
}

func sameContainers(spec *field.Path, now, was *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	for _, l := range []struct {
		name     string
		now, was []corev1.Container
	}{{"containers", now.Containers, was.Containers}, {"initContainers", now.InitContainers, was.InitContainers}} {
		at := spec.Child(l.name)
		if len(l.now) != len(l.was) {
			errs = append(errs, field.Forbidden(at, l.name+" may not be added or removed on resize"))
			continue
		}
		for i := range l.was {
			if l.now[i].Name != l.was[i].Name {
				errs = append(errs, field.Forbidden(at.Index(i).Child("name"), l.name+" may not be renamed or reordered on resize"))
			}
		}
	}
	return errs
}

// keptResources refuses that a request or a limit goes away.
func keptResources(at *field.Path, now, was *corev1.ResourceRequirements) field.ErrorList {
	var errs field.ErrorList
	if removed(now.Requests, was.Requests) {
		errs = append(errs, field.Forbidden(at.Child("requests"), "resource requests cannot be removed"))
	}
	if removed(now.Limits, was.Limits) {
		errs = append(errs, field.Forbidden(at.Child("limits"), "resource limits cannot be removed"))
	}
	return errs
}

func removed(now, was corev1.ResourceList) bool {
	for name := range was {
		if _, ok := now[name]; !ok {
			return true
		}
	}
	return false
}

// forgetCompute gives r the cpu and memory that was has.
func forgetCompute(r, was *corev1.ResourceRequirements) {
	forget := func(now, was corev1.ResourceList) corev1.ResourceList {
		if now == nil && was == nil {
			return nil
		}
		out := corev1.ResourceList{}
		for name, q := range now {
			if name != corev1.ResourceCPU && name != corev1.ResourceMemory {
				out[name] = q
			}
		}
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			if q, ok := was[name]; ok {
				out[name] = q
			}
		}
		return out
	}
	r.Requests, r.Limits = forget(r.Requests, was.Requests), forget(r.Limits, was.Limits)
}
