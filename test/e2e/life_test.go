//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestProbes tries the three kinds of probes by their three ways.
func TestProbes(t *testing.T) {
	t.Parallel()
	t.Run("Readiness", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("exec", "terminationGracePeriodSeconds: 1", "containers:", container("main", forever, `readinessProbe: {exec: {command: ["test", "-e", "/ready"]}, periodSeconds: 1}`)))
		s.phase("exec", corev1.PodRunning)
		s.event("exec", "Unhealthy", "Readiness probe failed")
		wantMatch(t, "get pod", s.kubectl("get", "pod", "exec"), `^exec +0/1 +Running +0`)
		s.sh("exec", "", "touch /ready")
		s.ready("exec")
		s.sh("exec", "", "rm /ready")
		p := s.waitPod("exec", func(p *corev1.Pod) error {
			if hasCondition(p, corev1.PodReady, corev1.ConditionTrue) {
				return fmt.Errorf("still ready")
			}
			return nil
		})
		if status(p, "main").RestartCount != 0 {
			t.Error("a readiness probe restarted its container")
		}
	})
	t.Run("HTTPAndTCP", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("http", "terminationGracePeriodSeconds: 1", "containers:", "- {name: nginx, image: nginx, ports: [{name: web, containerPort: 80}], readinessProbe: {httpGet: {port: web, path: /}, periodSeconds: 1}, livenessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}}"))
		s.apply(podOf("missing", "terminationGracePeriodSeconds: 1", "containers:", "- {name: nginx, image: nginx, readinessProbe: {httpGet: {port: 80, path: /nothing}, periodSeconds: 1}}"))
		s.apply(podOf("closed", "terminationGracePeriodSeconds: 1", "containers:", "- {name: nginx, image: nginx, readinessProbe: {tcpSocket: {port: 81}, periodSeconds: 1}}"))
		s.ready("http")
		s.event("missing", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404")
		s.event("closed", "Unhealthy", "Readiness probe failed: dial tcp "+s.pod("closed").Status.PodIP+":81: connect: connection refused")
	})
	t.Run("Liveness", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "containers:", container("main", "touch /alive; "+forever, `livenessProbe: {exec: {command: ["cat", "/alive"]}, periodSeconds: 1, failureThreshold: 2}`)))
		s.ready("web")
		s.sh("web", "", "rm /alive")
		s.event("web", "Unhealthy", "Liveness probe failed: cat: can't open '/alive': No such file or directory")
		s.event("web", "Killing", "Container main failed liveness probe, will be restarted")
		s.waitPod("web", func(p *corev1.Pod) error {
			if c := status(p, "main"); c.RestartCount != 1 || c.State.Running == nil {
				return fmt.Errorf("%+v", c)
			}
			return nil
		})
	})
	t.Run("Startup", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "containers:", container("main", forever,
			`startupProbe: {exec: {command: ["test", "-e", "/started"]}, periodSeconds: 1, failureThreshold: 60}`, `livenessProbe: {exec: {command: ["false"]}, periodSeconds: 1, failureThreshold: 1}`)))
		s.event("web", "Unhealthy", "Startup probe failed")
		p := s.pod("web")
		if c := status(p, "main"); c.Started == nil || *c.Started || c.RestartCount != 0 || c.Ready {
			t.Errorf("before its startup probe: %+v", c)
		}
		s.sh("web", "", "touch /started")
		s.event("web", "Killing", "Container main failed liveness probe, will be restarted")
	})
}

