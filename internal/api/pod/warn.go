package pod

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Warnings tells the author of a new Pod what is allowed but hardly meant.
func Warnings(p *corev1.Pod) []string {
	var warnings []string
	if wrong := validation.IsDNS1123Label(p.Name); len(wrong) > 0 {
		warnings = append(warnings, fmt.Sprintf(
			"metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: %v", wrong))
	}
	return append(warnings, warn(nil, p.Annotations, &p.Spec)...)
}

// TemplateWarnings is Warnings for a template at path.
func TemplateWarnings(path *field.Path, t *corev1.PodTemplateSpec) []string {
	return warn(path, t.Annotations, &t.Spec)
}

// deprecatedLabels are labels of nodes that have newer names.
var deprecatedLabels = map[string]string{
	"beta.kubernetes.io/arch":                       `deprecated since v1.14; use "kubernetes.io/arch" instead`,
	"beta.kubernetes.io/os":                         `deprecated since v1.14; use "kubernetes.io/os" instead`,
	"failure-domain.beta.kubernetes.io/region":      `deprecated since v1.17; use "topology.kubernetes.io/region" instead`,
	"failure-domain.beta.kubernetes.io/zone":        `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`,
	"beta.kubernetes.io/instance-type":              `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`,
	"app.kubernetes.io/created-by":                  `deprecated since v1.9`,
	"scheduler.alpha.kubernetes.io/preferAvoidPods": `deprecated since v1.22; use Taints and Tolerations instead`,
	"node-role.kubernetes.io/master":                `use "node-role.kubernetes.io/control-plane" instead`,
}

// DeprecatedLabel tells why a label of nodes should no longer be used; empty if it may.
func DeprecatedLabel(key string) string { return deprecatedLabels[key] }

// deprecatedAnnotations have no effect any more.
var deprecatedAnnotations = map[string]string{
	"scheduler.alpha.kubernetes.io/critical-pod":  `non-functional in v1.16+; use the "priorityClassName" field instead`,
	"security.alpha.kubernetes.io/sysctls":        `non-functional in v1.11+; use the "sysctls" field instead`,
	"security.alpha.kubernetes.io/unsafe-sysctls": `non-functional in v1.11+; use the "sysctls" field instead`,
	corev1.SeccompPodAnnotationKey:                `non-functional in v1.27+; use the "seccompProfile" field instead`,
}

// warnings collects the texts under one path, which is nil for a Pod.
type warnings struct {
	path *field.Path
	list []string
}

func (w *warnings) add(at *field.Path, format string, args ...any) {
	w.list = append(w.list, fmt.Sprintf("%s: %s", at, fmt.Sprintf(format, args...)))
}

func warn(path *field.Path, annotations map[string]string, s *corev1.PodSpec) []string {
	w := &warnings{path: path}
	spec := path.Child("spec")
	for key := range s.NodeSelector {
		if why := deprecatedLabels[key]; why != "" {
			w.add(spec.Child("nodeSelector").Key(key), "%s", why)
		}
	}
	w.affinity(spec, s)
	for key := range annotations {
		if why := deprecatedAnnotations[key]; why != "" {
			w.add(path.Child("metadata", "annotations").Key(key), "%s", why)
		}
	}
	w.files(s.Volumes)
	w.duplicates(spec, s)
	w.fractions(spec.Child("overhead"), s.Overhead)
	eachContainer(s, spec, func(c *corev1.Container, at *field.Path) {
		if _, ok := annotations[corev1.SeccompContainerAnnotationKeyPrefix+c.Name]; ok {
			key := path.Child("metadata", "annotations").Key(corev1.SeccompContainerAnnotationKeyPrefix + c.Name)
			w.add(key, `non-functional in v1.27+; use the "seccompProfile" field instead`)
		}
		w.fractions(at.Child("resources", "limits"), c.Resources.Limits)
		w.fractions(at.Child("resources", "requests"), c.Resources.Requests)
		w.env(at.Child("env"), c.Env)
	})
	w.ports(spec, s)
	if s.DNSConfig != nil {
		for i, ip := range s.DNSConfig.Nameservers {
			w.list = append(w.list, validation.GetWarningsForIP(spec.Child("dnsConfig", "nameservers").Index(i), ip)...)
		}
	}
	for i, a := range s.HostAliases {
		w.list = append(w.list, validation.GetWarningsForIP(spec.Child("hostAliases").Index(i).Child("ip"), a.IP)...)
	}
	if g := s.TerminationGracePeriodSeconds; g != nil && *g < 0 {
		w.add(spec.Child("terminationGracePeriodSeconds"), "must be >= 0; negative values are invalid and will be treated as 1")
	}
	return w.list
}

