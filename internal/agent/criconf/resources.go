package criconf

import (
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/agent/podstate"
	podrule "carob.dev/carob/internal/api/pod"
)

const (
	cpuPeriod = 100000 // microseconds
	minQuota  = 1000   // microseconds
	minShares = 2
	maxShares = 262144
)

// Node is what limits depend on besides the Pod.
type Node struct {
	// Total is the machine's memory, in bytes.
	Total int64
	// Unified is true on cgroup v2.
	Unified bool
	// SwapControl says that cgroups can limit swap.
	SwapControl bool
	Memory
}

func shares(milli int64) int64 {
	if milli == 0 {
		return minShares
	}
	return min(max(milli*1024/1000, minShares), maxShares)
}

func quota(milli int64) int64 {
	if milli == 0 {
		return 0
	}
	return max(milli*cpuPeriod/1000, minQuota)
}

// Limits are amounts as a cgroup has them.
func Limits(a podstate.Amounts) *runtimeapi.LinuxContainerResources {
	return &runtimeapi.LinuxContainerResources{CpuShares: shares(a.CPURequest), CpuPeriod: cpuPeriod, CpuQuota: quota(a.CPULimit),
		MemoryLimitInBytes: a.MemoryLimit}
}

// ContainerResources are the limits of one container.
func ContainerResources(pod *corev1.Pod, c *corev1.Container, node Node) *runtimeapi.LinuxContainerResources {
	r := Limits(podstate.ContainerAmounts(pod, c))
	r.OomScoreAdj = OOMScoreAdj(pod, c, node.Total)
	if node.Unified { // on v1 a runtime lets nobody swap beyond a limit
		r.Unified = memoryFiles(pod, c, node)
	}
	r.HugepageLimits = hugepages(c.Resources.Limits)
	return r
}

func hugepages(limits corev1.ResourceList) []*runtimeapi.HugepageLimit {
	var list []*runtimeapi.HugepageLimit
	for name, q := range limits {
		size, ok := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix)
		if !ok {
			continue
		}
		parsed, err := apiresource.ParseQuantity(size)
		if err != nil {
			continue // validation has seen it
		}
		list = append(list, &runtimeapi.HugepageLimit{PageSize: PageSize(parsed.Value()), Limit: uint64(q.Value())})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].PageSize < list[j].PageSize })
	return list
}

// PodHugepages are the limits of the Pod as a whole.
func PodHugepages(pod *corev1.Pod) []*runtimeapi.HugepageLimit {
	return hugepages(resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{}))
}

// PageSize writes a size of pages as the kernel's cgroup files do: 2MB, 1GB.
func PageSize(bytes int64) string {
	units := []string{"B", "KB", "MB", "GB", "TB"}
	i := 0
	for bytes >= 1024 && i < len(units)-1 {
		bytes /= 1024
		i++
	}
	return apiresource.NewQuantity(bytes, apiresource.DecimalSI).String() + units[i]
}

// OOMScoreAdj says how readily the kernel shall kill the container's processes when memory runs out: never first those of Guaranteed
// Pods, first those of BestEffort ones, others by how much they ask for.
func OOMScoreAdj(pod *corev1.Pod, c *corev1.Container, memory int64) int64 {
	if pod.Spec.Priority != nil && *pod.Spec.Priority >= 2000001000 { // system-node-critical
		return -997
	}
	switch podrule.QOS(pod) {
	case corev1.PodQOSGuaranteed:
		return -997
	case corev1.PodQOSBestEffort:
		return 1000
	}
	if memory <= 0 {
		return 999
	}
	request := c.Resources.Requests.Memory().Value()
	if spec, ok := podstate.Find(pod, c.Name); ok && spec.Kind == podstate.Sidecar {
		least := int64(-1)
		for _, app := range pod.Spec.Containers {
			if m := app.Resources.Requests.Memory().Value(); least < 0 || m < least {
				least = m
			}
		}
		request = max(request, least)
	}
	request += spareMemory(pod)
	adj := 1000 - 1000*request/memory
	return min(max(adj, 3), 999)
}

// spareMemory is each container's share of what the Pod as a whole requests beyond its containers.
func spareMemory(pod *corev1.Pod) int64 {
	if pod.Spec.Resources == nil || pod.Spec.Resources.Requests.Memory().IsZero() {
		return 0
	}
	sum := resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{})
	spare := pod.Spec.Resources.Requests.Memory().Value() - sum.Memory().Value()
	return max(spare, 0) / int64(len(pod.Spec.Containers)+len(pod.Spec.InitContainers))
}

// PodResources are the limits of the Pod as a whole: limits only where the Pod has one, or every container has.
func PodResources(pod *corev1.Pod) *runtimeapi.LinuxContainerResources {
	return Limits(podstate.PodAmounts(pod))
}
