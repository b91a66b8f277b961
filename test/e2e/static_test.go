//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// static puts a manifest of a static Pod where the node looks for them, whole.
func (s *space) static(file, text string) {
	s.Helper()
	path := filepath.Join(s.c.manifests(), s.ns+"-"+file)
	hidden := filepath.Join(s.c.manifests(), "."+filepath.Base(path))
	if err := os.WriteFile(hidden, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	if err := os.Rename(hidden, path); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { os.Remove(path) })
}

// inSpace is a manifest of a Pod with its namespace, as static ones must have it.
func (s *space) inSpace(name, manifest string) string {
	return strings.Replace(strings.TrimPrefix(manifest, "---\n"), "name: "+name+"\n", "name: "+name+"\n  namespace: "+s.ns+"\n", 1)
}

func (s *space) staticPod(script string) string { return s.inSpace("web", simple("web", script)) }

// TestStaticPods puts manifests into the node's folder and takes them away.
func TestStaticPods(t *testing.T) {
	s := newSpace(t)
	name := "web-" + nodeName
	s.static("web.yaml", s.staticPod("echo one; "+forever))
	// It shows itself when the node has read the file; kubectl wait knows only Pods that are there.
	s.waitPod(name, func(*corev1.Pod) error { return nil })
	first := s.ready(name)
	if first.OwnerReferences[0].Kind != "Node" || first.Annotations["kubernetes.io/config.source"] != "file" || first.Annotations["kubernetes.io/config.mirror"] == "" {
		t.Errorf("%+v", first.ObjectMeta)
	}
	id := first.Status.ContainerStatuses[0].ContainerID
	s.kubectl("delete", "pod", name)
	again := s.waitPod(name, func(p *corev1.Pod) error {
		if p.UID == first.UID || len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Running == nil {
			return fmt.Errorf("it is not shown again")
		}
		return nil
	})
	if again.Status.ContainerStatuses[0].ContainerID != id {
		t.Error("deleting the mirror started the Pod anew")
	}
	logs := func(line string) {
		t.Helper()
		s.eventually("the line "+line, func() error {
			if out, stderr, err := s.try("logs", name); err != nil || out != line+"\n" {
				return fmt.Errorf("%q %s", out, stderr)
			}
			return nil
		})
	}
	logs("one")
	wantMatch(t, "exec", s.kubectl("exec", name, "--", "hostname"), `^web`)

	s.static("web.yaml", s.staticPod("echo two; "+forever))
	s.waitPod(name, func(p *corev1.Pod) error {
		if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Running == nil || p.Status.ContainerStatuses[0].ContainerID == id {
			return fmt.Errorf("the new one does not run")
		}
		return nil
	})
	logs("two")

	s.static("bad.yaml", strings.Replace(s.staticPod(forever), "  containers:", "  serviceAccountName: x\n  containers:", 1))
	s.eventually("an event at the node", func() error {
		out, _, err := s.try("get", "events", "-n", "default", "--field-selector", "reason=InvalidStaticPod", "-o", "jsonpath={.items[*].message}")
		if err != nil || !strings.Contains(out, s.ns+"-bad.yaml cannot be used: pod web: static pods may not reference serviceaccounts") {
			return fmt.Errorf("%q %v", out, err)
		}
		return nil
	})
	if err := os.Remove(filepath.Join(s.c.manifests(), s.ns+"-web.yaml")); err != nil {
		t.Fatal(err)
	}
	s.waitGone(name)
}

// TestPreemption has a static Pod come for which the node has no room: another ends for it, that counts as a disruption, and the rest goes on.
func TestPreemption(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.up(t)
	s := c.space(t)
	node, err := c.kube.CoreV1().Nodes().Get(t.Context(), nodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	most := node.Status.Allocatable.Cpu().MilliValue()
	request := func(milli int64) string { return fmt.Sprintf("resources: {requests: {cpu: %dm}}", milli) }
	s.apply(simple("bystander", forever) + podOf("small", "containers:", container("main", forever, request(100))) +
		podOf("victim", "containers:", container("main", forever, request(most-300))))
	s.ready("bystander", "small", "victim")
	before := map[string]*corev1.Pod{"bystander": s.pod("bystander"), "small": s.pod("small")}
	s.static("critical.yaml", s.inSpace("critical", podOf("critical", "containers:", container("main", forever, request(500)))))
	victim := s.phase("victim", corev1.PodFailed)
	if victim.Status.Reason != "Preempting" || victim.Status.Message != "Preempted in order to admit critical pod" {
		t.Errorf("%s: %s", victim.Status.Reason, victim.Status.Message)
	}
	i := slices.IndexFunc(victim.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.DisruptionTarget })
	if i < 0 || victim.Status.Conditions[i].Reason != corev1.PodReasonTerminationByKubelet {
		t.Errorf("conditions %+v", victim.Status.Conditions)
	}
	s.event("victim", "Preempting", "Preempted in order to admit critical pod")
	name := "critical-" + nodeName
	s.waitPod(name, func(*corev1.Pod) error { return nil })
	id := s.ready(name).Status.ContainerStatuses[0].ContainerID
	c.kill(t)
	c.up(t)
	if got := s.ready(name).Status.ContainerStatuses[0].ContainerID; got != id {
		t.Errorf("the critical Pod was started anew: %s, was %s", got, id)
	}
	for name, was := range before {
		p := s.ready(name)
		if p.UID != was.UID || p.Status.ContainerStatuses[0].ContainerID != was.Status.ContainerStatuses[0].ContainerID {
			t.Errorf("%s did not go on: %+v", name, p.Status)
		}
	}
	// Without room for all, one that is critical by its class only does not end another that is critical.
	s.apply(podOf("late", "priorityClassName: system-node-critical", "nodeName: "+nodeName, "containers:", container("main", forever, request(most-400))))
	late := s.phase("late", corev1.PodFailed)
	if late.Status.Reason != "OutOfcpu" {
		t.Errorf("%s: %s", late.Status.Reason, late.Status.Message)
	}
	s.ready(name, "small")
}
