package pod

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-helpers/resource"

	"carob.dev/carob/internal/api/rule"
)

// defaultPodResources completes the resources of the Pod as a whole, where it has some, from those of its containers: first limits of huge
// pages, then requests, then the limits of what every container limits.
func defaultPodResources(p *corev1.Pod) {
	r := p.Spec.Resources
	if r == nil || len(r.Requests) == 0 && len(r.Limits) == 0 {
		return
	}
	put := func(list *corev1.ResourceList, name corev1.ResourceName, q apiresource.Quantity) {
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = q.DeepCopy()
	}
	has := func(list corev1.ResourceList, name corev1.ResourceName) bool {
		_, ok := list[name]
		return ok
	}
	requests, limits := sums(&p.Spec)
	for name, q := range limits {
		if hugePage(name) && !has(r.Requests, name) && !has(r.Limits, name) {
			put(&r.Limits, name, q)
		}
	}
	for name, q := range requests {
		if resource.IsSupportedPodLevelResource(name) && !hugePage(name) && !has(r.Requests, name) {
			put(&r.Requests, name, q)
		}
	}
	for name, q := range r.Limits {
		if resource.IsSupportedPodLevelResource(name) && !has(r.Requests, name) {
			put(&r.Requests, name, q)
		}
	}
	for name, request := range r.Requests {
		if !resource.IsSupportedPodLevelResource(name) || has(r.Limits, name) || !eachLimits(&p.Spec, name) {
			continue
		}
		if q, ok := limits[name]; ok {
			if request.Cmp(q) > 0 {
				q = request
			}
			put(&r.Limits, name, q)
		}
	}
}

// sums are what the containers request and limit together.
func sums(s *corev1.PodSpec) (requests, limits corev1.ResourceList) {
	p := &corev1.Pod{Spec: corev1.PodSpec{InitContainers: s.InitContainers, Containers: s.Containers}}
	return resource.AggregateContainerRequests(p, resource.PodResourcesOptions{}), resource.AggregateContainerLimits(p, resource.PodResourcesOptions{})
}

func hugePage(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

func eachLimits(s *corev1.PodSpec, name corev1.ResourceName) bool {
	all := true
	eachContainer(s, nil, func(c *corev1.Container, _ *field.Path) {
		_, ok := c.Resources.Limits[name]
		all = all && ok
	})
	return all
}

// validatePodResources checks the resources of the Pod as a whole, and that those of its containers stay within them.
func validatePodResources(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	r := s.Resources
	if r == nil {
		return nil
	}
	at := path.Child("resources")
	if s.OS != nil && s.OS.Name == corev1.Windows {
		return field.ErrorList{field.Forbidden(at, "may not be set for a windows pod")}
	}
	var errs field.ErrorList
	if r.Claims != nil {
		errs = append(errs, field.Forbidden(at.Child("claims"), "claims may not be set for Resources at pod-level"))
	}
	errs = append(errs, rule.PodResources(at, r)...)
	requests, limits := sums(s)
	for _, name := range sortedNames(requests) {
		sum, own := requests[name], r.Requests[name]
		if _, ok := r.Requests[name]; ok && sum.Cmp(own) > 0 {
			errs = append(errs, field.Invalid(at.Child("requests").Key(string(name)), own.String(),
				"must be greater than or equal to aggregate container requests of "+sum.String()))
		}
	}
	for _, name := range sortedNames(limits) {
		sum, own := limits[name], r.Limits[name]
		if _, ok := r.Limits[name]; ok && hugePage(name) && sum.Cmp(own) > 0 {
			errs = append(errs, field.Invalid(at.Child("limits").Key(string(name)), own.String(),
				"must be greater than or equal to aggregate container limits of "+sum.String()))
		}
	}
	for i := range s.Containers {
		list := s.Containers[i].Resources.Limits
		for _, name := range sortedNames(list) {
			limit, own := list[name], r.Limits[name]
			if _, ok := r.Limits[name]; ok && limit.Cmp(own) > 0 { // the path is Kubernetes' own
				errs = append(errs, field.Invalid(at.Child("containers").Index(i).Key(string(name)).Child("limits"), limit.String(),
					fmt.Sprintf("must be less than or equal to pod limits of %s", own.String())))
			}
		}
	}
	return errs
}

func sortedNames(list corev1.ResourceList) []corev1.ResourceName {
	names := make([]corev1.ResourceName, 0, len(list))
	for name := range list {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
