//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestPodNature tries what makes a Pod a Pod.
func TestPodNature(t *testing.T) {
	t.Parallel()
	t.Run("Equals", testEquals)
	t.Run("RestartAlone", testRestartAlone)
	for _, policy := range []string{"Always", "OnFailure", "Never"} {
		t.Run("KillPause"+policy, func(t *testing.T) { testKillPause(t, policy) })
	}
	t.Run("ShareProcessNamespace", testShareProcessNamespace)
	t.Run("HostNamespaces", testHostNamespaces)
}

// testEquals: one set of devices, one address, localhost, shared namespaces, and the tree of processes.
func testEquals(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("pair",
		"terminationGracePeriodSeconds: 1",
		"containers:",
		"- {name: nginx, image: nginx}",
		`- {name: debian, image: debian, command: ["sh", "-c", "sleep 999; true"]}`))
	p := s.ready("pair")

	devices := func(c string) string { return s.sh("pair", c, "ls /sys/class/net; cat /sys/class/net/*/address") }
	if a, b := devices("nginx"), devices("debian"); a != b || !strings.Contains(a, "eth0") || !strings.Contains(a, "lo") {
		t.Errorf("devices differ or lack eth0:\n%s\n%s", a, b)
	}
	for _, c := range []string{"nginx", "debian"} {
		if ip := strings.TrimSpace(s.sh("pair", c, "hostname -i")); ip != p.Status.PodIP {
			t.Errorf("container %s has the address %q, the Pod %q", c, ip, p.Status.PodIP)
		}
		if name := strings.TrimSpace(s.sh("pair", c, "hostname")); name != "pair" {
			t.Errorf("container %s is called %q", c, name)
		}
	}
	want(t, "the peer on localhost", s.sh("pair", "debian", "curl -sS http://localhost/"), "Welcome to nginx!")

	pause, nginx, debian := s.pause(p, "nginx"), s.mainProcess(p, "nginx"), s.mainProcess(p, "debian")
	np, nn, nd := s.namespaces(pause.pid), s.namespaces(nginx.pid), s.namespaces(debian.pid)
	for _, kind := range []string{"net", "ipc", "uts"} {
		if np[kind] != nn[kind] || np[kind] != nd[kind] {
			t.Errorf("namespace %s is not shared: pause %s, nginx %s, debian %s", kind, np[kind], nn[kind], nd[kind])
		}
	}
	for _, kind := range []string{"mnt", "pid"} {
		if np[kind] == nn[kind] || np[kind] == nd[kind] || nn[kind] == nd[kind] {
			t.Errorf("namespace %s is shared: pause %s, nginx %s, debian %s", kind, np[kind], nn[kind], nd[kind])
		}
	}

	out, err := exec.Command("pstree", "-A", "-T", strconv.Itoa(pause.parent)).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	wantMatch(t, "pstree", string(out), `^carob-shim-\+-nginx---[0-9]*\*?\[?nginx`, "[|`]-pause", "[|`]-sh---sleep")
	var children []string
	for _, proc := range allProcesses() {
		if proc.parent == pause.parent {
			children = append(children, proc.comm)
		}
	}
	slices.Sort(children)
	if fmt.Sprint(children) != "[nginx pause sh]" {
		t.Errorf("children of the shim: %v", children)
	}
}

// testRestartAlone: a container that dies restarts alone, in the same sandbox.
func testRestartAlone(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("pair", "containers:", container("a", forever), container("b", forever)))
	before := s.ready("pair")
	pause, b := s.pause(before, "a"), s.mainProcess(before, "b")
	syscall.Kill(s.mainProcess(before, "a").pid, syscall.SIGKILL)
	after := s.waitPod("pair", func(p *corev1.Pod) error {
		if c := status(p, "a"); c.RestartCount != 1 || c.State.Running == nil || !c.Ready {
			return fmt.Errorf("a: %+v", c)
		}
		return nil
	})
	last := status(after, "a").LastTerminationState.Terminated
	if last == nil || last.ExitCode != 137 || last.Reason != "Error" {
		t.Errorf("last state of a: %+v", last)
	}
	if after.Status.PodIP != before.Status.PodIP {
		t.Errorf("the address went from %s to %s", before.Status.PodIP, after.Status.PodIP)
	}
	if status(after, "b").RestartCount != 0 || s.mainProcess(after, "b").pid != b.pid || s.pause(after, "a").pid != pause.pid {
		t.Error("b or pause were restarted too")
	}
	wantMatch(t, "get pod", s.kubectl("get", "pod", "pair"), `^pair +2/2 +Running +1 \([0-9]+s ago\) +`)
}

