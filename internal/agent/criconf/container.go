package criconf

import (
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/agent/podstate"
)

// ContainerInput decides a container's configuration.
type ContainerInput struct {
	Pod     *corev1.Pod
	Spec    podstate.Spec
	Attempt int32
	// ImageRef is the image on the node; ImageUser the user it names.
	ImageRef  string
	ImageUser ImageUser
	Env       []Var
	Mounts    []*runtimeapi.Mount
	Devices   []*runtimeapi.Device
	// Groups are those of the Pod's volumes, which its containers are members of too.
	Groups []int64
	// VolumeImages are the IDs of the images that the container mounts, by volume.
	VolumeImages map[string]string
	// TargetID is the running container whose process namespace an ephemeral one joins; empty for none.
	TargetID string
	// Users are the IDs of the Pod's own user namespace; nil if it has the machine's.
	Users *runtimeapi.UserNamespace
	// SeccompDir is the folder of the node's seccomp profiles.
	SeccompDir string
	Node       Node
}

// Container is the configuration of one instance of a container.
func Container(in ContainerInput) (*runtimeapi.ContainerConfig, error) {
	c, pod := in.Spec.Container, in.Pod
	security, err := containerSecurity(pod, c, in.ImageUser, in.SeccompDir)
	if err != nil {
		return nil, err
	}
	for _, g := range in.Groups {
		if !slices.Contains(security.SupplementalGroups, g) {
			security.SupplementalGroups = append(security.SupplementalGroups, g)
		}
	}
	if in.TargetID != "" {
		security.NamespaceOptions.Pid = runtimeapi.NamespaceMode_TARGET
		security.NamespaceOptions.TargetId = in.TargetID
	}
	if in.Users != nil {
		security.NamespaceOptions.UsernsOptions = in.Users
		for _, m := range in.Mounts {
			m.UidMappings, m.GidMappings = in.Users.GetUids(), in.Users.GetGids()
		}
	}
	values := map[string]string{}
	envs := make([]*runtimeapi.KeyValue, 0, len(in.Env))
	for _, e := range in.Env {
		values[e.Name] = e.Value
		envs = append(envs, &runtimeapi.KeyValue{Key: e.Name, Value: []byte(e.Value)})
	}
	config := &runtimeapi.ContainerConfig{
		Metadata:   &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: uint32(in.Attempt)},
		Image:      &runtimeapi.ImageSpec{Image: in.ImageRef, UserSpecifiedImage: c.Image},
		Command:    expandAll(c.Command, values),
		Args:       expandAll(c.Args, values),
		WorkingDir: c.WorkingDir,
		Envs:       envs,
		Mounts:     in.Mounts,
		Devices:    in.Devices,
		Labels: map[string]string{LabelPodName: pod.Name, LabelPodNamespace: pod.Namespace, LabelPodUID: string(pod.UID),
			LabelContainerName: c.Name},
		Annotations: map[string]string{annotationRestarts: strconv.Itoa(int(in.Attempt)), annotationMessagePath: c.TerminationMessagePath,
			annotationMessagePolicy: string(c.TerminationMessagePolicy)},
		LogPath:   LogPath(c.Name, in.Attempt),
		Stdin:     c.Stdin,
		StdinOnce: c.StdinOnce,
		Tty:       c.TTY,
		Linux:     &runtimeapi.LinuxContainerConfig{Resources: ContainerResources(pod, c, in.Node), SecurityContext: security},
	}
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		config.Annotations[annotationGrace] = strconv.FormatInt(*s, 10)
	}
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		n, ok := runtimeapi.Signal_value["SIGNAL_"+string(*c.Lifecycle.StopSignal)]
		if !ok {
			return nil, fmt.Errorf("unsupported stop signal %q", *c.Lifecycle.StopSignal)
		}
		config.StopSignal = runtimeapi.Signal(n)
	}
	return config, nil
}

func expandAll(list []string, values map[string]string) []string {
	var out []string
	for _, s := range list {
		out = append(out, Expand(s, lookupIn(values)))
	}
	return out
}

// Mount is the runtime's view of a volumeMount whose volume is at hostPath.
func Mount(m corev1.VolumeMount, hostPath string, readOnly bool) *runtimeapi.Mount {
	out := &runtimeapi.Mount{ContainerPath: m.MountPath, HostPath: hostPath, Readonly: m.ReadOnly || readOnly}
	if len(m.MountPath) > 0 && m.MountPath[0] != '/' {
		out.ContainerPath = "/" + m.MountPath
	}
	if p := m.MountPropagation; p != nil {
		switch *p {
		case corev1.MountPropagationHostToContainer:
			out.Propagation = runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
		case corev1.MountPropagationBidirectional:
			out.Propagation = runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
		}
	}
	if r := m.RecursiveReadOnly; r != nil && m.ReadOnly {
		switch *r {
		case corev1.RecursiveReadOnlyEnabled:
			out.RecursiveReadOnly = true
		case corev1.RecursiveReadOnlyIfPossible:
			out.RecursiveReadOnly = out.Propagation == runtimeapi.MountPropagation_PROPAGATION_PRIVATE
		}
	}
	return out
}

// ImageMount is the runtime's view of a volumeMount whose volume is the image with the ID ref, which the Pod calls name.
func ImageMount(m corev1.VolumeMount, ref, name string) *runtimeapi.Mount {
	out := Mount(m, "", true)
	out.Image, out.ImageSubPath = &runtimeapi.ImageSpec{Image: ref, UserSpecifiedImage: name}, m.SubPath
	return out
}

// LogDirectory is the Pod's log folder below the folder of all Pods' logs: <namespace>_<name>_<uid>.
func LogDirectory(pod *corev1.Pod) string {
	return pod.Namespace + "_" + pod.Name + "_" + string(pod.UID)
}

// LogPath is a container's log below the Pod's log folder: <container>/<attempt>.log.
func LogPath(container string, attempt int32) string {
	return container + "/" + strconv.Itoa(int(attempt)) + ".log"
}
