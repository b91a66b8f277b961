package criconf

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"

	"carob.dev/carob/internal/agent/downward"
	"carob.dev/carob/internal/agent/podstate"
	podrule "carob.dev/carob/internal/api/pod"
)

func readPod(t *testing.T, text string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestExpand(t *testing.T) {
	lookup := lookupIn(map[string]string{"A": "1", "EMPTY": "", "B": "$(A)"})
	for in, want := range map[string]string{
		"plain": "plain", "$(A)": "1", "x$(A)y$(EMPTY)z": "x1yz", "$$(A)": "$(A)", "$$$(A)": "$1", "$(NO)": "$(NO)", "$(B)": "$(A)",
		"$": "$", "a$": "a$", "$A": "$A", "$(A": "$(A", "$()": "$()", "$$": "$", "$(A)$(A)": "11", "": "",
	} {
		if got := Expand(in, lookup); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("a$(B)$$(C")
	f.Fuzz(func(t *testing.T, s string) {
		none := func(string) (string, bool) { return "", false }
		if got := Expand(s, none); !strings.Contains(s, "$$") && got != s {
			t.Errorf("%q without variables gives %q", s, got)
		}
	})
}

func envInput(t *testing.T) EnvInput {
	pod := readPod(t, `
metadata: {name: p, namespace: ns, uid: u}
spec:
  containers:
  - name: a
    resources: {limits: {memory: 64Mi}}
    envFrom:
    - {configMapRef: {name: cm}, prefix: P_}
    - {secretRef: {name: s}}
    - {secretRef: {name: none, optional: true}}
    env:
    - {name: LITERAL, value: "$(P_k) $(SVC_SERVICE_HOST) $(LATER) $$(P_k)"}
    - {name: LATER, value: x}
    - {name: secret, value: overridden}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: MEM, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    - {name: KEY, valueFrom: {configMapKeyRef: {name: cm, key: k}}}
    - {name: OPT, valueFrom: {secretKeyRef: {name: s, key: none, optional: true}}}
`)
	notFound := func(kind, name string) error {
		return apierrors.NewNotFound(schema.GroupResource{Resource: kind}, name)
	}
	return EnvInput{Pod: pod, Container: &pod.Spec.Containers[0],
		ConfigMap: func(name string) (*corev1.ConfigMap, error) {
			if name != "cm" {
				return nil, notFound("configmap", name)
			}
			return &corev1.ConfigMap{Data: map[string]string{"k": "v"}}, nil
		},
		Secret: func(name string) (*corev1.Secret, error) {
			if name != "s" {
				return nil, notFound("secret", name)
			}
			return &corev1.Secret{Data: map[string][]byte{"secret": []byte("hush")}}, nil
		},
		Services: map[string]string{"SVC_SERVICE_HOST": "10.43.0.9", "LATER": "hidden"},
		Facts:    downward.Facts{PodIPs: []string{"10.0.0.1"}},
	}
}

func TestEnv(t *testing.T) {
	got, err := Env(envInput(t))
	if err != nil {
		t.Fatal(err)
	}
	want := []Var{{"P_k", "v"}, {"secret", "overridden"}, {"LITERAL", "v 10.43.0.9 hidden $(P_k)"}, {"LATER", "x"}, {"IP", "10.0.0.1"}, {"MEM", "64"}, {"KEY", "v"},
		{"SVC_SERVICE_HOST", "10.43.0.9"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEnvErrors(t *testing.T) {
	optional := false
	for want, e := range map[string]corev1.EnvVarSource{
		`configmap "gone" not found`:                                      {ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "gone"}, Key: "k", Optional: &optional}},
		"couldn't find key no in ConfigMap ns/cm":                         {ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Key: "no"}},
		"couldn't find key no in Secret ns/s":                             {SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "no"}},
		"environment variable X: this source of a value is not supported": {},
	} {
		in := envInput(t)
		in.Container.Env = []corev1.EnvVar{{Name: "X", ValueFrom: &e}}
		if _, err := Env(in); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	in := envInput(t)
	in.ConfigMap = func(string) (*corev1.ConfigMap, error) { return nil, errors.New("no API") }
	if _, err := Env(in); err == nil {
		t.Error("an API that does not answer went unnoticed")
	}
}

func TestServiceEnv(t *testing.T) {
	service := func(ns, name, ip string, ports ...corev1.ServicePort) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: ports}}
	}
	all := []*corev1.Service{
		service("default", "kubernetes", "10.43.0.1", corev1.ServicePort{Name: "https", Port: 443, Protocol: corev1.ProtocolTCP}),
		service("ns", "my-db", "10.43.0.5", corev1.ServicePort{Port: 53, Protocol: corev1.ProtocolUDP}),
		service("ns", "headless", "None", corev1.ServicePort{Port: 1}),
		service("other", "x", "10.43.0.6", corev1.ServicePort{Port: 1}),
	}
	want := map[string]string{
		"KUBERNETES_SERVICE_HOST": "10.43.0.1", "KUBERNETES_SERVICE_PORT": "443", "KUBERNETES_SERVICE_PORT_HTTPS": "443", "KUBERNETES_PORT": "tcp://10.43.0.1:443",
		"KUBERNETES_PORT_443_TCP": "tcp://10.43.0.1:443", "KUBERNETES_PORT_443_TCP_PROTO": "tcp", "KUBERNETES_PORT_443_TCP_PORT": "443", "KUBERNETES_PORT_443_TCP_ADDR": "10.43.0.1",
	}
	if diff := cmp.Diff(want, ServiceEnv(all, "ns", false)); diff != "" {
		t.Error(diff)
	}
	for k, v := range map[string]string{"MY_DB_SERVICE_HOST": "10.43.0.5", "MY_DB_SERVICE_PORT": "53", "MY_DB_PORT": "udp://10.43.0.5:53", "MY_DB_PORT_53_UDP": "udp://10.43.0.5:53",
		"MY_DB_PORT_53_UDP_PROTO": "udp", "MY_DB_PORT_53_UDP_PORT": "53", "MY_DB_PORT_53_UDP_ADDR": "10.43.0.5"} {
		want[k] = v
	}
	if diff := cmp.Diff(want, ServiceEnv(all, "ns", true)); diff != "" {
		t.Error(diff)
	}
}

