//go:build e2e

package e2e

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestScheduling tries what keeps a Pod from the one node, and the words for it.
func TestScheduling(t *testing.T) {
	t.Parallel()
	const sorry = "preemption: 0/1 nodes are available"
	t.Run("NodeSelector", func(t *testing.T) {
		s := newSpace(t)
		s.apply(simple("web", forever, "nodeSelector: {disk: fast-"+s.ns+"}"))
		s.event("web", "FailedScheduling", "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
		p := s.pod("web")
		if p.Status.Phase != corev1.PodPending || !hasCondition(p, corev1.PodScheduled, corev1.ConditionFalse) {
			t.Errorf("%+v", p.Status)
		}
		s.kubectl("label", "node", nodeName, "disk=fast-"+s.ns, "--overwrite")
		s.ready("web")
		s.kubectl("label", "node", nodeName, "disk-")
	})
	t.Run("Affinity", func(t *testing.T) {
		s := newSpace(t)
		s.apply(simple("never", forever, `affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
      - matchExpressions: [{key: kubernetes.io/hostname, operator: NotIn, values: [n1.example.com]}]`))
		s.event("never", "FailedScheduling", "1 node(s) didn't match Pod's node affinity/selector")
		s.apply(simple("first", forever))
		s.ready("first")
		s.apply(simple("apart", forever, `affinity:
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
    - {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {run: first}}}`))
		s.event("apart", "FailedScheduling", "1 node(s) didn't match pod anti-affinity rules")
		s.kubectl("delete", "pod", "first")
		s.ready("apart")
	})
	t.Run("Resources", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("cpu", "containers:", container("main", forever, "resources: {requests: {cpu: 1000}}")))
		s.event("cpu", "FailedScheduling", "0/1 nodes are available: 1 Insufficient cpu.")
		s.apply(podOf("mem", "containers:", container("main", forever, "resources: {requests: {memory: 100Ti}}")))
		s.event("mem", "FailedScheduling", "0/1 nodes are available: 1 Insufficient memory.")
		s.event("mem", "FailedScheduling", sorry)
		s.apply(podOf("both", "containers:", container("main", forever, "resources: {requests: {memory: 100Ti, cpu: 1000}}")))
		s.event("both", "FailedScheduling", "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory.")
		s.apply(podOf("ext", "containers:", container("main", forever, "resources: {limits: {example.com/gpu: 1}}")))
		s.event("ext", "FailedScheduling", "1 Insufficient example.com/gpu")
	})
	t.Run("HostPort", func(t *testing.T) {
		s := newSpace(t)
		port := func(name, more string) string {
			return podOf(name, "terminationGracePeriodSeconds: 1", "containers:", container("main", forever, "ports: [{containerPort: 80, hostPort: 18080"+more+"}]"))
		}
		s.apply(port("first", ""))
		s.ready("first")
		s.apply(port("udp", ", protocol: UDP"))
		s.ready("udp")
		s.apply(port("second", ""))
		s.event("second", "FailedScheduling", "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.")
		s.apply(port("local", ", hostIP: 127.0.0.1"))
		s.event("local", "FailedScheduling", "1 node(s) didn't have free ports")
		s.kubectl("delete", "pod", "first")
		s.eventually("second or local run", func() error {
			if hasCondition(s.pod("second"), corev1.PodReady, corev1.ConditionTrue) || hasCondition(s.pod("local"), corev1.PodReady, corev1.ConditionTrue) {
				return nil
			}
			return errors.New("neither")
		})
	})
	t.Run("HostPortTraffic", func(t *testing.T) {
		s := newSpace(t)
		s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "containers:", "- {name: nginx, image: nginx, ports: [{containerPort: 80, hostPort: 18081}]}"))
		s.ready("web")
		for _, addr := range []string{"127.0.0.1", nodeIP} {
			if page, err := s.curl("http://" + addr + ":18081/"); err != nil || !strings.Contains(page, "Welcome to nginx!") {
				t.Errorf("through the port of the host at %s: %q %v", addr, page, err)
			}
		}
	})
	t.Run("NodeName", func(t *testing.T) {
		s := newSpace(t)
		s.apply(simple("here", forever, "nodeName: "+nodeName))
		s.ready("here")
		s.apply(simple("nowhere", forever, "nodeName: no-such-node"))
		s.kubectl("get", "pod", "nowhere", "-o", "name")
	})
}

// TestSchedulingTaints changes the node, so it has a cluster of its own.
func TestSchedulingTaints(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.up(t)
	s := c.space(t)
	s.kubectl("taint", "node", nodeName, "key=value:NoSchedule")
	s.apply(simple("web", forever))
	s.event("web", "FailedScheduling", "0/1 nodes are available: 1 node(s) had untolerated taint(s).")
	s.apply(simple("brave", forever, "tolerations: [{key: key, operator: Equal, value: value, effect: NoSchedule}]"))
	s.ready("brave")
	s.kubectl("taint", "node", nodeName, "key=value:NoSchedule-")
	s.ready("web")

	s.kubectl("taint", "node", nodeName, "out=now:NoExecute")
	s.waitGone("web")
	s.waitGone("brave")
	s.kubectl("taint", "node", nodeName, "out=now:NoExecute-")

	if out := s.kubectl("cordon", nodeName); out != "node/"+nodeName+" cordoned\n" {
		t.Errorf("cordon printed %q", out)
	}
	wantMatch(t, "get nodes", s.kubectl("get", "nodes"), `^n1\.example\.com +Ready,SchedulingDisabled `)
	s.apply(simple("late", forever))
	s.event("late", "FailedScheduling", "0/1 nodes are available: 1 node(s) were unschedulable.")
	s.kubectl("uncordon", nodeName)
	s.ready("late")
	want(t, "drain", s.kubectl("drain", nodeName, "--force", "--ignore-daemonsets", "--delete-emptydir-data"), "node/"+nodeName+" drained")
	s.waitGone("late")
}