// TestInitAndHooks tries what runs before, at the start, and at the end.
func TestInitAndHooks(t *testing.T) {
	t.Parallel()
	t.Run("InitInOrder", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "volumes: [{name: v, emptyDir: {}}]",
			"initContainers:", container("one", "while [ ! -e /v/go ]; do sleep 0.05; done; echo one >> /v/log", mounts("v:/v")), container("two", "echo two >> /v/log", mounts("v:/v")),
			"containers:", container("main", "echo main >> /v/log; "+forever, mounts("v:/v"))))
		s.waitPod("web", func(p *corev1.Pod) error {
			if status(p, "one").State.Running == nil {
				return fmt.Errorf("%+v", p.Status.InitContainerStatuses)
			}
			return nil
		})
		wantMatch(t, "get pod", s.kubectl("get", "pod", "web"), `^web +0/1 +Init:0/2 +0`)
		s.sh("web", "one", "touch /v/go")
		p := s.ready("web")
		if got := s.sh("web", "main", "cat /v/log"); got != "one\ntwo\nmain\n" {
			t.Errorf("order: %q", got)
		}
		if c := status(p, "one"); c.State.Terminated == nil || c.State.Terminated.Reason != "Completed" || !c.Ready {
			t.Errorf("one: %+v", c)
		}
	})
	t.Run("InitFails", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("never", "restartPolicy: Never", "initContainers:", container("bad", "exit 9"), "containers:", container("main", forever)))
		s.apply(podOf("always", "initContainers:", container("bad", "exit 9"), "containers:", container("main", forever)))
		p := s.phase("never", corev1.PodFailed)
		if c := status(p, "bad").State.Terminated; c == nil || c.ExitCode != 9 {
			t.Errorf("%+v", status(p, "bad"))
		}
		wantMatch(t, "get pod", s.kubectl("get", "pod", "never"), `^never +0/1 +Init:Error +0`)
		s.eventually("Init:CrashLoopBackOff", func() error {
			if out := s.kubectl("get", "pod", "always"); !strings.Contains(out, "Init:CrashLoopBackOff") {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	})
	t.Run("Sidecar", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("job", "restartPolicy: Never", "terminationGracePeriodSeconds: 5",
			"initContainers:", container("side", forever, "restartPolicy: Always"), "containers:", container("main", "sleep 1; exit 0")))
		s.waitPod("job", func(p *corev1.Pod) error {
			if status(p, "side").State.Running == nil || status(p, "main").State.Running == nil {
				return fmt.Errorf("%+v", p.Status.ContainerStatuses)
			}
			return nil
		})
		wantMatch(t, "get pod", s.kubectl("get", "pod", "job"), `^job +[12]/2 +`)
		s.phase("job", corev1.PodSucceeded)
	})
	t.Run("Hooks", func(t *testing.T) {
		s := newSpace(t)
		dir := s.c.host.Dir + "/hooks"
		s.apply(podOf("web", "terminationGracePeriodSeconds: 10", "volumes: [{name: h, hostPath: {path: "+dir+"}}]",
			"containers:", container("main", "trap 'echo term >> /h/log; exit 0' TERM; sleep 100000 & wait", mounts("h:/h"), `lifecycle:
  postStart: {exec: {command: ["sh", "-c", "echo started >> /h/log"]}}
  preStop: {exec: {command: ["sh", "-c", "echo stopping >> /h/log"]}}`)))
		s.ready("web")
		s.kubectl("delete", "pod", "web")
		if got := readFile(t, dir+"/log"); got != "started\nstopping\nterm\n" {
			t.Errorf("hooks: %q", got)
		}
		s.apply(podOf("bad", "terminationGracePeriodSeconds: 1", "containers:", container("main", forever, `lifecycle: {postStart: {exec: {command: ["sh", "-c", "exit 4"]}}}`)))
		s.event("bad", "FailedPostStartHook", "PostStartHook failed")
		s.waitPod("bad", func(p *corev1.Pod) error {
			if c := status(p, "main"); c.RestartCount == 0 {
				return fmt.Errorf("%+v", c)
			}
			return nil
		})
	})
	t.Run("TerminationMessage", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("web", "restartPolicy: Never", "containers:", container("file", "echo -n why > /dev/termination-log; exit 2"),
			container("log", "echo from the log; exit 3", "terminationMessagePolicy: FallbackToLogsOnError")))
		p := s.phase("web", corev1.PodFailed)
		if m := status(p, "file").State.Terminated.Message; m != "why" {
			t.Errorf("message of file: %q", m)
		}
		if m := status(p, "log").State.Terminated.Message; m != "from the log\n" {
			t.Errorf("message of log: %q", m)
		}
	})
}