const fullPod = `
metadata: {name: p, namespace: ns, uid: u, labels: {app: x}}
spec:
  hostname: h
  subdomain: sub
  restartPolicy: Always
  terminationGracePeriodSeconds: 7
  securityContext: {runAsUser: 5, fsGroup: 9, supplementalGroups: [10], sysctls: [{name: net.core.somaxconn, value: "5"}], seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: a
    image: busybox
    command: [sh, -c, "echo $(X) $(Y)"]
    ports: [{containerPort: 80, hostPort: 8080, protocol: TCP}]
    tty: true
    terminationMessagePath: /dev/termination-log
    securityContext: {runAsGroup: 6, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {add: [NET_ADMIN], drop: [ALL]}}
    lifecycle: {stopSignal: SIGUSR1}
    resources: {requests: {cpu: 250m, memory: 32Mi}, limits: {cpu: 500m, memory: 64Mi}}
`

func golden(t *testing.T, want string, got *runtimeapi.ContainerConfig) {
	t.Helper()
	expected := &runtimeapi.ContainerConfig{}
	if err := protojson.Unmarshal([]byte(want), expected); err != nil {
		t.Fatal(err)
	}
	a, _ := protojson.Marshal(expected)
	b, _ := protojson.Marshal(got)
	if diff := cmp.Diff(strings.ReplaceAll(string(a), " ", ""), strings.ReplaceAll(string(b), " ", "")); diff != "" {
		t.Error(diff)
	}
}

func TestContainer(t *testing.T) {
	pod := readPod(t, fullPod)
	spec, _ := podstate.Find(pod, "a")
	got, err := Container(ContainerInput{Pod: pod, Spec: spec, Attempt: 2, ImageRef: "sha256:1", Env: []Var{{"X", "1"}}, Node: Node{Total: 1 << 30}})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, `{
"metadata":{"name":"a","attempt":2},"image":{"image":"sha256:1","userSpecifiedImage":"busybox"},"command":["sh","-c","echo 1 $(Y)"],
"envs":[{"key":"X","value":"MQ=="}],
"labels":{"io.kubernetes.container.name":"a","io.kubernetes.pod.name":"p","io.kubernetes.pod.namespace":"ns","io.kubernetes.pod.uid":"u"},
"annotations":{"io.kubernetes.container.restartCount":"2","io.kubernetes.container.terminationMessagePath":"/dev/termination-log","io.kubernetes.container.terminationMessagePolicy":"","io.kubernetes.pod.terminationGracePeriod":"7"},
"logPath":"a/2.log","tty":true,"stopSignal":"SIGNAL_SIGUSR1",
"linux":{"resources":{"cpuPeriod":"100000","cpuQuota":"50000","cpuShares":"256","memoryLimitInBytes":"67108864","oomScoreAdj":"969"},
"securityContext":{"capabilities":{"addCapabilities":["NET_ADMIN"],"dropCapabilities":["ALL"]},"namespaceOptions":{"pid":"CONTAINER"},
"runAsUser":{"value":"5"},"runAsGroup":{"value":"6"},"readonlyRootfs":true,"supplementalGroups":["9","10"],"noNewPrivs":true,
"maskedPaths":["/proc/asound","/proc/acpi","/proc/interrupts","/proc/kcore","/proc/keys","/proc/latency_stats","/proc/timer_list","/proc/timer_stats","/proc/sched_debug","/proc/scsi","/sys/firmware","/sys/devices/virtual/powercap"],
"readonlyPaths":["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"],"seccomp":{"profileType":"RuntimeDefault"}}}}`, got)
}

