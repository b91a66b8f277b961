//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestIsolation tries what keeps Pods apart from the machine and from each other, and how one chooses what runs them.
func TestIsolation(t *testing.T) {
	t.Parallel()
	t.Run("RuntimeClass", testRuntimeClass)
	for _, class := range []string{"", "isolation-runc"} {
		t.Run("HostUsers"+class, func(t *testing.T) { testHostUsers(t, class) })
	}
	t.Run("Seccomp", testSeccomp)
	t.Run("Sysctls", testSysctls)
	t.Run("Labels", testLabels)
}

// class makes a RuntimeClass that goes with the test.
func (s *space) class(name, spec string) {
	s.Helper()
	s.apply("apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: " + name + "}\n" + spec + "\n")
	s.Cleanup(func() { s.try("delete", "runtimeclass", name, "--wait=false") })
}

// ociState says whether the state folder of a running container has the file.
func (s *space) ociState(p *corev1.Pod, container, file string) bool {
	s.Helper()
	_, id, _ := strings.Cut(status(p, container).ContainerID, "://")
	path := filepath.Join("/proc", strconv.Itoa(s.c.host.HolderPID()), "root/run/carob-"+s.c.host.ID(), "oci", id, file)
	_, err := os.Stat(path)
	return err == nil
}

