package podstate

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Grant is the cpu and memory that the node has granted a Pod: what its spec said when the node took it, or last agreed to.
type Grant struct {
	// Pod is that of the Pod as a whole; nil if it has none.
	Pod        *corev1.ResourceRequirements           `json:"pod,omitempty"`
	Containers map[string]corev1.ResourceRequirements `json:"containers,omitempty"`
}

// Asked is what the Pod's spec asks for.
func Asked(pod *corev1.Pod) *Grant {
	g := &Grant{Pod: pod.Spec.Resources.DeepCopy(), Containers: map[string]corev1.ResourceRequirements{}}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			g.Containers[c.Name] = *c.Resources.DeepCopy()
		}
	}
	return g
}

// Same says whether two grants are equal, however their quantities are written.
func (g *Grant) Same(o *Grant) bool { return equality.Semantic.DeepEqual(g, o) }

// In is the Pod with the granted resources in place of those it asks for; the Pod itself if they are the same.
func (g *Grant) In(pod *corev1.Pod) *corev1.Pod {
	if g == nil || g.Same(Asked(pod)) {
		return pod
	}
	out := *pod
	out.Spec.Resources = g.Pod
	put := func(list []corev1.Container) []corev1.Container {
		changed := append([]corev1.Container(nil), list...)
		for i := range changed {
			if r, ok := g.Containers[changed[i].Name]; ok {
				changed[i].Resources = r
			}
		}
		return changed
	}
	out.Spec.InitContainers, out.Spec.Containers = put(pod.Spec.InitContainers), put(pod.Spec.Containers)
	return &out
}

// recalled is the grant that the Pod's status tells of: what the agent knew before the machine was started anew.
func recalled(pod *corev1.Pod) *Grant {
	g := Asked(pod)
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, s := range list {
			r, ok := g.Containers[s.Name]
			if !ok || s.Resources == nil {
				continue
			}
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				if q, ok := s.AllocatedResources[name]; ok && r.Requests != nil {
					r.Requests[name] = q
				}
				if q, ok := s.Resources.Limits[name]; ok && r.Limits != nil {
					r.Limits[name] = q
				}
			}
			g.Containers[s.Name] = r
		}
	}
	return g
}

// Amounts are what a cgroup is made with: cpu in thousandths of a core, memory in bytes. A limit of 0 is none.
type Amounts struct {
	CPURequest    int64 `json:"cpuRequest,omitempty"`
	CPULimit      int64 `json:"cpuLimit,omitempty"`
	MemoryRequest int64 `json:"memoryRequest,omitempty"`
	MemoryLimit   int64 `json:"memoryLimit,omitempty"`
}

// ContainerAmounts are those of a container. One without limits of its own has the Pod's.
func ContainerAmounts(pod *corev1.Pod, c *corev1.Container) Amounts {
	a := Amounts{CPURequest: c.Resources.Requests.Cpu().MilliValue(), CPULimit: c.Resources.Limits.Cpu().MilliValue(),
		MemoryRequest: c.Resources.Requests.Memory().Value(), MemoryLimit: c.Resources.Limits.Memory().Value()}
	if r := pod.Spec.Resources; r != nil {
		if a.CPULimit == 0 {
			a.CPULimit = r.Limits.Cpu().MilliValue()
		}
		if a.MemoryLimit == 0 {
			a.MemoryLimit = r.Limits.Memory().Value()
		}
	}
	if _, asked := c.Resources.Requests[corev1.ResourceCPU]; !asked {
		a.CPURequest = a.CPULimit
	}
	return a
}

// PodAmounts are those of the Pod as a whole: limits only where the Pod has one, or each of its containers does.
func PodAmounts(pod *corev1.Pod) Amounts {
	requests, limits := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}), resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
	a := Amounts{CPURequest: requests.Cpu().MilliValue(), MemoryRequest: requests.Memory().Value()}
	if allLimit(pod, corev1.ResourceCPU) {
		a.CPULimit = limits.Cpu().MilliValue()
	}
	if allLimit(pod, corev1.ResourceMemory) {
		a.MemoryLimit = limits.Memory().Value()
	}
	return a
}

func allLimit(pod *corev1.Pod, name corev1.ResourceName) bool {
	if r := pod.Spec.Resources; r != nil {
		if q, ok := r.Limits[name]; ok && !q.IsZero() {
			return true
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			if q := c.Resources.Limits[name]; q.IsZero() {
				return false
			}
		}
	}
	return true
}

// applied are the resources of a running container as its cgroup has them: those granted, with the amounts that are still others.
func applied(granted corev1.ResourceRequirements, want Amounts, have *Amounts) *corev1.ResourceRequirements {
	r := granted.DeepCopy()
	r.Claims = nil
	if have == nil || *have == want {
		return r
	}
	put := func(list corev1.ResourceList, name corev1.ResourceName, want, have int64) {
		if _, ok := list[name]; !ok || want == have || have == 0 {
			return
		}
		if name == corev1.ResourceCPU {
			list[name] = *resource.NewMilliQuantity(have, resource.DecimalSI)
		} else {
			list[name] = *resource.NewQuantity(have, resource.BinarySI)
		}
	}
	put(r.Requests, corev1.ResourceCPU, want.CPURequest, have.CPURequest)
	put(r.Limits, corev1.ResourceCPU, want.CPULimit, have.CPULimit)
	put(r.Requests, corev1.ResourceMemory, want.MemoryRequest, have.MemoryRequest)
	put(r.Limits, corev1.ResourceMemory, want.MemoryLimit, have.MemoryLimit)
	return r
}

// podResources are what the Pod as a whole was granted, and what its cgroup has.
func (f *Facts) podResources(pod *corev1.Pod) (corev1.ResourceList, *corev1.ResourceRequirements) {
	granted := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	r := pod.Spec.Resources.DeepCopy()
	if r == nil {
		r = &corev1.ResourceRequirements{}
	}
	fill := func(list *corev1.ResourceList, from corev1.ResourceList, when func(corev1.ResourceName) bool) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			_, has := (*list)[name]
			if q, ok := from[name]; ok && !has && when(name) {
				if *list == nil {
					*list = corev1.ResourceList{}
				}
				(*list)[name] = q
			}
		}
	}
	fill(&r.Requests, granted, func(corev1.ResourceName) bool { return true })
	fill(&r.Limits, resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{}), func(n corev1.ResourceName) bool { return allLimit(pod, n) })
	return granted, applied(*r, PodAmounts(pod), f.Applied)
}
