//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestTraps tries what goes wrong elsewhere, each under the name of its trap. Those that need no kernel are scenarios of the agent's core:
// internal/agent/podstate/testdata/trap_*.
func TestTraps(t *testing.T) {
	t.Parallel()
	t.Run("HangingPreStopDoublesTheGrace", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("web", "terminationGracePeriodSeconds: 6", "containers:", container("main", "trap '' TERM; sleep 100000", `lifecycle: {preStop: {exec: {command: ["sleep", "1000"]}}}`)))
		s.ready("web")
		began := time.Now()
		s.kubectl("delete", "pod", "web")
		// The hook has the grace, and what is left of it, or 2 s, is for the container.
		if took := time.Since(began); took < 6*time.Second || took > 11*time.Second {
			t.Errorf("it took %v", took)
		}
	})
	t.Run("ProbeGraceIsIgnored", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("web", "terminationGracePeriodSeconds: 300", "containers:", container("main", "trap '' TERM; sleep 100000",
			`livenessProbe: {exec: {command: ["false"]}, periodSeconds: 1, failureThreshold: 1, terminationGracePeriodSeconds: 1}`)))
		s.waitPod("web", func(p *corev1.Pod) error {
			if c := status(p, "main"); c.RestartCount == 0 {
				return fmt.Errorf("%+v", c)
			}
			return nil
		})
		s.kubectl("delete", "pod", "web", "--grace-period=1")
	})
	t.Run("ExecProbeOutlivesItsTimeout", func(t *testing.T) {
		s := newSpace(t)
		s.apply(simple("web", forever, "  readinessProbe: {exec: {command: [sh, -c, \"sleep 4321 & sleep 4321\"]}, periodSeconds: 1, timeoutSeconds: 1}"))
		s.event("web", "Unhealthy", `Readiness probe failed: command timed out: "sh -c sleep 4321 & sleep 4321" timed out after 1s`)
		time.Sleep(4 * time.Second) // several probes more
		out := s.sh("web", "", "ps")
		n := 0
		for line := range strings.Lines(out) {
			if strings.Contains(line, "sleep 4321") {
				n++
			}
		}
		if n > 6 { // those of the probe under way, and of one that is being killed, each with its shell
			t.Errorf("%d processes of probes:\n%s", n, out)
		}
	})
	t.Run("SubPathOfAnEditedConfigMap", func(t *testing.T) {
		s := newSpace(t)
		s.kubectl("create", "configmap", "cm", "--from-literal=a=one")
		s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "volumes: [{name: cm, configMap: {name: cm}}]", "containers:",
			container("main", forever, mounts("cm:/etc/one:subPath: a")), container("whole", forever, mounts("cm:/cm"))))
		s.ready("web")
		s.kubectl("patch", "configmap", "cm", "-p", `{"data":{"a":"two"}}`)
		s.eventually("the change in the whole volume", func() error {
			if out, stderr, err := s.try("exec", "web", "-c", "whole", "--", "cat", "/cm/a"); err != nil || out != "two" {
				return fmt.Errorf("%q %s", out, stderr)
			}
			return nil
		})
		if out := s.sh("web", "main", "cat /etc/one"); out != "one" {
			t.Errorf("a running container's subPath changed: %q", out)
		}
		s.try("exec", "web", "-c", "main", "--", "kill", "1")
		s.waitPod("web", func(p *corev1.Pod) error {
			if c := status(p, "main"); c.RestartCount == 0 || !c.Ready {
				return fmt.Errorf("%+v", c)
			}
			return nil
		})
		if out := s.sh("web", "main", "cat /etc/one"); out != "two" {
			t.Errorf("after the restart: %q", out)
		}
	})
	t.Run("FailingPostStartWithoutAReason", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("web", "restartPolicy: Never", "terminationGracePeriodSeconds: 1", "containers:",
			container("main", forever, `lifecycle: {postStart: {exec: {command: ["sh", "-c", "echo because; exit 4"]}}}`)))
		s.event("web", "FailedPostStartHook", "because")
		p := s.waitPod("web", func(p *corev1.Pod) error {
			if status(p, "main").State.Terminated == nil {
				return fmt.Errorf("%+v", status(p, "main"))
			}
			return nil
		})
		if m := status(p, "main").State.Terminated.Message; !strings.Contains(m, "PostStartHookError") || !strings.Contains(m, "because") {
			t.Errorf("message %q", m)
		}
	})
	t.Run("NoFolderOnAReadOnlyRoot", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "volumes: [{name: v, emptyDir: {}}]", "containers:",
			container("main", forever, "workingDir: /no/such/folder", "securityContext: {readOnlyRootFilesystem: true}", mounts("v:/nor/this/one"))))
		s.ready("web")
		if out := s.sh("web", "", "pwd; touch /nor/this/one/x && echo written; touch /no/such/folder/x 2>&1 || true"); !strings.HasPrefix(out, "/no/such/folder\nwritten\n") || !strings.Contains(out, "Read-only") {
			t.Errorf("%q", out)
		}
	})
	t.Run("OutOfMemoryOfAChild", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("web", "restartPolicy: Never", "terminationGracePeriodSeconds: 1", "containers:",
			`- {name: main, image: debian, command: ["sh", "-c", "tail /dev/zero; echo child ended with $?; trap 'exit 7' TERM; sleep 100000 & wait"], resources: {limits: {memory: 24Mi}}}`))
		s.eventually("the child is killed", func() error {
			p := s.pod("web")
			c := status(p, "main")
			if c == nil {
				return errors.New("no status")
			}
			if e := c.State.Terminated; e != nil { // cgroup v2 takes the whole container
				if e.Reason != "OOMKilled" {
					return fmt.Errorf("%+v", e)
				}
				return nil
			}
			if out, _, err := s.try("logs", "web"); err != nil || !strings.Contains(out, "child ended with 137") {
				return fmt.Errorf("%q %v", out, err)
			}
			if out := s.kubectl("get", "events", "--field-selector", "reason=OOMKilling"); !strings.Contains(out, "killed a process of container main") {
				return fmt.Errorf("no event: %s", out)
			}
			return nil
		})
	})
	t.Run("HostPortsThatOnlyLookTheSame", func(t *testing.T) {
		s := newSpace(t)
		for name, more := range map[string]string{"tcp": "", "udp": ", protocol: UDP"} {
			s.apply(podOf(name, "terminationGracePeriodSeconds: 1", "containers:", container("main", forever, "ports: [{containerPort: 80, hostPort: 18090"+more+"}]")))
		}
		for name, ip := range map[string]string{"one": "127.0.0.1", "two": nodeIP} {
			s.apply(podOf(name, "terminationGracePeriodSeconds: 1", "containers:", container("main", forever, "ports: [{containerPort: 80, hostPort: 18091, hostIP: "+ip+"}]")))
		}
		s.ready("tcp", "udp", "one", "two")
	})
	t.Run("LimitsThatAreNotSet", func(t *testing.T) {
		s := newSpace(t)
		s.apply(simple("web", "env; "+forever, "  env: [{name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}, {name: MEM, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}]"))
		p := s.ready("web")
		node := s.kubectl("get", "node", p.Spec.NodeName, "-o", "jsonpath={.status.allocatable.cpu}")
		want(t, "the environment", s.kubectl("logs", "web"), "CPU="+strings.TrimSpace(node)+"\n", "MEM=")
	})
}

