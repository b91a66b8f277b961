package node

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxImages is how many images a Node tells, the largest first.
const maxImages = 50

// facts decide a Node's status.
type facts struct {
	machine           Machine
	maxPods           int
	ips               []netip.Addr
	port              uint16
	kubernetesVersion string
	runtimeVersion    string
	images            []*runtimeapi.Image
	// handlers and features are what the runtime can do.
	handlers []*runtimeapi.RuntimeHandler
	features *runtimeapi.RuntimeFeatures
	// reserved is what Pods never get.
	reserved Reserved
	// pressure are the conditions that tell of it.
	pressure []corev1.NodeConditionType
	// notReady is why the node is not ready; empty if it is.
	notReady string
}

func capacity(f facts) corev1.ResourceList {
	list := corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(f.machine.CPUs), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(f.machine.Memory, resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(f.machine.Storage, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(int64(f.maxPods), resource.DecimalSI),
	}
	for size, bytes := range f.machine.HugePages {
		name := corev1.ResourceName(corev1.ResourceHugePagesPrefix + resource.NewQuantity(size, resource.BinarySI).String())
		list[name] = *resource.NewQuantity(bytes, resource.BinarySI)
	}
	return list
}

// declaredFeatures are those of the features that Kubernetes 1.37 has nodes declare that this agent has, by name.
func declaredFeatures() []string {
	return []string{"InPlacePodLevelResourcesVerticalScaling", "RestartAllContainersOnContainerExits"}
}

// Reserved is what Pods never get of the machine: CPU in thousandths of a core, memory and storage in bytes, a number of processes.
type Reserved struct{ MilliCPU, Memory, Storage, PIDs int64 }

// allocatable is capacity less what Pods never get: what is reserved, and memory that is set aside for huge pages.
func allocatable(f facts) corev1.ResourceList {
	list := capacity(f)
	if r := f.reserved.MilliCPU; r > 0 {
		list[corev1.ResourceCPU] = *resource.NewMilliQuantity(max(int64(f.machine.CPUs)*1000-r, 0), resource.DecimalSI)
	}
	memory := f.machine.Memory - f.reserved.Memory
	for _, bytes := range f.machine.HugePages {
		memory -= bytes
	}
	list[corev1.ResourceMemory] = *resource.NewQuantity(max(memory, 0), resource.BinarySI)
	list[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(max(f.machine.Storage-f.reserved.Storage, 0), resource.DecimalSI)
	return list
}

// status is the Node's, with the times of old conditions where they have not changed.
func status(f facts, old *corev1.NodeStatus, now time.Time) corev1.NodeStatus {
	s := corev1.NodeStatus{Capacity: capacity(f), Allocatable: allocatable(f)}
	for _, ip := range f.ips {
		s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip.String()})
	}
	s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: f.machine.Hostname})
	s.DaemonEndpoints.KubeletEndpoint.Port = int32(f.port)
	swap := f.machine.Swap
	s.NodeInfo = corev1.NodeSystemInfo{MachineID: f.machine.MachineID, SystemUUID: f.machine.SystemUUID, BootID: f.machine.BootID, KernelVersion: f.machine.Kernel,
		OSImage: f.machine.OS, ContainerRuntimeVersion: f.runtimeVersion, KubeletVersion: f.kubernetesVersion, OperatingSystem: "linux",
		Architecture: f.machine.Arch, Swap: &corev1.NodeSwapStatus{Capacity: &swap}}
	s.Images = imageList(f.images)
	s.RuntimeHandlers, s.Features = runtimeHandlers(f.handlers), runtimeFeatures(f.features)
	s.DeclaredFeatures = declaredFeatures()
	ready := condition{corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", "kubelet is posting ready status"}
	if f.notReady != "" {
		ready = condition{corev1.NodeReady, corev1.ConditionFalse, "KubeletNotReady", f.notReady}
	}
	for _, p := range pressures {
		c := condition{p.kind, corev1.ConditionFalse, p.noReason, p.noMessage}
		if slices.Contains(f.pressure, p.kind) {
			c = condition{p.kind, corev1.ConditionTrue, p.reason, p.message}
		}
		s.Conditions = append(s.Conditions, c.at(old.Conditions, now))
	}
	s.Conditions = append(s.Conditions, ready.at(old.Conditions, now))
	return s
}

