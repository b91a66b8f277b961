package criconf

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Share is what one Pod requests, which the level of its quality of service must have.
type Share struct {
	Class corev1.PodQOSClass
	// MilliCPU is in thousandths of a core, Memory in bytes.
	MilliCPU, Memory int64
}

// Level is what the cgroup of a level must have for the Pods below it: as much processor as Burstable Pods request together, and, where memory is
// kept, what they request of that: the kernel keeps nothing for a cgroup that its parent does not keep too. BestEffort has the least of all.
func Level(class corev1.PodQOSClass, guaranteed, burstable Share, node Node) *runtimeapi.LinuxContainerResources {
	r := &runtimeapi.LinuxContainerResources{}
	files := map[string]int64{}
	switch class {
	case corev1.PodQOSGuaranteed: // the others stand in it
		files[fileMin], files[fileLow] = guaranteed.Memory, burstable.Memory
	case corev1.PodQOSBurstable:
		r.CpuShares = shares(burstable.MilliCPU)
		files[fileLow] = burstable.Memory
	default:
		r.CpuShares = minShares
	}
	if node.Unified && node.Tiered {
		r.Unified = map[string]string{}
		for name, n := range files {
			r.Unified[name] = strconv.FormatInt(n, 10)
		}
	}
	return r
}