// TestRestartBackOff tries how containers end, and how long it is until they start again.
func TestRestartBackOff(t *testing.T) {
	t.Parallel()
	t.Run("CrashLoop", func(t *testing.T) {
		s := newSpace(t)
		s.apply(simple("web", "exit 3"))
		start := time.Now()
		p := s.waitPod("web", func(p *corev1.Pod) error {
			if c := status(p, "main"); c.RestartCount < 1 || c.State.Waiting == nil || c.State.Waiting.Reason != "CrashLoopBackOff" {
				return fmt.Errorf("%+v", c)
			}
			return nil
		})
		c := status(p, "main")
		wantMatch(t, "back-off message", c.State.Waiting.Message, `^back-off (10|20)s restarting failed container=main pod=web_`+s.ns+`\([0-9a-f-]{36}\)$`)
		if c.LastTerminationState.Terminated == nil || c.LastTerminationState.Terminated.ExitCode != 3 || p.Status.Phase != corev1.PodRunning {
			t.Errorf("%+v", p.Status)
		}
		wantMatch(t, "get pod", s.kubectl("get", "pod", "web"), `^web +0/1 +CrashLoopBackOff +[12] \([0-9]+s ago\) +`)
		s.event("web", "BackOff", "Back-off restarting failed container main in pod web_"+s.ns)
		s.waitPod("web", func(p *corev1.Pod) error {
			if c := status(p, "main"); c.RestartCount < 2 {
				return fmt.Errorf("%+v", c)
			}
			return nil
		})
		if took := time.Since(start); took < 8*time.Second {
			t.Errorf("two restarts within %s: the back-off of 10 s was not kept", took)
		}
	})
	t.Run("Policies", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("good", "restartPolicy: OnFailure", "containers:", container("main", "exit 0")))
		s.apply(podOf("bad", "restartPolicy: Never", "containers:", container("main", "exit 5")))
		s.apply(podOf("mixed", "restartPolicy: Never", "containers:", container("a", "exit 0"), container("b", "exit 1")))
		s.apply(podOf("retry", "restartPolicy: OnFailure", "volumes: [{name: v, emptyDir: {}}]", "containers:", container("main", "[ -e /v/x ] && exit 0; touch /v/x; exit 1", mounts("v:/v"))))
		p := s.phase("good", corev1.PodSucceeded)
		if c := status(p, "main").State.Terminated; c.Reason != "Completed" || c.StartedAt.IsZero() || c.FinishedAt.IsZero() || c.ContainerID == "" {
			t.Errorf("%+v", c)
		}
		wantMatch(t, "get pod", s.kubectl("get", "pod", "good"), `^good +0/1 +Completed +0`)
		s.phase("bad", corev1.PodFailed)
		wantMatch(t, "get pod", s.kubectl("get", "pod", "bad"), `^bad +0/1 +Error +0`)
		s.phase("mixed", corev1.PodFailed)
		p = s.phase("retry", corev1.PodSucceeded)
		if status(p, "main").RestartCount != 1 {
			t.Errorf("%+v", status(p, "main"))
		}
	})
	t.Run("OOMKilled", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("web", "restartPolicy: Never", "containers:", `- {name: main, image: debian, command: ["sh", "-c", "tail /dev/zero; exit 1"], resources: {limits: {memory: 24Mi}}}`, container("other", forever)))
		p := s.waitPod("web", func(p *corev1.Pod) error {
			if status(p, "main").State.Terminated == nil {
				return fmt.Errorf("%+v", status(p, "main"))
			}
			return nil
		})
		// tail is killed; whether its shell, the first process, is too is the kernel's choice.
		if c := status(p, "main").State.Terminated; c.Reason != "OOMKilled" {
			t.Errorf("%+v", c)
		}
		if status(p, "other").State.Running == nil {
			t.Error("the other container did not survive")
		}
		s.apply(podOf("first", "restartPolicy: Never", "containers:", `- {name: main, image: debian, command: ["tail", "/dev/zero"], resources: {limits: {memory: 24Mi}}}`))
		p = s.phase("first", corev1.PodFailed)
		if c := status(p, "main").State.Terminated; c.Reason != "OOMKilled" || c.ExitCode != 137 {
			t.Errorf("%+v", c)
		}
		wantMatch(t, "get pod", s.kubectl("get", "pod", "first"), `^first +0/1 +OOMKilled +0`)
	})
	t.Run("CannotStart", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("nofile", "restartPolicy: Never", "containers:", "- {name: main, image: busybox, command: [/no/such/program]}"))
		s.apply(podOf("noexec", "restartPolicy: Never", "containers:", "- {name: main, image: busybox, command: [/etc/passwd]}"))
		s.apply(podOf("loop", "containers:", "- {name: main, image: busybox, command: [/no/such/program]}"))
		p := s.phase("nofile", corev1.PodFailed)
		if c := status(p, "main").State.Terminated; c.Reason != "StartError" || c.ExitCode != 128 || !strings.Contains(c.Message, `exec: "/no/such/program": stat /no/such/program: no such file or directory`) {
			t.Errorf("%+v", c)
		}
		p = s.phase("noexec", corev1.PodFailed)
		if c := status(p, "main").State.Terminated; c.Reason != "StartError" || c.ExitCode != 128 || !strings.Contains(c.Message, "permission denied") {
			t.Errorf("%+v", c)
		}
		s.event("nofile", "Failed", "OCI runtime create failed: unable to start container process: error during container init: exec: \"/no/such/program\"")
		s.waitPod("loop", func(p *corev1.Pod) error {
			if c := status(p, "main"); c.RestartCount < 1 || c.State.Waiting == nil || c.State.Waiting.Reason != "CrashLoopBackOff" || c.LastTerminationState.Terminated == nil || c.LastTerminationState.Terminated.Reason != "StartError" {
				return fmt.Errorf("%+v", c)
			}
			return nil
		})
	})
	t.Run("ExitCodes", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("codes", "restartPolicy: Never", "containers:", container("shell127", "exec /no/such/program"), container("shell126", "exec /etc/passwd"), container("signal", "kill -9 $$"),
			container("zero", "true"), container("big", "exit 255")))
		p := s.phase("codes", corev1.PodFailed)
		for name, code := range map[string]int32{"shell127": 127, "shell126": 126, "zero": 0, "big": 255} {
			if c := status(p, name).State.Terminated; c == nil || c.ExitCode != code {
				t.Errorf("%s: %+v, want exit code %d", name, c, code)
			}
		}
	})
}
