//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pid is the daemon's, as carob status tells it.
func (c *cluster) pid(t testing.TB) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, _ := c.command(ctx, carobBinary, "status", "-o", "json", "--root", c.host.Root).Output()
	var s struct {
		PID   int  `json:"pid"`
		Ready bool `json:"ready"`
	}
	if err := json.Unmarshal(out, &s); err != nil || s.PID == 0 {
		t.Fatalf("carob status -o json: %v\n%s", err, out)
	}
	return s.PID
}

// kill ends the daemon as a crash would, and waits for its end.
func (c *cluster) kill(t testing.TB) {
	t.Helper()
	pid := c.pid(t)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the daemon", func() error {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(stat), ") Z ") {
			return fmt.Errorf("still there: %s", stat)
		}
		return nil
	})
}

// TestKillAndRestart kills the daemon in the middle of things. Nothing may be lost, doubled or left.
func TestKillAndRestart(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.up(t)
	s := c.space(t)

	// Pods that run, one of them restarted once, and one that has ended.
	s.apply(podOf("pair", "terminationGracePeriodSeconds: 1", "volumes: [{name: v, emptyDir: {}}]", "containers:",
		container("a", "while :; do date +%s%N >> /v/beat; sleep 0.1; done", mounts("v:/v")), container("b", forever)))
	s.apply(podOf("done", "restartPolicy: Never", "containers:", container("main", "echo all is well; exit 3")))
	before := s.ready("pair")
	syscall.Kill(s.mainProcess(before, "b").pid, syscall.SIGKILL)
	before = s.waitPod("pair", func(p *corev1.Pod) error {
		if b := status(p, "b"); b.RestartCount != 1 || b.State.Running == nil {
			return fmt.Errorf("%+v", b)
		}
		return nil
	})
	s.phase("done", corev1.PodFailed)
	a, b, pause := s.mainProcess(before, "a"), s.mainProcess(before, "b"), s.pause(before, "a")

	// A Deployment is being made while the daemon dies, several times over.
	s.apply(deployment("web", 6))
	for i := range 3 {
		c.kill(t)
		if i == 1 { // a container dies while nobody looks
			syscall.Kill(b.pid, syscall.SIGKILL)
			s.noProcess(b.pid)
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", a.pid)); err != nil {
			t.Errorf("a container died with the daemon: %v", err)
		}
		c.up(t)
	}
	s.rolledOut("web")
	s.kubectl("set", "env", "deployment/web", "VERSION=two")
	c.kill(t)
	c.up(t)
	s.rolledOut("web")

	after := s.waitPod("pair", func(p *corev1.Pod) error {
		if b := status(p, "b"); b.RestartCount != 2 || b.State.Running == nil {
			return fmt.Errorf("%+v", b)
		}
		return nil
	})
	if after.UID != before.UID || after.Status.PodIP != before.Status.PodIP || !after.Status.StartTime.Equal(before.Status.StartTime) {
		t.Errorf("the Pod changed: %s %s, was %s %s", after.UID, after.Status.PodIP, before.UID, before.Status.PodIP)
	}
	if now := s.mainProcess(after, "a"); now.pid != a.pid || s.pause(after, "a").pid != pause.pid || status(after, "a").RestartCount != 0 {
		t.Errorf("container a was restarted: process %d, was %d; %+v", now.pid, a.pid, status(after, "a"))
	}
	if got := s.kubectl("logs", "done"); got != "all is well\n" {
		t.Errorf("the log of an ended Pod: %q", got)
	}
	if p := s.pod("done"); p.Status.Phase != corev1.PodFailed || status(p, "main").State.Terminated.ExitCode != 3 {
		t.Errorf("the ended Pod: %+v", p.Status)
	}
	s.oneProcessEach("app=web", 6)
	if rs := s.replicaSets("web"); len(rs) != 2 {
		t.Errorf("%d ReplicaSets, want 2", len(rs))
	}
	if got := s.sh("pair", "a", "echo works"); got != "works\n" {
		t.Errorf("exec after restarts: %q", got)
	}

	// A delete that the daemon does not live to see the end of.
	s.kubectl("delete", "pod", "pair", "--wait=false", "--grace-period=3")
	c.kill(t)
	c.up(t)
	s.waitGone("pair")
	s.noProcess(a.pid)
	s.noProcess(pause.pid)

	// Killed for good: uninstall alone leaves nothing.
	c.kill(t)
	if out, err := c.carob("uninstall", "--root", c.host.Root); err != nil {
		t.Errorf("carob uninstall after kill -9: %v\n%s", err, out)
	}
	c.gone = true
	c.nothingLeft(t)
}

// oneProcessEach checks that as many Pods with the labels run, each with one shim, one pause and one main process, and none else of the kind.
func (s *space) oneProcessEach(selector string, n int) {
	s.Helper()
	s.eventually(fmt.Sprintf("%d Pods", n), func() error {
		pods := s.pods(selector)
		for _, p := range pods {
			if p.DeletionTimestamp != nil || !hasCondition(&p, corev1.PodReady, corev1.ConditionTrue) {
				return fmt.Errorf("%s is %s", p.Name, p.Status.Phase)
			}
		}
		if len(pods) != n {
			return fmt.Errorf("%d Pods", len(pods))
		}
		return nil
	})
	ips := map[string]string{}
	for _, p := range s.pods(selector) {
		if other := ips[p.Status.PodIP]; other != "" {
			s.Errorf("%s and %s have the address %s", p.Name, other, p.Status.PodIP)
		}
		ips[p.Status.PodIP] = p.Name
		seen := 0
		for _, proc := range allProcesses() {
			if strings.Contains(proc.cgroup, "pod"+string(p.UID)) && proc.comm == "sh" {
				seen++
			}
		}
		if seen != 1 {
			s.Errorf("pod %s has %d main processes, want 1", p.Name, seen)
		}
	}
}