// pressures are the conditions that tell of pressure, in kubelet's words.
var pressures = []struct {
	kind                                 corev1.NodeConditionType
	reason, message, noReason, noMessage string
	// event and noEvent are the reasons of the events that tell of a change.
	event, noEvent string
}{
	{corev1.NodeMemoryPressure, "KubeletHasInsufficientMemory", "kubelet has insufficient memory available", "KubeletHasSufficientMemory",
		"kubelet has sufficient memory available", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"},
	{corev1.NodeDiskPressure, "KubeletHasDiskPressure", "kubelet has disk pressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure",
		"NodeHasDiskPressure", "NodeHasNoDiskPressure"},
	{corev1.NodePIDPressure, "KubeletHasInsufficientPID", "kubelet has insufficient PID available", "KubeletHasSufficientPID",
		"kubelet has sufficient PID available", "NodeHasInsufficientPID", "NodeHasSufficientPID"},
}

// changes are the reasons of the events that tell which of these conditions are other than before.
func changes(before, now []corev1.NodeCondition) []string {
	is := func(list []corev1.NodeCondition, kind corev1.NodeConditionType) bool {
		return slices.ContainsFunc(list, func(c corev1.NodeCondition) bool { return c.Type == kind && c.Status == corev1.ConditionTrue })
	}
	var list []string
	for _, p := range pressures {
		switch was, is := is(before, p.kind), is(now, p.kind); {
		case is && !was:
			list = append(list, p.event)
		case was && !is:
			list = append(list, p.noEvent)
		}
	}
	return list
}

type condition struct {
	kind            corev1.NodeConditionType
	status          corev1.ConditionStatus
	reason, message string
}

func (c condition) at(old []corev1.NodeCondition, now time.Time) corev1.NodeCondition {
	t := metav1.NewTime(now.Truncate(time.Second))
	out := corev1.NodeCondition{Type: c.kind, Status: c.status, Reason: c.reason, Message: c.message, LastHeartbeatTime: t, LastTransitionTime: t}
	for _, o := range old {
		if o.Type == c.kind && o.Status == c.status {
			out.LastTransitionTime = o.LastTransitionTime
		}
	}
	return out
}

// runtimeHandlers are told by name, so that the status stays the same while they do.
func runtimeHandlers(list []*runtimeapi.RuntimeHandler) []corev1.NodeRuntimeHandler {
	var out []corev1.NodeRuntimeHandler
	for _, h := range list {
		rro, users := h.GetFeatures().GetRecursiveReadOnlyMounts(), h.GetFeatures().GetUserNamespaces()
		out = append(out, corev1.NodeRuntimeHandler{Name: h.GetName(),
			Features: &corev1.NodeRuntimeHandlerFeatures{RecursiveReadOnlyMounts: &rro, UserNamespaces: &users}})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

func runtimeFeatures(f *runtimeapi.RuntimeFeatures) *corev1.NodeFeatures {
	if f == nil {
		return nil
	}
	policy := f.GetSupplementalGroupsPolicy()
	return &corev1.NodeFeatures{SupplementalGroupsPolicy: &policy}
}

func imageList(images []*runtimeapi.Image) []corev1.ContainerImage {
	var list []corev1.ContainerImage
	for _, i := range images {
		names := append(append([]string{}, i.GetRepoDigests()...), i.GetRepoTags()...)
		if len(names) > 5 {
			names = names[:5]
		}
		list = append(list, corev1.ContainerImage{Names: names, SizeBytes: int64(i.GetSize())})
	}
	sort.SliceStable(list, func(a, b int) bool {
		if list[a].SizeBytes != list[b].SizeBytes {
			return list[a].SizeBytes > list[b].SizeBytes
		}
		return fmt.Sprint(list[a].Names) < fmt.Sprint(list[b].Names)
	})
	if len(list) > maxImages {
		list = list[:maxImages]
	}
	return list
}

// labels are those that the node sets on itself.
func labels(name string, m Machine) map[string]string {
	return map[string]string{
		corev1.LabelHostname:      name,
		corev1.LabelOSStable:      "linux",
		corev1.LabelArchStable:    m.Arch,
		"beta.kubernetes.io/os":   "linux",
		"beta.kubernetes.io/arch": m.Arch,
	}
}