func testRuntimeClass(t *testing.T) {
	s := newSpace(t)
	s.class("isolation-plain", "handler: runc")
	s.class("isolation-full", "handler: crun\noverhead: {podFixed: {memory: 3Mi, cpu: 5m}}\nscheduling:\n  nodeSelector: {kubernetes.io/os: linux}\n"+
		"  tolerations: [{key: isolation, operator: Exists, effect: NoSchedule}]")
	s.class("isolation-nothing", "handler: nothing")
	wantMatch(t, "get runtimeclasses", s.kubectl("get", "runtimeclasses"), `^NAME +HANDLER +AGE$`, `^isolation-plain +runc +[0-9]+s$`)
	want(t, "describe", s.kubectl("describe", "runtimeclass", "isolation-full"), "Handler:", "crun", "Overhead:", "Tolerations:")
	want(t, "a changed handler", s.refused("patch", "runtimeclass", "isolation-plain", "-p", `{"handler":"crun"}`), "handler", "field is immutable")

	s.apply(simple("plain", forever, "runtimeClassName: isolation-plain") + simple("full", forever, "runtimeClassName: isolation-full") +
		simple("usual", forever))
	plain, full, usual := s.ready("plain"), s.ready("full"), s.ready("usual")
	if !s.ociState(plain, "main", "state.json") || s.ociState(plain, "main", "status") {
		t.Error("plain does not run by runc")
	}
	for _, p := range []*corev1.Pod{full, usual} {
		if !s.ociState(p, "main", "status") {
			t.Errorf("%s does not run by crun", p.Name)
		}
	}
	want(t, "a command by runc", s.sh("plain", "main", "echo there"), "there")
	if m := full.Spec.Overhead[corev1.ResourceMemory]; m.String() != "3Mi" || full.Spec.NodeSelector["kubernetes.io/os"] != "linux" {
		t.Errorf("%+v", full.Spec)
	}
	found := false
	for _, toleration := range full.Spec.Tolerations {
		found = found || toleration.Key == "isolation"
	}
	if !found {
		t.Errorf("tolerations: %v", full.Spec.Tolerations)
	}
	want(t, "describe pod", s.kubectl("describe", "pod", "full"), "Runtime Class Name:", "isolation-full")

	want(t, "an unknown class", s.applyRefused(simple("unknown", forever, "runtimeClassName: isolation-none")),
		`pods "unknown" is forbidden: pod rejected: RuntimeClass "isolation-none" not found`)
	want(t, "overhead of no class", s.applyRefused(simple("over", forever, "overhead: {cpu: 1m}")),
		"pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
	s.apply(simple("nothing", forever, "runtimeClassName: isolation-nothing"))
	s.event("nothing", "FailedCreatePodSandBox", `no OCI runtime for handler "nothing" is configured`)

	node, err := s.c.kube.CoreV1().Nodes().Get(context.Background(), nodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	handlers := map[string]bool{}
	for _, h := range node.Status.RuntimeHandlers {
		handlers[h.Name] = *h.Features.UserNamespaces && *h.Features.RecursiveReadOnlyMounts
	}
	if fmt.Sprint(handlers) != "map[:true crun:true runc:true]" || !*node.Status.Features.SupplementalGroupsPolicy {
		t.Errorf("handlers %v, features %v", handlers, node.Status.Features)
	}
}

// testHostUsers: root in the Pod is nobody on the machine, and the Pod notices nothing of it.
func testHostUsers(t *testing.T, class string) {
	s := newSpace(t)
	lines := []string{"hostUsers: false", "terminationGracePeriodSeconds: 1"}
	if class != "" {
		s.class(class, "handler: runc")
		lines = append(lines, "runtimeClassName: "+class)
	}
	s.kubectl("create", "configmap", "cm", "--from-literal=key=of the config map")
	s.kubectl("create", "secret", "generic", "secret", "--from-literal=key=hush")
	disk := t.TempDir()
	if err := os.WriteFile(filepath.Join(disk, "roots"), []byte("of root\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Chmod(disk, 0o755)
	volumes := "volumeMounts: [{name: empty, mountPath: /empty}, {name: memory, mountPath: /memory}, {name: cm, mountPath: /cm}, " +
		"{name: secret, mountPath: /secret}, {name: disk, mountPath: /disk}, {name: cm, mountPath: /one, subPath: key}]"
	pod := func(name string) string {
		return podOf(name, append(lines[:len(lines):len(lines)],
			"securityContext: {fsGroup: 2345}",
			"volumes: [{name: empty, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory}}, {name: cm, configMap: {name: cm}}, "+
				"{name: secret, secret: {secretName: secret, defaultMode: 0400}}, {name: disk, hostPath: {path: "+disk+"}}]",
			"initContainers:", container("init", "echo init >/empty/init", volumes),
			"containers:",
			container("main", "echo to the log >/dev/stdout; "+forever, volumes, "securityContext: {procMount: Unmasked}",
				"readinessProbe: {exec: {command: [sh, -c, 'id -u']}, periodSeconds: 1}"),
			container("user", forever, volumes, "securityContext: {runAsUser: 1000, allowPrivilegeEscalation: false}"))...)
	}
	s.apply(pod("one") + pod("two"))
	one, two := s.ready("one"), s.ready("two")
	first := func(p *corev1.Pod) string {
		t.Helper()
		f := strings.Fields(s.sh(p.Name, "main", "cat /proc/self/uid_map"))
		if len(f) != 3 || f[0] != "0" || f[1] == "0" || f[2] != "65536" {
			t.Fatalf("IDs of %s: %v", p.Name, f)
		}
		return f[1]
	}
	a, b := first(one), first(two)
	if a == b {
		t.Errorf("both Pods have the IDs from %s", a)
	}
	want(t, "the owner on the machine", readFile(t, fmt.Sprintf("/proc/%d/status", s.mainProcess(one, "main").pid)), "Uid:\t"+a+"\t"+a)
	out := s.sh("one", "main", "id -u; cat /empty/init /cm/key /secret/key /disk/roots /one; echo; ls -ldn /disk /disk/roots /empty | awk '{print $3, $4}'; "+
		"echo x >/memory/x && echo y >/empty/y && ls -n /empty/y | awk '{print $3, $4}'; echo '1.2.3.4 named' >>/etc/hosts && grep -c named /etc/hosts; "+
		"cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo; head -c 1 /proc/keys >/dev/null && echo unmasked")
	if want := fmt.Sprintf("0\ninit\nof the config maphushof root\nof the config map\n0 0\n0 0\n0 2345\n0 2345\n1\n%s\nunmasked\n", s.ns); out != want {
		t.Errorf("root of the Pod sees %q, want %q", out, want)
	}
	out = s.sh("one", "user", "id -u; echo mine >/empty/mine && cat /empty/mine; cat /disk/roots 2>&1; true")
	if want := "1000\nmine\ncat: can't open '/disk/roots': Permission denied\n"; out != want {
		t.Errorf("a user of the Pod sees %q, want %q", out, want)
	}
	want(t, "the log", s.kubectl("logs", "one", "-c", "main"), "to the log")

	// A container that starts again, and a Carob, have the same IDs.
	s.try("exec", "one", "-c", "main", "--", "kill", "1")
	s.waitPod("one", func(p *corev1.Pod) error {
		if c := status(p, "main"); c.RestartCount != 1 || c.State.Running == nil || !c.Ready {
			return fmt.Errorf("main: %+v", c)
		}
		return nil
	})
	if again := first(one); again != a {
		t.Errorf("the IDs went from %s to %s", a, again)
	}
	want(t, "users of the machine", s.applyRefused(simple("bad", forever, "hostUsers: false", "hostPID: true")), "spec.HostPID: Forbidden: when `hostUsers` is false")
	want(t, "all of /proc", s.applyRefused(podOf("bad", "containers:", container("main", forever, "securityContext: {procMount: Unmasked}"))),
		"`hostUsers` must be false to use `Unmasked`")
	s.apply(simple("proc", forever, "hostUsers: false", "volumes: [{name: v, hostPath: {path: /proc}}]")) // not mounted: nothing to map
	s.ready("proc")
	s.apply(podOf("mapped", "hostUsers: false", "terminationGracePeriodSeconds: 1", "volumes: [{name: v, hostPath: {path: /proc}}]", "containers:",
		container("main", forever, "volumeMounts: [{name: v, mountPath: /v}]")))
	s.event("mapped", "Failed", "map the owners of /proc: the kernel cannot map the owners of this file system's files")
}

func testSeccomp(t *testing.T) {
	s := newSpace(t)
	dir := filepath.Join(s.c.host.Root, "seccomp", "isolation")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	profile := `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}`
	if err := os.WriteFile(filepath.Join(dir, "no-mkdir.json"), []byte(profile), 0o644); err != nil {
		t.Fatal(err)
	}
	of := func(name, profile string) string {
		return podOf(name, "terminationGracePeriodSeconds: 1", "securityContext: {seccompProfile: {"+profile+"}}", "containers:", container("main", forever))
	}
	s.apply(of("local", "type: Localhost, localhostProfile: isolation/no-mkdir.json") + of("default", "type: RuntimeDefault") +
		of("none", "type: Unconfined") + of("absent", "type: Localhost, localhostProfile: isolation/none.json"))
	s.ready("local", "default", "none")
	for pod, want := range map[string]string{"local": "refused\nSeccomp:\t2\n", "default": "made\nSeccomp:\t2\n", "none": "made\nSeccomp:\t0\n"} {
		if out := s.sh(pod, "main", "mkdir /new 2>/dev/null && echo made || echo refused; grep Seccomp: /proc/self/status"); out != want {
			t.Errorf("%s: %q, want %q", pod, out, want)
		}
	}
	s.event("absent", "Failed", "isolation/none.json: no such file or directory")
	s.waitPod("absent", func(p *corev1.Pod) error {
		if w := status(p, "main").State.Waiting; w == nil || w.Reason != "CreateContainerError" {
			return fmt.Errorf("%+v", status(p, "main").State)
		}
		return nil
	})
}

func testSysctls(t *testing.T) {
	s := newSpace(t)
	of := func(name, sysctl string) string {
		return podOf(name, "terminationGracePeriodSeconds: 1", "securityContext: {sysctls: [{"+sysctl+"}]}", "containers:", container("main", forever))
	}
	s.apply(of("safe", "name: net.ipv4.ip_unprivileged_port_start, value: '1000'") + of("allowed", "name: kernel/msgmax, value: '5000'") +
		of("unsafe", "name: kernel.sem, value: '1 1 1 1'"))
	s.ready("safe", "allowed")
	if out := s.sh("safe", "main", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"); out != "1000\n" {
		t.Errorf("%q", out)
	}
	if out := s.sh("allowed", "main", "cat /proc/sys/kernel/msgmax"); out != "5000\n" {
		t.Errorf("%q", out)
	}
	s.waitPod("unsafe", func(p *corev1.Pod) error {
		if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "SysctlForbidden" || !strings.Contains(p.Status.Message, `forbidden sysctl: "kernel.sem" not allowlisted`) {
			return fmt.Errorf("%+v", p.Status)
		}
		return nil
	})
	wantMatch(t, "get pod", s.kubectl("get", "pod", "unsafe"), `^unsafe +0/1 +SysctlForbidden +0 `)
}

// testLabels: what this kernel cannot enforce is said, never left out in silence.
func testLabels(t *testing.T) {
	s := newSpace(t)
	if _, err := os.Stat("/sys/kernel/security/apparmor"); err == nil {
		t.Skip("this kernel has AppArmor")
	}
	s.apply(simple("profile", forever, "securityContext: {appArmorProfile: {type: Localhost, localhostProfile: p}}") +
		simple("default", forever, "securityContext: {appArmorProfile: {type: RuntimeDefault}}") +
		simple("label", forever, "securityContext: {seLinuxOptions: {level: 's0:c1,c2'}}"))
	s.ready("default")
	s.waitPod("profile", func(p *corev1.Pod) error {
		if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "AppArmor" {
			return fmt.Errorf("%+v", p.Status)
		}
		return nil
	})
	// Labels are refused where the kernel has them; where it has none they mean nothing, as in any cluster.
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		s.event("label", "FailedCreatePodSandBox", "selinux_options")
	} else {
		s.ready("label")
	}
}