// TestDownAndUp stops everything gracefully and starts it again: objects, images and volumes are there, and the Pods run anew.
func TestDownAndUp(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	out := c.up(t)
	wantMatch(t, "carob up", out, `(?i)ready`, `[0-9]+ ms`)
	s := c.space(t)
	dir := filepath.Join(c.host.Dir, "page")
	s.apply(podOf("web", "volumes: [{name: v, emptyDir: {}}, {name: h, hostPath: {path: "+dir+"}}]", "terminationGracePeriodSeconds: 20",
		"containers:", container("main", "[ -e /v/kept ] && echo kept; touch /v/kept; trap 'sleep 1; echo gracefully > /h/end; exit 0' TERM; sleep 100000 & wait", mounts("v:/v", "h:/h"))))
	s.apply(podOf("never", "restartPolicy: Never", "containers:", container("main", forever)))
	s.apply(deployment("web", 2))
	s.rolledOut("web")
	s.ready("web", "never")
	s.kubectl("create", "configmap", "cm", "--from-literal=a=b")

	// A second Carob on the same root is refused, and does no harm.
	if out, err := c.carob(c.upArgs()...); err == nil || !strings.Contains(out, "running already") {
		t.Errorf("a second carob up: %v\n%s", err, out)
	}
	s.kubectl("get", "pod", "web")

	start := time.Now()
	down, err := c.carob("down", "--root", c.host.Root)
	if err != nil {
		t.Fatalf("carob down: %v\n%s", err, down)
	}
	t.Logf("carob down took %s:\n%s", time.Since(start).Round(time.Millisecond), down)
	want(t, "carob down", down, "pod "+s.ns+"/web stopped")
	if got := readFile(t, filepath.Join(dir, "end")); got != "gracefully\n" {
		t.Errorf("the Pod did not end gracefully: %q", got)
	}
	if out, err := c.carob("status", "--root", c.host.Root); err == nil {
		t.Errorf("carob status of what is down: %s", out)
	}
	if out, err := c.carob("down", "--root", c.host.Root); err != nil {
		t.Errorf("a second carob down: %v\n%s", err, out)
	}

	c.up(t)
	s.rolledOut("web")
	s.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=30s")
	s.eventually("the volume that was kept", func() error {
		if got := s.kubectl("logs", "web"); !strings.HasSuffix(got, "kept\n") {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	if got := s.kubectl("get", "cm", "cm", "-o", "jsonpath={.data.a}"); got != "b" {
		t.Errorf("configMap after down and up: %q", got)
	}
	if p := s.pod("web"); status(p, "main").RestartCount != 1 {
		t.Errorf("restarts: %+v", status(p, "main"))
	}
	s.waitPod("never", func(p *corev1.Pod) error {
		if p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			return fmt.Errorf("%s", p.Status.Phase)
		}
		return nil
	})
	wantMatch(t, "get nodes", s.kubectl("get", "nodes"), `^n1\.example\.com +Ready `)
	if nodes, err := c.kube.CoreV1().Nodes().List(context.Background(), metav1.ListOptions{}); err != nil || len(nodes.Items) != 1 {
		t.Errorf("nodes: %v %v", nodes, err)
	}
}

// TestForeground runs carob up as people do at first, and ends it with Ctrl-C.
func TestForeground(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	args := append([]string{}, c.upArgs()...)
	args = append(args[:1], args[2:]...) // without -d
	log, err := os.Create(filepath.Join(c.host.Dir, "up.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := c.host.Command(carobBinary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a cluster that is ready", func() error {
		if out := readFile(t, log.Name()); !strings.Contains(out, "The cluster is ready") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	c.kube = c.client(t)
	s := c.space(t)
	s.apply(podOf("web", "terminationGracePeriodSeconds: 10", "containers:", container("main", forever)))
	pid := s.mainProcess(s.ready("web"), "main").pid
	syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("carob up ended with %v after Ctrl-C:\n%s", err, readFile(t, log.Name()))
		}
	case <-time.After(patience):
		cmd.Process.Kill()
		t.Fatalf("carob up did not end after Ctrl-C:\n%s", readFile(t, log.Name()))
	}
	s.noProcess(pid)
	wantMatch(t, "carob up", readFile(t, log.Name()), `Started`, `stopping the Pods`, `pod `+s.ns+`/web stopped`)

	// SIGTERM leaves the Pods running; the next start finds them.
	c.up(t)
	s.ready("web")
	now := s.mainProcess(s.waitPod("web", func(p *corev1.Pod) error {
		if status(p, "main").State.Running == nil {
			return fmt.Errorf("%+v", status(p, "main"))
		}
		return nil
	}), "main").pid
	daemon := c.pid(t)
	syscall.Kill(daemon, syscall.SIGTERM)
	s.noProcess(daemon)
	if _, ok := allProcesses()[now]; !ok {
		t.Error("the Pod ended with SIGTERM to the daemon")
	}
	c.up(t)
	if again := s.mainProcess(s.ready("web"), "main").pid; again != now {
		t.Errorf("the Pod was restarted: process %d, was %d", again, now)
	}
}