// affinity warns of old labels and of selectors that match nothing.
func (w *warnings) affinity(spec *field.Path, s *corev1.PodSpec) {
	const none = "a null labelSelector results in matching no pod"
	for i, c := range s.TopologySpreadConstraints {
		at := spec.Child("topologySpreadConstraints").Index(i)
		if why := deprecatedLabels[c.TopologyKey]; why != "" {
			w.add(at.Child("topologyKey"), "%s is %s", c.TopologyKey, why)
		}
		if c.LabelSelector == nil {
			w.add(at.Child("labelSelector"), none)
		}
	}
	if s.Affinity == nil {
		return
	}
	const required, preferred = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
	node := func(at *field.Path, t corev1.NodeSelectorTerm, values bool) {
		for i, e := range t.MatchExpressions {
			at := at.Child("matchExpressions").Index(i)
			if why := deprecatedLabels[e.Key]; why != "" {
				w.add(at.Child("key"), "%s is %s", e.Key, why)
			}
			for j, v := range e.Values {
				for _, why := range validation.IsValidLabelValue(v) {
					if values {
						w.add(at.Child("values").Index(j), "%s is invalid, %s", v, why)
					}
				}
			}
		}
	}
	if n := s.Affinity.NodeAffinity; n != nil {
		at := spec.Child("affinity", "nodeAffinity")
		if n.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			for i, t := range n.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
				node(at.Child(required, "nodeSelectorTerms").Index(i), t, false)
			}
		}
		for i, t := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			node(at.Child(preferred).Index(i).Child("preference"), t.Preference, true)
		}
	}
	pods := func(at *field.Path, must []corev1.PodAffinityTerm, may []corev1.WeightedPodAffinityTerm) {
		for i, t := range must {
			if t.LabelSelector == nil {
				w.add(at.Child(required).Index(i).Child("labelSelector"), none)
			}
		}
		for i, t := range may {
			if t.PodAffinityTerm.LabelSelector == nil {
				w.add(at.Child(preferred).Index(i).Child("podAffinityTerm", "labelSelector"), none)
			}
		}
	}
	if a := s.Affinity.PodAffinity; a != nil {
		pods(spec.Child("affinity", "podAffinity"),
			a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a := s.Affinity.PodAntiAffinity; a != nil {
		pods(spec.Child("affinity", "podAntiAffinity"),
			a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

// duplicates warns of list entries that say the same again, which apply may drop.
func (w *warnings) duplicates(spec *field.Path, s *corev1.PodSpec) {
	ips := map[string]bool{}
	for i, a := range s.HostAliases {
		if ips[a.IP] {
			w.add(spec.Child("hostAliases").Index(i).Child("ip"), "duplicate ip %q", a.IP)
		}
		ips[a.IP] = true
	}
	names := map[string]bool{}
	for i, ref := range s.ImagePullSecrets {
		at := spec.Child("imagePullSecrets").Index(i).Child("name")
		if names[ref.Name] {
			w.add(at, "duplicate name %q", ref.Name)
		}
		if ref.Name == "" {
			w.add(at, "invalid empty name %q", ref.Name)
		}
		names[ref.Name] = true
	}
}

// fractions warns of parts of a byte.
func (w *warnings) fractions(at *field.Path, list corev1.ResourceList) {
	for _, name := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if q, ok := list[name]; ok && q.MilliValue()%1000 != 0 {
			w.add(at.Key(string(name)), "fractional byte value %q is invalid, must be an integer", q.String())
		}
	}
}

// env warns of a variable that hides an earlier one without using it.
func (w *warnings) env(at *field.Path, vars []corev1.EnvVar) {
	seen := map[string]bool{}
	for i, v := range vars {
		ref := "$(" + v.Name + ")"
		if seen[v.Name] && (v.ValueFrom != nil || v.Value == ref || !strings.Contains(v.Value, ref)) {
			w.add(at.Index(i), "hides previous definition of %q, which may be dropped when using apply", v.Name)
		}
		seen[v.Name] = true
	}
}

// ports warns of ports that are declared more than once or in a way that leaves open which one is meant.
func (w *warnings) ports(spec *field.Path, s *corev1.PodSpec) {
	type declared struct {
		at *field.Path
		corev1.ContainerPort
	}
	all, names := map[string][]declared{}, map[string]*field.Path{}
	eachContainer(s, spec, func(c *corev1.Container, path *field.Path) {
		for i, p := range c.Ports {
			at := path.Child("ports").Index(i)
			if p.HostIP != "" && p.HostPort == 0 {
				w.add(at, "hostIP set without hostPort: %+v", p)
			}
			key := fmt.Sprintf("%d/%s", p.ContainerPort, p.Protocol)
			for _, o := range all[key] {
				switch {
				case p.HostIP == o.HostIP && p.HostPort == o.HostPort:
					w.add(at, "duplicate port definition with %s", o.at)
				case p.HostPort == 0 || o.HostPort == 0:
					w.add(at, "overlapping port definition with %s", o.at)
				case p.HostPort == o.HostPort && (p.HostIP == "") != (o.HostIP == ""):
					w.add(at, "dangerously ambiguous port definition with %s", o.at)
				}
			}
			all[key] = append(all[key], declared{at, p})
			if p.Name == "" {
				continue
			}
			if o, ok := names[p.Name]; ok {
				w.add(at, "duplicate port name %q with %s, services and probes that select ports by name will use %s", p.Name, o, o)
			} else {
				names[p.Name] = at
			}
		}
	})
}
