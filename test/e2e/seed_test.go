//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestSeedTwoContainers runs the Pod of the examples: two equals that share a folder of the machine and an address.
func TestSeedTwoContainers(t *testing.T) {
	s := newSpace(t)
	manifest, err := os.ReadFile("../../examples/two-containers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	folder := s.c.host.Dir + "/page"
	out := s.apply(strings.ReplaceAll(string(manifest), "/var/tmp/carob-example-page", folder))
	if out != "pod/two-containers created\n" {
		t.Errorf("kubectl apply printed %q", out)
	}
	s.seedPod(folder)
}

// TestSeedToTheLetter runs the seed's own manifests.
func TestSeedToTheLetter(t *testing.T) {
	s := newSpace(t)
	remove := func() { // only what a Pod of this test wrote
		os.Remove("/var/tmp./index.html")
		os.Remove("/var/tmp.")
	}
	remove()
	if _, err := os.Stat("/var/tmp."); err == nil {
		t.Fatal("/var/tmp. exists already, and holds what is not this test's")
	}
	t.Cleanup(remove)
	s.kubectl("apply", "-f", "testdata/seed-two-containers.yaml")
	s.seedPod("/var/tmp.")
	if fi, err := os.Stat("/var/tmp."); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("/var/tmp.: %v %v, want a folder with mode 0755", fi, err)
	}
	s.kubectl("apply", "-f", "testdata/seed-deployment.yaml")
	s.kubectl("rollout", "status", "deployment/nginx-deployment", "--timeout=60s")
	s.kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=nginx", "--timeout=30s")
	if n := len(s.pods("app=nginx")); n != 4 {
		t.Errorf("%d Pods, want 4", n)
	}
	wide := s.kubectl("get", "pods", "-l", "app=nginx", "-o", "wide")
	wantMatch(t, "get pods -o wide", wide,
		`^NAME +READY +STATUS +RESTARTS +AGE +IP +NODE +NOMINATED NODE +READINESS GATES$`,
		`^nginx-deployment-[a-z0-9]{8,10}-[a-z0-9]{5} +1/1 +Running +0 +[0-9]+s +10\.42\.0\.[0-9]+ +n1\.example\.com +<none> +<none>$`)
}

// seedPod checks the two-container Pod, whose volume is the given folder.
func (s *space) seedPod(folder string) {
	s.Helper()
	p := s.ready("two-containers")
	page, err := s.curl("http://" + p.Status.PodIP + "/")
	if err != nil || page != "Hello from the debian container\n" {
		s.Errorf("nginx served %q, %v", page, err)
	}
	if got := s.sh("two-containers", "nginx-container", "cat /usr/share/nginx/html/index.html"); got != "Hello from the debian container\n" {
		s.Errorf("nginx sees %q", got)
	}
	if got, err := os.ReadFile(folder + "/index.html"); err != nil || string(got) != "Hello from the debian container\n" {
		s.Errorf("the machine sees %q, %v", got, err)
	}
	for _, c := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady, corev1.PodReadyToStartContainers} {
		if !hasCondition(p, c, corev1.ConditionTrue) {
			s.Errorf("condition %s is not True: %+v", c, p.Status.Conditions)
		}
	}
	if p.Status.HostIP != nodeIP || p.Status.QOSClass != corev1.PodQOSBestEffort || p.Status.StartTime == nil || len(p.Status.PodIPs) != 1 {
		s.Errorf("status: %+v", p.Status)
	}
	wantMatch(s, "get pod", s.kubectl("get", "pod", "two-containers"), `^two-containers +2/2 +Running +0 +[0-9]+s$`)

	// One ends, the other goes on. What kills it is killed with it, so it must not be waited for.
	s.sh("two-containers", "debian-container", "(sleep 0.2; pkill sleep) >/dev/null 2>&1 &")
	p = s.waitPod("two-containers", func(p *corev1.Pod) error {
		if status(p, "debian-container").State.Terminated == nil {
			return fmt.Errorf("debian-container: %+v", status(p, "debian-container").State)
		}
		return nil
	})
	if p.Status.Phase != corev1.PodRunning || status(p, "nginx-container").State.Running == nil {
		s.Errorf("after debian ended: phase %s, nginx %+v", p.Status.Phase, status(p, "nginx-container").State)
	}
	if hasCondition(p, corev1.PodReady, corev1.ConditionTrue) {
		s.Error("the Pod is Ready although one of its containers ended")
	}
	wantMatch(s, "get pod", s.kubectl("get", "pod", "two-containers"), `^two-containers +1/2 +Error +0 +`)
	if page, err := s.curl("http://" + p.Status.PodIP + "/"); err != nil || !strings.HasPrefix(page, "Hello") {
		s.Errorf("nginx after its peer ended: %q, %v", page, err)
	}
}

func hasCondition(p *corev1.Pod, kind corev1.PodConditionType, want corev1.ConditionStatus) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c.Status == want
		}
	}
	return false
}
