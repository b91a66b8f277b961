package criconf

import (
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	podrule "carob.dev/carob/internal/api/pod"
	"carob.dev/carob/internal/sys"
)

// Cgroups names the cgroups of Pods by their paths: <root>/kubepods/[besteffort|burstable/]pod<uid>/<container>. Where systemd makes them each
// is one of its slices, in which each part of the name stands again, and a container is a scope.
type Cgroups struct {
	// Root is the name of the top cgroup, such as carob.
	Root string
	// Systemd says that systemd makes them.
	Systemd bool
}

func (c Cgroups) path(parts ...string) string {
	parts = append([]string{c.Root, "kubepods"}, parts...)
	if !c.Systemd {
		return path.Join("/", path.Join(parts...))
	}
	all, above := "/", ""
	for _, p := range parts {
		if p == "" {
			continue
		}
		above += strings.ReplaceAll(p, "-", "_") // a dash would be a level
		all = path.Join(all, above+sys.SliceEnd)
		above += "-"
	}
	return all
}

// Tops are the cgroups below which everything is that runs in Pods, and what holds the Pods.
func (c Cgroups) Tops() []string {
	return []string{"/" + c.Root, "/" + strings.ReplaceAll(c.Root, "-", "_") + sys.SliceEnd}
}

// Level is the cgroup of all Pods of a class of service. Those of guaranteed service have none of their own: theirs is that of all Pods.
func (c Cgroups) Level(class corev1.PodQOSClass) string {
	return c.path(map[corev1.PodQOSClass]string{corev1.PodQOSBestEffort: "besteffort", corev1.PodQOSBurstable: "burstable"}[class])
}

// Of is the cgroup that a Pod has in a class of service.
func (c Cgroups) Of(class corev1.PodQOSClass, uid types.UID) string {
	level := map[corev1.PodQOSClass]string{corev1.PodQOSBestEffort: "besteffort", corev1.PodQOSBurstable: "burstable"}[class]
	return c.path(level, "pod"+string(uid))
}

// Pod is the Pod's cgroup.
func (c Cgroups) Pod(pod *corev1.Pod) string { return c.Of(podrule.QOS(pod), pod.UID) }

// Parent is the Pod's cgroup as the CRI's cgroup_parent.
func (c Cgroups) Parent(pod *corev1.Pod) string {
	if c.Systemd {
		return path.Base(c.Pod(pod))
	}
	return c.Pod(pod)
}

// Container is the cgroup of a container in that of its Pod, where carob's own runtime makes it.
func (c Cgroups) Container(pod, id string) string {
	if c.Systemd {
		return path.Join(pod, sys.ContainerScope(id))
	}
	return path.Join(pod, id)
}
