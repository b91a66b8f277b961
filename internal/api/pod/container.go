package pod

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

// validateContainers checks all containers of a spec, and what they may not share: names and host ports. volumes are those to mount.
func validateContainers(path *field.Path, s *corev1.PodSpec, volumes volumeSet) field.ErrorList {
	grace := s.TerminationGracePeriodSeconds
	var errs field.ErrorList

	main := map[string]bool{}
	if len(s.Containers) == 0 {
		errs = append(errs, field.Required(path.Child("containers"), ""))
	}
	for i := range s.Containers {
		c, at := &s.Containers[i], path.Child("containers").Index(i)
		errs = append(errs, validateContainer(at, c, volumes, s.RestartPolicy)...)
		if main[c.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		}
		main[c.Name] = true
		errs = append(errs, validateHooksAndProbes(at, c, grace, s.OS)...)
		errs = append(errs, validateRestart(at, c)...)
	}
	errs = append(errs, hostPortConflicts(path.Child("containers"), s.Containers)...)

	init := map[string]bool{}
	for i := range s.InitContainers {
		c, at := &s.InitContainers[i], path.Child("initContainers").Index(i)
		errs = append(errs, validateContainer(at, c, volumes, s.RestartPolicy)...)
		if main[c.Name] || init[c.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		}
		if c.Name != "" {
			init[c.Name] = true
		}
		if wrong := validateRestart(at, c); c.RestartPolicy != nil || len(wrong) == 0 {
			errs = append(errs, wrong...)
		} else {
			errs = append(errs, wrong[0]) // Kubernetes looks no further
		}
		// Init containers run one by one, so only a container's own ports can clash.
		errs = append(errs, hostPortConflicts(path.Child("initContainers"), s.InitContainers[i:i+1])...)
		if isSidecar(c) {
			errs = append(errs, validateHooksAndProbes(at, c, grace, s.OS)...)
		} else {
			errs = append(errs, onlyForSidecars(at, c)...)
			for j, p := range c.ResizePolicy {
				if p.RestartPolicy == corev1.RestartContainer {
					errs = append(errs, field.Invalid(at.Child("resizePolicy").Index(j).Child("restartPolicy"), p.RestartPolicy,
						"must not be set to 'RestartContainer' for non-sidecar initContainers"))
				}
			}
		}
	}
	return append(errs, validateEphemeral(path.Child("ephemeralContainers"), s, volumes, main, init)...)
}

// validateContainer checks what holds for containers of every sort. policy is the Pod's.
func validateContainer(at *field.Path, c *corev1.Container, volumes volumeSet, policy corev1.RestartPolicy) field.ErrorList {
	var errs field.ErrorList
	if c.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	} else {
		errs = append(errs, rule.DNSLabel(at.Child("name"), c.Name)...)
	}
	if c.Image == "" {
		errs = append(errs, field.Required(at.Child("image"), ""))
	}
	errs = append(errs, rule.OneOf(at.Child("terminationMessagePolicy"), c.TerminationMessagePolicy,
		corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)...)
	errs = append(errs, validatePorts(at.Child("ports"), c.Ports)...)
	errs = append(errs, validateEnv(at.Child("env"), c.Env)...)
	errs = append(errs, validateEnvFrom(at.Child("envFrom"), c.EnvFrom)...)
	errs = append(errs, validateMounts(at.Child("volumeMounts"), c, volumes)...)
	errs = append(errs, validateDevices(at.Child("volumeDevices"), c, volumes)...)
	errs = append(errs, pullPolicy(at.Child("imagePullPolicy"), c.ImagePullPolicy)...)
	errs = append(errs, rule.Resources(at.Child("resources"), &c.Resources)...)
	errs = append(errs, validateResizePolicy(at.Child("resizePolicy"), c.ResizePolicy, policy)...)
	return append(errs, validateSecurity(at.Child("securityContext"), c.SecurityContext)...)
}

func validatePorts(path *field.Path, ports []corev1.ContainerPort) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
	for i, p := range ports {
		at := path.Index(i)
		if p.Name != "" {
			wrong := rule.Messages(at.Child("name"), p.Name, validation.IsValidPortName(p.Name))
			if len(wrong) == 0 && names[p.Name] {
				wrong = field.ErrorList{field.Duplicate(at.Child("name"), p.Name)}
			}
			errs = append(errs, wrong...)
			names[p.Name] = true
		}
		if p.ContainerPort == 0 {
			errs = append(errs, field.Required(at.Child("containerPort"), ""))
		} else {
			errs = append(errs, rule.Port(at.Child("containerPort"), p.ContainerPort)...)
		}
		if p.HostPort != 0 {
			errs = append(errs, rule.Port(at.Child("hostPort"), p.HostPort)...)
		}
		if p.HostIP != "" { // Kubernetes lets any text pass and fails on the node
			errs = append(errs, rule.IP(at.Child("hostIP"), p.HostIP)...)
		}
		errs = append(errs, rule.Protocol(at.Child("protocol"), p.Protocol)...)
	}
	return errs
}

