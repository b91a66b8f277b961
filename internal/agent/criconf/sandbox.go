package criconf

import (
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	kernel "k8s.io/component-helpers/node/util/sysctl"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels by which runtimes and tools know whose a sandbox or container is.
const (
	LabelPodName       = "io.kubernetes.pod.name"
	LabelPodNamespace  = "io.kubernetes.pod.namespace"
	LabelPodUID        = "io.kubernetes.pod.uid"
	LabelContainerName = "io.kubernetes.container.name"
)

// Annotations of containers.
const (
	annotationRestarts      = "io.kubernetes.container.restartCount"
	annotationMessagePath   = "io.kubernetes.container.terminationMessagePath"
	annotationMessagePolicy = "io.kubernetes.container.terminationMessagePolicy"
	annotationGrace         = "io.kubernetes.pod.terminationGracePeriod"
)

// SandboxInput decides a sandbox's configuration.
type SandboxInput struct {
	Pod          *corev1.Pod
	Attempt      uint32
	CgroupParent string
	LogDirectory string
	// ClusterDomain is the suffix of cluster names, for a Pod that has a subdomain.
	ClusterDomain string
	DNS           *runtimeapi.DNSConfig
	// Users are the IDs of a user namespace of the Pod's own; nil for the machine's.
	Users *runtimeapi.UserNamespace
}

// Sandbox is the configuration of the Pod's sandbox.
func Sandbox(in SandboxInput) *runtimeapi.PodSandboxConfig {
	pod := in.Pod
	labels := maps.Clone(pod.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[LabelPodName], labels[LabelPodNamespace], labels[LabelPodUID] = pod.Name, pod.Namespace, string(pod.UID)
	c := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: in.Attempt},
		LogDirectory: in.LogDirectory,
		DnsConfig:    in.DNS,
		Labels:       labels,
		Annotations:  maps.Clone(pod.Annotations),
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: in.CgroupParent, SecurityContext: sandboxSecurity(pod), Sysctls: sysctls(pod),
			Resources: PodResources(pod)},
	}
	c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = in.Users
	if !pod.Spec.HostNetwork {
		short, domain := Hostname(pod, in.ClusterDomain)
		c.Hostname = short
		if pod.Spec.SetHostnameAsFQDN != nil && *pod.Spec.SetHostnameAsFQDN && domain != "" {
			c.Hostname = short + "." + domain
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, ctr := range list {
			for _, p := range ctr.Ports {
				c.PortMappings = append(c.PortMappings, &runtimeapi.PortMapping{Protocol: protocol(p.Protocol), ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: p.HostIP})
			}
		}
	}
	return c
}

func protocol(p corev1.Protocol) runtimeapi.Protocol {
	switch p {
	case corev1.ProtocolUDP:
		return runtimeapi.Protocol_UDP
	case corev1.ProtocolSCTP:
		return runtimeapi.Protocol_SCTP
	}
	return runtimeapi.Protocol_TCP
}

// Hostname is the Pod's host name, at most 63 characters, and its domain, which is empty without a subdomain.
func Hostname(pod *corev1.Pod, clusterDomain string) (short, domain string) {
	short = pod.Name
	if pod.Spec.HostnameOverride != nil {
		return *pod.Spec.HostnameOverride, ""
	}
	if pod.Spec.Hostname != "" {
		short = pod.Spec.Hostname
	}
	if len(short) > 63 {
		short = strings.TrimRight(short[:63], "-.")
	}
	if pod.Spec.Subdomain != "" {
		if clusterDomain == "" {
			clusterDomain = "cluster.local"
		}
		domain = pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + clusterDomain
	}
	return short, domain
}

func sysctls(pod *corev1.Pod) map[string]string {
	if pod.Spec.SecurityContext == nil || len(pod.Spec.SecurityContext.Sysctls) == 0 {
		return nil
	}
	m := map[string]string{}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		m[kernel.NormalizeName(s.Name)] = s.Value
	}
	return m
}
