package pod

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

// ValidateStatusUpdate checks an update through the status subresource.
func ValidateStatusUpdate(p, old *corev1.Pod) field.ErrorList {
	at := field.NewPath("status")
	errs := rule.MetaUpdate(&p.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, changedAnnotations(p.Annotations, old.Annotations)...)
	errs = append(errs, conditions(at.Child("conditions"), p.Status.Conditions)...)
	if name := p.Status.NominatedNodeName; name != "" && name != old.Status.NominatedNodeName {
		errs = append(errs, rule.Subdomain(at.Child("nominatedNodeName"), name)...)
		if old.Spec.NodeName != "" {
			errs = append(errs, field.Forbidden(at.Child("nominatedNodeName"), "may not be set on pods that are already bound to a node"))
		}
	}
	if p.Status.ObservedGeneration < 0 {
		errs = append(errs, field.Invalid(at.Child("observedGeneration"), p.Status.ObservedGeneration, "must be a non-negative integer"))
	}
	errs = append(errs, rule.Immutable(at.Child("qosClass"), p.Status.QOSClass, old.Status.QOSClass)...)
	errs = append(errs, transitions(at, p, old)...)
	errs = append(errs, podIPs(at, &p.Status, &old.Status)...)
	return append(errs, hostIPs(at, &p.Status, &old.Status)...)
}

func conditions(path *field.Path, conditions []corev1.PodCondition) field.ErrorList {
	var errs field.ErrorList
	for i, c := range conditions {
		if c.ObservedGeneration < 0 {
			errs = append(errs, field.Invalid(path.Index(i).Child("observedGeneration"), c.ObservedGeneration, "must be a non-negative integer"))
		}
		switch c.Type {
		case corev1.PodScheduled, corev1.PodReady, corev1.PodInitialized:
		default:
			errs = append(errs, rule.QualifiedName(path.Index(i).Child("Type"), string(c.Type))...)
		}
	}
	return errs
}

// transitions refuses that a container which has ended for good runs again.
func transitions(at *field.Path, p, old *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	if !MayRestartAll(&old.Spec) {
		may := func(list []corev1.Container, init bool) func(name string, exit int32) bool {
			return func(name string, exit int32) bool {
				for i := range list {
					if list[i].Name == name {
						// A Pod whose sandbox died gets a new one unless it is never restarted, and its init containers run again, also those that had succeeded.
						return init && old.Spec.RestartPolicy != corev1.RestartPolicyNever || Restarts(&old.Spec, &list[i], exit)
					}
				}
				return false
			}
		}
		errs = append(errs, revived(at.Child("containerStatuses"), p.Status.ContainerStatuses, old.Status.ContainerStatuses, may(old.Spec.Containers, false))...)
		errs = append(errs, revived(at.Child("initContainerStatuses"), p.Status.InitContainerStatuses, old.Status.InitContainerStatuses,
			may(old.Spec.InitContainers, true))...)
	}
	return append(errs, revived(at.Child("ephemeralContainerStatuses"), p.Status.EphemeralContainerStatuses, old.Status.EphemeralContainerStatuses,
		func(string, int32) bool { return false })...)
}

// revived lists the containers that were terminated and are not any more, although they may not run again.
func revived(path *field.Path, now, was []corev1.ContainerStatus, may func(name string, exit int32) bool) field.ErrorList {
	var errs field.ErrorList
	for i, old := range was {
		if old.State.Terminated == nil || may(old.Name, old.State.Terminated.ExitCode) {
			continue
		}
		for _, c := range now {
			if c.Name == old.Name && c.State.Terminated == nil {
				errs = append(errs, field.Forbidden(path.Index(i).Child("state"), "may not be transitioned to non-terminated state"))
			}
		}
	}
	return errs
}

func podIPs(status *field.Path, s, old *corev1.PodStatus) field.ErrorList {
	at := status.Child("podIPs")
	var ips, before []string
	for _, ip := range s.PodIPs {
		ips = append(ips, ip.IP)
	}
	for _, ip := range old.PodIPs {
		before = append(before, ip.IP)
	}
	errs := addresses(at, ips, before, s.PodIPs)
	switch {
	case (s.PodIP != "") != (len(ips) > 0):
		errs = append(errs, field.Invalid(at, s.PodIPs, "podIP and podIPs must either both be set or both be unset"))
	case len(ips) > 0 && s.PodIP != ips[0]:
		errs = append(errs, field.Invalid(at.Index(0).Child("ip"), ips[0], "must be equal to `podIP`"))
	}
	return errs
}

func hostIPs(status *field.Path, s, old *corev1.PodStatus) field.ErrorList {
	if len(s.HostIPs) == 0 {
		return nil
	}
	at := status.Child("hostIPs")
	var ips, before []string
	for _, ip := range s.HostIPs {
		ips = append(ips, ip.IP)
	}
	for _, ip := range old.HostIPs {
		before = append(before, ip.IP)
	}
	var errs field.ErrorList
	if s.HostIP != ips[0] {
		errs = append(errs, field.Invalid(at.Index(0).Child("ip"), ips[0], "must be equal to `hostIP`"))
	}
	return append(errs, addresses(at, ips, before, s.HostIPs)...)
}

// addresses wants valid addresses, at most one of each family. value is the whole list, as the error shows it.
func addresses(at *field.Path, ips, old []string, value any) field.ErrorList {
	var errs field.ErrorList
	families := map[bool]int{}
	for i, ip := range ips {
		errs = append(errs, rule.IP(at.Index(i), ip, old...)...)
		if a, err := netip.ParseAddr(ip); err == nil {
			families[a.Unmap().Is4()]++
		}
	}
	if len(ips) > 1 && (len(ips) > 2 || families[true] != 1 || families[false] != 1) {
		errs = append(errs, field.Invalid(at, value, "may specify no more than one IP for each IP family"))
	}
	return errs
}