func hostPortConflicts(path *field.Path, containers []corev1.Container) field.ErrorList {
	var errs field.ErrorList
	taken := map[string]bool{}
	for i, c := range containers {
		for j, p := range c.Ports {
			if p.HostPort == 0 {
				continue
			}
			key := fmt.Sprintf("%s/%s/%d", p.Protocol, p.HostIP, p.HostPort)
			if taken[key] {
				errs = append(errs, field.Duplicate(path.Index(i).Child("ports").Index(j).Child("hostPort"), key))
			}
			taken[key] = true
		}
	}
	return errs
}

// hostNetworkPorts: in the host's network a container port is the host port. A template may leave the host port out.
func hostNetworkPorts(path *field.Path, containers []corev1.Container, isPod bool) field.ErrorList {
	var errs field.ErrorList
	for i, c := range containers {
		for j, p := range c.Ports {
			if p.HostPort != p.ContainerPort && (isPod || p.HostPort != 0) {
				at := path.Index(i).Child("ports").Index(j).Child("hostPort")
				errs = append(errs, field.Invalid(at, p.HostPort, "must match `containerPort` when `hostNetwork` is true"))
			}
		}
	}
	return errs
}

// validateMounts reports wrong subPath, mountPropagation and recursiveReadOnly without the index of the mount, as Kubernetes does.
func validateMounts(path *field.Path, c *corev1.Container, volumes volumeSet) field.ErrorList {
	var errs field.ErrorList
	taken := map[string]bool{}
	for i, m := range c.VolumeMounts {
		at := path.Index(i)
		errs = append(errs, required(at.Child("name"), m.Name)...)
		if _, ok := volumes[m.Name]; !ok {
			errs = append(errs, field.NotFound(at.Child("name"), m.Name))
		}
		errs = append(errs, required(at.Child("mountPath"), m.MountPath)...)
		if taken[m.MountPath] {
			errs = append(errs, field.Invalid(at.Child("mountPath"), m.MountPath, "must be unique"))
		}
		taken[m.MountPath] = true
		for _, d := range c.VolumeDevices {
			if d.Name == m.Name {
				errs = append(errs, field.Invalid(at.Child("name"), m.Name, "must not already exist in volumeDevices"))
			}
			if d.DevicePath == m.MountPath {
				errs = append(errs, field.Invalid(at.Child("mountPath"), m.MountPath, "must not already exist as a path in volumeDevices"))
			}
		}
		if m.SubPath != "" {
			errs = append(errs, descending(path.Child("subPath"), m.SubPath)...)
		}
		if m.SubPathExpr != "" {
			if m.SubPath != "" {
				errs = append(errs, field.Invalid(at.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive"))
			}
			errs = append(errs, descending(path.Child("subPathExpr"), m.SubPathExpr)...)
		}
		errs = append(errs, validatePropagation(path.Child("mountPropagation"), m.MountPropagation, c)...)
		errs = append(errs, validateRecursiveReadOnly(path.Child("recursiveReadOnly"), m)...)
	}
	return errs
}

func validatePropagation(at *field.Path, mode *corev1.MountPropagationMode, c *corev1.Container) field.ErrorList {
	if mode == nil {
		return nil
	}
	errs := rule.Known(at, *mode, corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)
	privileged := c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
	if *mode == corev1.MountPropagationBidirectional && !privileged {
		errs = append(errs, field.Forbidden(at, "Bidirectional mount propagation is available only to privileged containers"))
	}
	return errs
}

func validateRecursiveReadOnly(at *field.Path, m corev1.VolumeMount) field.ErrorList {
	if m.RecursiveReadOnly == nil || *m.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
		return nil
	}
	errs := rule.Known(at, *m.RecursiveReadOnly,
		corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible)
	if len(errs) > 0 {
		return errs
	}
	if !m.ReadOnly {
		errs = append(errs, field.Forbidden(at, "may only be specified when readOnly is true"))
	}
	if m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
		errs = append(errs, field.Forbidden(at, "may only be specified when mountPropagation is None or not specified"))
	}
	return errs
}
