package pod

import corev1 "k8s.io/api/core/v1"

// anyIP stands for all addresses, in a host port.
const anyIP = "0.0.0.0"

// HostPorts are the ports of the node that a Pod needs while it runs, protocol and address always given.
func HostPorts(p *corev1.Pod) []corev1.ContainerPort {
	var out []corev1.ContainerPort
	collect := func(c *corev1.Container) {
		for _, port := range c.Ports {
			if port.HostPort == 0 {
				continue
			}
			if port.Protocol == "" {
				port.Protocol = corev1.ProtocolTCP
			}
			if port.HostIP == "" || port.HostIP == "::" {
				port.HostIP = anyIP
			}
			out = append(out, port)
		}
	}
	for i := range p.Spec.InitContainers {
		if policy := p.Spec.InitContainers[i].RestartPolicy; policy != nil && *policy == corev1.ContainerRestartPolicyAlways {
			collect(&p.Spec.InitContainers[i])
		}
	}
	for i := range p.Spec.Containers {
		collect(&p.Spec.Containers[i])
	}
	return out
}

// HostPortsTaken says whether one of wanted, as HostPorts gives them, clashes with one of the Pods': same port and protocol, and the same
// address or one of them on all addresses.
func HostPortsTaken(wanted []corev1.ContainerPort, pods []*corev1.Pod) bool {
	if len(wanted) == 0 {
		return false
	}
	for _, p := range pods {
		for _, have := range HostPorts(p) {
			for _, want := range wanted {
				if have.HostPort == want.HostPort && have.Protocol == want.Protocol &&
					(have.HostIP == want.HostIP || have.HostIP == anyIP || want.HostIP == anyIP) {
					return true
				}
			}
		}
	}
	return false
}