// testKillPause: the Pod lives and dies with its pause process.
func testKillPause(t *testing.T, policy string) {
	s := newSpace(t)
	marker := "carob-e2e-" + strings.ToLower(policy)
	s.apply(podOf("pair", "restartPolicy: "+policy, "terminationGracePeriodSeconds: 1",
		"volumes: [{name: v, emptyDir: {}}]",
		"initContainers:", container("init", "echo init >> /v/log", "volumeMounts: [{name: v, mountPath: /v}]"),
		"containers:",
		container("a", "echo a >> /v/log; exec sleep 99999", "volumeMounts: [{name: v, mountPath: /v}]", "env: [{name: MARK, value: "+marker+"}]"),
		container("done", "echo done >> /v/log", "volumeMounts: [{name: v, mountPath: /v}]")))
	if policy == "Always" {
		s.kubectl("wait", "--for=jsonpath={.status.containerStatuses[0].state.running}", "pod/pair", "--timeout=30s")
	}
	before := s.waitPod("pair", func(p *corev1.Pod) error {
		if status(p, "a").State.Running == nil || (policy != "Always" && status(p, "done").State.Terminated == nil) {
			return fmt.Errorf("%+v", p.Status.ContainerStatuses)
		}
		return nil
	})
	old := s.mainProcess(before, "a")
	pause := s.pause(before, "a")
	syscall.Kill(pause.pid, syscall.SIGKILL)

	if policy == "Never" {
		p := s.phase("pair", corev1.PodFailed)
		if c := status(p, "a").State.Terminated; c == nil || c.ExitCode != 137 {
			t.Errorf("a: %+v", status(p, "a").State)
		}
		if c := status(p, "done").State.Terminated; c == nil || c.ExitCode != 0 || c.Reason != "Completed" {
			t.Errorf("done: %+v", status(p, "done").State)
		}
		s.noProcess(old.pid)
		return
	}
	after := s.waitPod("pair", func(p *corev1.Pod) error {
		if c := status(p, "a"); c.State.Running == nil || c.RestartCount != 1 {
			return fmt.Errorf("a: %+v", c)
		}
		return nil
	})
	s.noProcess(old.pid)
	if now := s.pause(after, "a"); now.pid == pause.pid {
		t.Error("pause was not replaced")
	}
	log := s.sh("pair", "a", "cat /v/log")
	if n := strings.Count(log, "init\n"); n != 2 {
		t.Errorf("the init container ran %d times, want 2:\n%s", n, log)
	}
	if n := strings.Count(log, "done\n"); policy == "OnFailure" && n != 1 {
		t.Errorf("a container that had succeeded ran %d times, want 1:\n%s", n, log)
	}
	s.event("pair", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
}

func (s *space) noProcess(pid int) {
	s.Helper()
	s.eventually(fmt.Sprintf("end of process %d", pid), func() error {
		if _, ok := allProcesses()[pid]; ok {
			return fmt.Errorf("still there")
		}
		return nil
	})
}

func testShareProcessNamespace(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("pair", "shareProcessNamespace: true", "containers:", container("a", "exec sleep 11111"), container("b", "exec sleep 22222")))
	p := s.ready("pair")
	ps := s.sh("pair", "a", "ps -o pid,args")
	wantMatch(t, "ps in a", ps, `^ +1 .*pause`, `sleep 11111`, `sleep 22222`)
	pause := s.namespaces(s.pause(p, "a").pid)
	for _, c := range []string{"a", "b"} {
		if s.namespaces(s.mainProcess(p, c).pid)["pid"] != pause["pid"] {
			t.Errorf("container %s has a PID namespace of its own", c)
		}
	}
	s.sh("pair", "a", "kill -9 $(pidof -s sleep; true) 2>/dev/null; true")
	s.kubectl("delete", "pod", "pair", "--timeout=30s", "--grace-period=1")
}

func testHostNamespaces(t *testing.T) {
	s := newSpace(t)
	s.apply(simple("net", forever, "hostNetwork: true"))
	s.apply(simple("pid", forever, "hostPID: true"))
	s.apply(simple("ipc", forever, "hostIPC: true"))
	s.ready("net", "pid", "ipc")
	self := s.namespaces(os.Getpid())
	hostNet := s.namespaces(s.c.host.HolderPID())["net"]
	for name, kind := range map[string]string{"net": "net", "pid": "pid", "ipc": "ipc"} {
		p := s.pod(name)
		got := s.namespaces(s.mainProcess(p, "main").pid)
		for _, k := range []string{"net", "pid", "ipc"} {
			hosts := self[k]
			if k == "net" {
				hosts = hostNet
			}
			if (got[k] == hosts) != (k == kind) {
				t.Errorf("pod %s: namespace %s is %s, the host's is %s", name, k, got[k], hosts)
			}
		}
		if ip := p.Status.PodIP; (ip == nodeIP) != (kind == "net") {
			t.Errorf("pod %s has the address %s", name, ip)
		}
	}
	if name := strings.TrimSpace(s.sh("net", "", "cat /proc/sys/kernel/hostname")); name == "net" {
		t.Error("a Pod in the host's network has a hostname of its own")
	}
	want(t, "ps with hostPID", s.sh("pid", "", "ps -o comm"), "carob")
}