func TestSandbox(t *testing.T) {
	pod := readPod(t, fullPod)
	got := Sandbox(SandboxInput{Pod: pod, Attempt: 3, CgroupParent: Cgroups{Root: "carob"}.Parent(pod), LogDirectory: "/logs/" + LogDirectory(pod)})
	if got.GetMetadata().GetAttempt() != 3 || got.GetHostname() != "h" || got.GetLogDirectory() != "/logs/ns_p_u" || got.GetLinux().GetCgroupParent() != "/carob/kubepods/burstable/podu" {
		t.Errorf("%v", got)
	}
	if p := got.GetPortMappings(); len(p) != 1 || p[0].GetHostPort() != 8080 {
		t.Errorf("ports %v", p)
	}
	if got.GetLabels()["app"] != "x" || got.GetLinux().GetSysctls()["net.core.somaxconn"] != "5" {
		t.Errorf("%v", got)
	}
	pod.Spec.HostNetwork, pod.Spec.HostPID, pod.Spec.HostIPC = true, true, true
	got = Sandbox(SandboxInput{Pod: pod})
	ns := got.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if ns.GetNetwork() != runtimeapi.NamespaceMode_NODE || ns.GetPid() != runtimeapi.NamespaceMode_NODE || ns.GetIpc() != runtimeapi.NamespaceMode_NODE || got.GetHostname() != "" {
		t.Errorf("on the host: %v", got)
	}
}

func TestNonRoot(t *testing.T) {
	yes, zero, five := true, int64(0), int64(5)
	for _, tc := range []struct {
		user  *int64
		image ImageUser
		want  string
	}{
		{&zero, ImageUser{}, "container's runAsUser breaks non-root policy"},
		{&five, ImageUser{}, ""},
		{nil, ImageUser{UID: &zero}, "container has runAsNonRoot and image will run as root"},
		{nil, ImageUser{UID: &five}, ""},
		{nil, ImageUser{Name: "www"}, "container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root"},
		{nil, ImageUser{}, "container has runAsNonRoot and image will run as root"},
	} {
		pod := &corev1.Pod{}
		c := &corev1.Container{Name: "a", SecurityContext: &corev1.SecurityContext{RunAsNonRoot: &yes, RunAsUser: tc.user}}
		_, err := containerSecurity(pod, c, tc.image, "/seccomp")
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.want+" (pod: ")) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
}

func TestResourcesOfPods(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		l := corev1.ResourceList{}
		if cpu != "" {
			l[corev1.ResourceCPU] = resource.MustParse(cpu)
		}
		if memory != "" {
			l[corev1.ResourceMemory] = resource.MustParse(memory)
		}
		return l
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{
		{Name: "a", Resources: corev1.ResourceRequirements{Requests: list("1", "1Gi"), Limits: list("1", "1Gi")}},
		{Name: "b", Resources: corev1.ResourceRequirements{Requests: list("500m", ""), Limits: list("1", "")}},
	}}}
	r := PodResources(pod)
	if r.GetCpuShares() != 1536 || r.GetCpuQuota() != 200000 || r.GetMemoryLimitInBytes() != 0 {
		t.Errorf("%v", r)
	}
	if q := podrule.QOS(pod); q != corev1.PodQOSBurstable {
		t.Error(q)
	}
	if adj := OOMScoreAdj(pod, &pod.Spec.Containers[0], 4<<30); adj != 750 {
		t.Errorf("a quarter of the memory gives %d", adj)
	}
	whole := pod.DeepCopy()
	whole.Spec.Resources = &corev1.ResourceRequirements{Requests: list("2", "3Gi"), Limits: list("", "3Gi")}
	if adj := OOMScoreAdj(whole, &whole.Spec.Containers[0], 8<<30); adj != 750 { // 1 Gi of its own, and half of the 2 Gi that nobody asks for
		t.Errorf("with resources of the Pod: %d", adj)
	}
	if r := ContainerResources(whole, &whole.Spec.Containers[1], Node{Total: 8 << 30}); r.GetMemoryLimitInBytes() != 3<<30 {
		t.Errorf("a container without a limit has %d", r.GetMemoryLimitInBytes())
	}
	pod.Spec.Containers = pod.Spec.Containers[:1]
	if q := podrule.QOS(pod); q != corev1.PodQOSGuaranteed || OOMScoreAdj(pod, &pod.Spec.Containers[0], 4<<30) != -997 {
		t.Error(q)
	}
	if got := PodResources(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a"}}}}); got.GetCpuShares() != 2 || got.GetCpuQuota() != 0 {
		t.Errorf("%v", got)
	}
}