// TestResize tries changes of resources while Pods run.
func TestResize(t *testing.T) {
	t.Parallel()
	const amounts = "resources: {requests: {cpu: 20m, memory: 20Mi}, limits: {cpu: 50m, memory: 40Mi}}"
	resize := func(s *space, spec string) {
		t.Helper()
		s.kubectl("patch", "pod", "web", "--subresource", "resize", "--type", "strategic", "-p", `{"spec":`+spec+`}`)
	}
	settled := func(s *space, container, memory string) *corev1.Pod {
		t.Helper()
		return s.waitPod("web", func(p *corev1.Pod) error {
			if p.Status.ObservedGeneration != p.Generation {
				return errors.New("the agent has not seen it")
			}
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodResizePending || c.Type == corev1.PodResizeInProgress {
					return fmt.Errorf("%+v", c)
				}
			}
			if c := status(p, container); c.State.Running == nil || c.Resources == nil || c.Resources.Limits.Memory().String() != memory {
				return fmt.Errorf("%+v", c)
			}
			return nil
		})
	}
	limit := "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || true"
	t.Run("InPlace", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "initContainers:", container("side", forever, "restartPolicy: Always", amounts),
			"containers:", container("main", forever, amounts)))
		s.ready("web")
		resize(s, `{"containers":[{"name":"main","resources":{"limits":{"memory":"80Mi","cpu":"70m"}}}],"initContainers":[{"name":"side","resources":{"limits":{"memory":"30Mi"}}}]}`)
		p := settled(s, "main", "80Mi")
		if out := s.sh("web", "main", limit); !strings.Contains(out, "83886080") {
			t.Errorf("the limit of main is %q", out)
		}
		if out := s.sh("web", "side", limit); !strings.Contains(out, "31457280") {
			t.Errorf("the limit of side is %q", out)
		}
		if c := status(p, "main"); c.RestartCount != 0 {
			t.Errorf("%+v", c)
		}
		s.event("web", "ResizeCompleted", "Pod resize completed")
		resize(s, `{"containers":[{"name":"main","resources":{"requests":{"memory":"10Ki"},"limits":{"memory":"10Ki"}}}]}`)
		s.event("web", "ResizeError", "below current usage")
		resize(s, `{"containers":[{"name":"main","resources":{"requests":{"memory":"20Mi"},"limits":{"memory":"40Mi"}}}]}`)
		settled(s, "main", "40Mi")
		if out := s.refused("patch", "pod", "web", "--subresource", "resize", "-p", `{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":"1000"},"limits":{"cpu":"1000"}}}]}}`); !strings.Contains(out, "node didn't have enough allocatable resources: cpu") {
			t.Error(out)
		}
	})
	t.Run("WithARestart", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "containers:", container("main", forever, amounts, "resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]")))
		s.ready("web")
		resize(s, `{"containers":[{"name":"main","resources":{"limits":{"cpu":"70m"}}}]}`)
		if c := status(settled(s, "main", "40Mi"), "main"); c.RestartCount != 0 {
			t.Errorf("%+v", c)
		}
		resize(s, `{"containers":[{"name":"main","resources":{"limits":{"memory":"80Mi"}}}]}`)
		if c := status(settled(s, "main", "80Mi"), "main"); c.RestartCount != 1 {
			t.Errorf("%+v", c)
		}
	})
	t.Run("OfThePodAsAWhole", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "resources: {requests: {cpu: 20m, memory: 20Mi}, limits: {cpu: 100m, memory: 100Mi}}", "containers:", container("main", forever), container("other", forever)))
		p := s.ready("web")
		if p.Status.QOSClass != corev1.PodQOSBurstable {
			t.Errorf("class %s", p.Status.QOSClass)
		}
		if out := s.sh("web", "main", limit); !strings.Contains(out, "104857600") {
			t.Errorf("the limit of main is %q", out)
		}
		resize(s, `{"resources":{"limits":{"memory":"200Mi"}}}`)
		s.waitPod("web", func(p *corev1.Pod) error {
			if p.Status.Resources.Limits.Memory().String() != "200Mi" {
				return fmt.Errorf("%+v", p.Status.Resources)
			}
			return nil
		})
		s.eventually("the containers have it", func() error {
			if out := s.sh("web", "other", limit); !strings.Contains(out, "209715200") {
				return fmt.Errorf("the limit of other is %q", out)
			}
			return nil
		})
	})
}

