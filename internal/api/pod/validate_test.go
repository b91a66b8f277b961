package pod

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an " +
	"alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"

func TestValidate(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(p *corev1.Pod)
		want   []string
	}{
		{"as it is", nil, nil},
		{"no containers", func(p *corev1.Pod) { p.Spec.Containers = nil }, []string{"spec.containers: Required value"}},
		{"a name that is no label", func(p *corev1.Pod) { p.Spec.Containers[1].Name = "B" },
			[]string{`spec.containers[1].name: Invalid value: "B": ` + label}},
		{"no image", func(p *corev1.Pod) { p.Spec.Containers[1].Image = "" }, []string{"spec.containers[1].image: Required value"}},
		{"image with a space", func(p *corev1.Pod) { p.Spec.Containers[1].Image = " x" },
			[]string{`spec.containers[1].image: Invalid value: " x": must not have leading or trailing whitespace`}},
		{"names twice", func(p *corev1.Pod) { p.Spec.Containers[1].Name, p.Spec.InitContainers[0].Name = "a", "a" },
			[]string{`spec.containers[1].name: Duplicate value: "a"`, `spec.initContainers[0].name: Duplicate value: "a"`}},
		{"host port twice", func(p *corev1.Pod) {
			p.Spec.Containers[1].Ports = []corev1.ContainerPort{{ContainerPort: 81, HostPort: 8080}}
		}, []string{`spec.containers[1].ports[0].hostPort: Duplicate value: "TCP//8080"`}},
		{"port out of range", func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].ContainerPort = 70000 },
			[]string{"spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"}},
		{"another port in the host's network", func(p *corev1.Pod) { p.Spec.HostNetwork = true },
			[]string{"spec.containers[0].ports[0].hostPort: Invalid value: 8080: must match `containerPort` when `hostNetwork` is true"}},
		{"mount of nothing", func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts[0].Name = "gone" },
			[]string{`spec.containers[0].volumeMounts[0].name: Not found: "gone"`}},
		{"mount twice", func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts[1].MountPath = "/e" },
			[]string{`spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/e": must be unique`}},
		{"sub-path that climbs", func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts[1].SubPath = "../x" },
			[]string{`spec.containers[0].volumeMounts.subPath: Invalid value: "../x": must not contain '..'`}},
		{"bidirectional without privilege", func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts[0].MountPropagation = ptr.To(corev1.MountPropagationBidirectional)
		}, []string{"spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers"}},
		{"two sources", func(p *corev1.Pod) { p.Spec.Volumes[0].HostPath = &corev1.HostPathVolumeSource{Path: "/x"} },
			[]string{
				`spec.containers[0].volumeMounts[0].name: Not found: "e"`,
				"spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
			}},
		{"item outside the volume", func(p *corev1.Pod) { p.Spec.Volumes[2].Secret.Items[0].Path = "/abs" },
			[]string{`spec.volumes[2].secret.items[0].path: Invalid value: "/abs": must be a relative path`}},
		{"short token", func(p *corev1.Pod) {
			p.Spec.Volumes[3].Projected.Sources[0].ServiceAccountToken.ExpirationSeconds = ptr.To[int64](5)
		}, []string{"spec.volumes[3].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: " +
			"may not specify a duration less than 10 minutes"}},
		{"token without account", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "" },
			[]string{"spec.volumes[3].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set"}},
		{"env of two sources", func(p *corev1.Pod) { p.Spec.Containers[0].Env[1].Value = "x" },
			[]string{`spec.containers[0].env[1].valueFrom: Invalid value: "": may not be specified when ` + "`value` is not empty"}},
		{"env of a field that no env can have", func(p *corev1.Pod) {
			p.Spec.Containers[0].Env[1].ValueFrom.FieldRef.FieldPath = "metadata.labels"
		}, []string{`spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Unsupported value: "metadata.labels": supported values: ` +
			`"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", ` +
			`"status.hostIPs", "status.podIP", "status.podIPs"`}},
		{"request above limit", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}
		}, []string{`spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1`}},
		{"odd huge pages", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits["hugepages-2Mi"] = resource.MustParse("3Mi")
		}, []string{
			`spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi`,
			`spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi`,
		}},
		{"probe of nothing", func(p *corev1.Pod) { p.Spec.Containers[0].ReadinessProbe.HTTPGet = nil },
			[]string{"spec.containers[0].readinessProbe: Required value: must specify a handler type"}},
		{"probe of two things", func(p *corev1.Pod) {
			p.Spec.Containers[0].ReadinessProbe.TCPSocket = &corev1.TCPSocketAction{Port: intstr.FromInt32(1)}
		}, []string{"spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"}},
		{"sleep longer than grace", func(p *corev1.Pod) { p.Spec.Containers[0].Lifecycle.PreStop.Sleep.Seconds = 31 },
			[]string{"spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)"}},
		{"probe of an init container", func(p *corev1.Pod) { p.Spec.InitContainers[0].LivenessProbe = p.Spec.InitContainers[1].LivenessProbe },
			[]string{"spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"}},
		{"privilege without escalation", func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true), AllowPrivilegeEscalation: ptr.To(false)}
		}, []string{`spec.containers[0].securityContext: Invalid value: {"privileged":true,"allowPrivilegeEscalation":false}: ` +
			"cannot set `allowPrivilegeEscalation` to false and `privileged` to true"}},
		{"network sysctl of the host", func(p *corev1.Pod) {
			p.Spec.HostNetwork = true
			p.Spec.Containers[0].Ports = nil
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.core.somaxconn", Value: "1"}}}
		}, []string{`spec.securityContext.sysctls[0].name: Invalid value: "net.core.somaxconn": may not be specified when 'hostNetwork' is true`}},
		{"shared and host PIDs", func(p *corev1.Pod) { p.Spec.HostPID, p.Spec.ShareProcessNamespace = true, ptr.To(true) },
			[]string{"spec.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled"}},
		{"DNS of its own without servers", func(p *corev1.Pod) { p.Spec.DNSPolicy = corev1.DNSNone },
			[]string{"spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"}},
		{"toleration of everything but with a value", func(p *corev1.Pod) {
			p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists, Value: "x"}}
		}, []string{`spec.tolerations[0].operator: Invalid value: "x": value must be empty when ` + "`operator` is 'Exists'"}},
		{"affinity without topology", func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{}},
			}}
		}, []string{
			"spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: \"\": " +
				"name part must be non-empty",
			"spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: \"\": " +
				"name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character " +
				"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
			"spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty",
		}},
		{"spread twice the same", func(p *corev1.Pod) {
			c := corev1.TopologySpreadConstraint{MaxSkew: 1, TopologyKey: "zone", WhenUnsatisfiable: corev1.DoNotSchedule}
			p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{c, c}
		}, []string{`spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: "{zone, DoNotSchedule}"`}},
		{"a node before its gates", func(p *corev1.Pod) {
			p.Spec.NodeName, p.Spec.SchedulingGates = "n", []corev1.PodSchedulingGate{{Name: "g"}}
		}, []string{"spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"}},
		{"ephemeral on create", func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e", Image: "x"}}}
		}, []string{"spec.ephemeralContainers: Forbidden: cannot be set on create"}},
		{"iSCSI", func(p *corev1.Pod) {
			p.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{}}
		}, []string{"spec.volumes[0].iscsi: Forbidden: not supported by Carob: use a CSI driver, or log in to the target on the node and use a local volume"}},
		{"user namespace", func(p *corev1.Pod) {
			p.Spec.HostUsers = ptr.To(false)
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{ProcMount: ptr.To(corev1.UnmaskedProcMount)}
		}, nil},
		{"user namespace among the node's", func(p *corev1.Pod) { p.Spec.HostUsers, p.Spec.HostPID, p.Spec.HostIPC = ptr.To(false), true, true },
			[]string{"spec.HostIPC: Forbidden: when `hostUsers` is false", "spec.HostPID: Forbidden: when `hostUsers` is false"}},
		{"all of /proc as the node's root", func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{ProcMount: ptr.To(corev1.UnmaskedProcMount)}
		}, []string{"spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`"}},
		{"profiles of the node", func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{
				SeccompProfile:  &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: ptr.To("p.json")},
				AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: ptr.To("p")},
			}
		}, nil},
		{"AppArmor profiles that are none", func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost}}
			for i, a := range []corev1.AppArmorProfile{{}, {Type: corev1.AppArmorProfileTypeRuntimeDefault, LocalhostProfile: ptr.To("p")}} {
				p.Spec.Containers[i].SecurityContext = &corev1.SecurityContext{AppArmorProfile: &a}
			}
		}, []string{
			"spec.containers[0].securityContext.appArmorProfile.type: Required value: type is required when appArmorProfile is set",
			"spec.containers[1].securityContext.appArmorProfile.localhostProfile: Invalid value: \"p\": can only be set when AppArmor type is Localhost",
			"spec.securityContext.appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost",
		}},
		{"own restart policy", func(p *corev1.Pod) { p.Spec.Containers[0].RestartPolicy = ptr.To(corev1.ContainerRestartPolicyNever) }, nil},
		{"restart rules without a policy", func(p *corev1.Pod) {
			p.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: "Dance"}, {Action: corev1.ContainerRestartRuleActionRestart,
				ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: "Like", Values: make([]int32, 256)}}}
		}, []string{"spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
			`spec.containers[0].restartPolicyRules[0].action: Unsupported value: "Dance": supported values: "Restart", "RestartAllContainers"`,
			"spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified",
			`spec.containers[0].restartPolicyRules[1].exitCodes.operator: Unsupported value: "Like": supported values: "In", "NotIn"`,
			"spec.containers[0].restartPolicyRules[1].exitCodes.values: Too many: 256: must have at most 255 items"}},
		{"stop signal without an OS", func(p *corev1.Pod) {
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{StopSignal: ptr.To(corev1.SIGUSR1)}
		},
			[]string{"spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`"}},
		{"stop signal", func(p *corev1.Pod) {
			p.Spec.OS = &corev1.PodOS{Name: corev1.Linux}
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{StopSignal: ptr.To(corev1.SIGUSR1)}
		}, nil},
		{"host name", func(p *corev1.Pod) { p.Spec.HostnameOverride = ptr.To("a.b") }, nil},
		{"wrong host name", func(p *corev1.Pod) {
			p.Spec.HostnameOverride, p.Spec.SetHostnameAsFQDN = ptr.To(strings.Repeat("a", 65)), ptr.To(true)
		}, []string{"spec.hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true",
			`spec.hostnameOverride: Too long: may not be more than 64 bytes`}},
		{"variable from a file", func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "env"})
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{FileKeyRef: &corev1.FileKeySelector{Key: "A", VolumeName: "env", Path: "x"}}}}
		}, nil},
		{"variable from nowhere", func(p *corev1.Pod) {
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{FileKeyRef: &corev1.FileKeySelector{Key: "=", VolumeName: "none", Path: "../x"}}}}
		}, []string{`spec.containers[0].env[0].valueFrom.fileKeyRef.key: Invalid value: "=": a valid environment variable name must consist only of printable ASCII characters other than '='`,
			`spec.containers[0].env[0].valueFrom.fileKeyRef.path: Invalid value: "../x": must not contain '..'`,
			`spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Not found: "none"`}},
		{"an init container's own restart policy", func(p *corev1.Pod) {
			p.Spec.InitContainers[0].RestartPolicy = ptr.To(corev1.ContainerRestartPolicy("Often"))
		}, []string{`spec.initContainers[0].restartPolicy: Unsupported value: "Often": supported values: "Always", "Never", "OnFailure"`}},
		{"deletion cost", func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.PodDeletionCost: "+1"} },
			[]string{`metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "+1": must be a 32bit integer`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := lines(Validate(created(t, tc.change)))
			if tc.want == nil {
				tc.want = []string{}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestValidateTemplate(t *testing.T) {
	p := read(t, valid)
	template := &corev1.PodTemplateSpec{ObjectMeta: p.ObjectMeta, Spec: p.Spec}
	DefaultTemplate(template)
	at := field.NewPath("template")
	if got := lines(ValidateTemplate(at, template)); len(got) > 0 {
		t.Errorf("a valid template: %v", got)
	}
	template.Labels["a b"] = "x"
	template.Spec.EphemeralContainers = []corev1.EphemeralContainer{{}}
	found := strings.Join(lines(ValidateTemplate(at, template)), "\n")
	for _, want := range []string{
		"template.labels: Invalid value: \"a b\"",
		"template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template",
	} {
		if !strings.Contains(found, want) {
			t.Errorf("%q is missing in:\n%s", want, found)
		}
	}
}