func TestDNS(t *testing.T) {
	host := ParseResolvConf("# c\nnameserver 192.0.2.53 ; x\nsearch old\nsearch example.com. b\noptions edns0 ndots:1\n")
	two := "2"
	for _, tc := range []struct {
		name   string
		spec   corev1.PodSpec
		server []string
		want   *runtimeapi.DNSConfig
	}{
		{"default", corev1.PodSpec{DNSPolicy: corev1.DNSDefault}, []string{"10.43.0.10"},
			&runtimeapi.DNSConfig{Servers: []string{"192.0.2.53"}, Searches: []string{"example.com", "b"}, Options: []string{"edns0", "ndots:1"}}},
		{"cluster", corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst}, []string{"10.43.0.10"},
			&runtimeapi.DNSConfig{Servers: []string{"10.43.0.10"}, Searches: []string{"ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.com", "b"}, Options: []string{"ndots:5"}}},
		{"cluster without DNS", corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst}, nil,
			&runtimeapi.DNSConfig{Servers: []string{"192.0.2.53"}, Searches: []string{"example.com", "b"}, Options: []string{"edns0", "ndots:1"}}},
		{"none", corev1.PodSpec{DNSPolicy: corev1.DNSNone, DNSConfig: &corev1.PodDNSConfig{Nameservers: []string{"1.1.1.1"}, Searches: []string{"x"},
			Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &two}, {Name: "edns0"}}}}, nil,
			&runtimeapi.DNSConfig{Servers: []string{"1.1.1.1"}, Searches: []string{"x"}, Options: []string{"ndots:2", "edns0"}}},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Spec: tc.spec}
		got, note := DNS(DNSInput{Pod: pod, Host: host, ClusterServers: tc.server, ClusterDomain: "cluster.local"})
		a, _ := protojson.Marshal(tc.want)
		b, _ := protojson.Marshal(got)
		if string(a) != string(b) || note != "" {
			t.Errorf("%s: %s, want %s (%s)", tc.name, b, a, note)
		}
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{DNSPolicy: corev1.DNSNone, DNSConfig: &corev1.PodDNSConfig{Nameservers: []string{"1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"}}}}
	if got, note := DNS(DNSInput{Pod: pod}); len(got.GetServers()) != 3 || !strings.HasPrefix(note, "Nameserver limits were exceeded") {
		t.Errorf("%v %q", got, note)
	}
}

func TestHosts(t *testing.T) {
	pod := readPod(t, "metadata: {name: p, namespace: ns}\nspec: {subdomain: s, hostAliases: [{ip: 1.2.3.4, hostnames: [a, b]}]}\n")
	got := string(Hosts(pod, []string{"10.0.0.1"}, nil, "cluster.local"))
	if !strings.HasSuffix(got, "10.0.0.1\tp.s.ns.svc.cluster.local\tp\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n") || !strings.HasPrefix(got, "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n") {
		t.Errorf("%q", got)
	}
	pod.Spec.HostNetwork = true
	if got := string(Hosts(pod, nil, []byte("127.0.0.1 me\n"), "")); !strings.HasPrefix(got, "# Kubernetes-managed hosts file (host network).\n127.0.0.1 me\n") {
		t.Errorf("%q", got)
	}
}

func TestPageSize(t *testing.T) {
	for n, want := range map[int64]string{2 << 20: "2MB", 1 << 30: "1GB", 64 << 10: "64KB"} {
		if got := PageSize(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