// TestRestartRules tries containers that say themselves when they are started again.
func TestRestartRules(t *testing.T) {
	s := newSpace(t)
	s.apply(podOf("all", "restartPolicy: Never", "hostnameOverride: foo.bar", "os: {name: linux}", "terminationGracePeriodSeconds: 5", "volumes: [{name: w, emptyDir: {}}]",
		"initContainers:", container("init", `echo "CONFIG='v1'" > /w/env`, mounts("w:/w")), container("side", forever, "restartPolicy: Always"),
		"containers:", container("source", "[ -e /w/done ] && sleep 1000; touch /w/done; exit 42", mounts("w:/w"), "restartPolicy: Never",
			"restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]"),
		container("main", "trap 'echo stopped by USR1; exit 0' USR1; hostname; echo $CONFIG; while :; do sleep 0.1; done", "lifecycle: {stopSignal: SIGUSR1}",
			"env: [{name: CONFIG, valueFrom: {fileKeyRef: {volumeName: w, path: env, key: CONFIG}}}]")))
	p := s.waitPod("all", func(p *corev1.Pod) error {
		for _, name := range []string{"init", "side", "source", "main"} {
			if c := status(p, name); c.RestartCount != 1 || c.State.Running == nil && name != "init" {
				return fmt.Errorf("%+v", c)
			}
		}
		return nil
	})
	if c := status(p, "side").LastTerminationState.Terminated; c == nil || c.Reason != "RestartingAllContainers" {
		t.Errorf("%+v", c)
	}
	want(t, "the log", s.kubectl("logs", "all", "-c", "main"), "foo.bar\nv1\n")
	want(t, "the log before", s.kubectl("logs", "all", "-c", "main", "--previous"), "stopped by USR1")
	s.apply(podOf("own", "restartPolicy: Never", "containers:", container("main", "exit 3", "restartPolicy: Never", "restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [3]}}]"),
		container("other", "exit 0", "restartPolicy: OnFailure")))
	s.waitPod("own", func(p *corev1.Pod) error {
		if c := status(p, "main"); c.RestartCount == 0 {
			return fmt.Errorf("%+v", c)
		}
		if c := status(p, "other").State.Terminated; c == nil || c.Reason != "Completed" {
			return fmt.Errorf("%+v", status(p, "other"))
		}
		return nil
	})
}
