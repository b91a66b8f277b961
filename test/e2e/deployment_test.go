//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestDeployment tries what a Deployment promises.
func TestDeployment(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		name string
		f    func(*testing.T)
	}{
		{"Examples", deployExamples}, {"Scale", deployScale}, {"RollingUpdate", deployRolling}, {"HistoryAndUndo", deployHistory}, {"PauseAndResume", deployPause},
		{"Restart", deployRestart}, {"Recreate", deployRecreate}, {"RevisionHistoryLimit", deployHistoryLimit}, {"ProgressDeadline", deployDeadline},
		{"BothZero", deployBothZero}, {"Proportional", deployProportional}, {"ComesBack", deployComesBack}, {"NodeProcessesKilled", deployKilled}, {"BadSelector", deployBadSelector},
	} {
		t.Run(v.name, v.f)
	}
}

func (s *space) deployment(name string) *appsv1.Deployment {
	s.Helper()
	d, err := s.c.kube.AppsV1().Deployments(s.ns).Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return d
}

// waitDeployment waits until a Deployment is as wanted.
func (s *space) waitDeployment(name string, want func(*appsv1.Deployment) error) *appsv1.Deployment {
	s.Helper()
	var d *appsv1.Deployment
	s.eventually("deployment "+name, func() error {
		d = s.deployment(name)
		return want(d)
	})
	return d
}

// rolledOut waits for a rollout by kubectl.
func (s *space) rolledOut(name string) string {
	s.Helper()
	return s.kubectl("rollout", "status", "deployment/"+name, "--timeout=60s")
}

// replicaSets of a Deployment, oldest first.
func (s *space) replicaSets(name string) []appsv1.ReplicaSet {
	s.Helper()
	l, err := s.c.kube.AppsV1().ReplicaSets(s.ns).List(context.Background(), metav1.ListOptions{LabelSelector: "app=" + name})
	if err != nil {
		s.Fatal(err)
	}
	slices.SortFunc(l.Items, func(a, b appsv1.ReplicaSet) int {
		return strings.Compare(fmt.Sprintf("%09s", a.Annotations["deployment.kubernetes.io/revision"]), fmt.Sprintf("%09s", b.Annotations["deployment.kubernetes.io/revision"]))
	})
	return l.Items
}

// hold keeps a Deployment's promises under watch until the returned function is called. As in Kubernetes, how many Pods there may be is
// a promise of what the ReplicaSets are told; their status, which the Deployment's adds up, may lag behind.
func (s *space) hold(name string, maxTotal, minAvailable int32) (stop func()) {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w, err := s.c.kube.AppsV1().Deployments(s.ns).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name, ResourceVersion: s.deployment(name).ResourceVersion})
	if err != nil {
		s.Fatal(err)
	}
	done := make(chan struct{})
	seen := 0
	go func() {
		defer close(done)
		for e := range w.ResultChan() {
			if d, ok := e.Object.(*appsv1.Deployment); ok {
				seen++
				total := int32(0)
				for _, rs := range s.replicaSets(name) {
					total += *rs.Spec.Replicas
				}
				if total > maxTotal {
					s.Errorf("deployment %s at %s: its ReplicaSets want %d Pods, at most %d may be", name, d.ResourceVersion, total, maxTotal)
				}
				if d.Status.AvailableReplicas < minAvailable {
					s.Errorf("deployment %s at %s: %d available, at least %d must be", name, d.ResourceVersion, d.Status.AvailableReplicas, minAvailable)
				}
			}
		}
	}()
	return func() {
		s.Helper()
		cancel()
		<-done
		if seen == 0 {
			s.Errorf("the watch of deployment %s saw nothing", name)
		}
	}
}

func deployExamples(t *testing.T) {
	s := newSpace(t)
	manifest, err := os.ReadFile("../../examples/nginx-deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	folder := s.c.host.Dir + "/deployment-page"
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(folder+"/index.html", []byte("one page\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := s.apply(strings.ReplaceAll(string(manifest), "/var/tmp/carob-example-page", folder)); out != "deployment.apps/nginx-deployment created\n" {
		t.Errorf("apply printed %q", out)
	}
	if out := s.kubectl("apply", "-f", "../../examples/nginx-emptydir.yaml"); out != "deployment.apps/nginx-emptydir created\n" {
		t.Errorf("apply printed %q", out)
	}
	for _, name := range []string{"nginx-deployment", "nginx-emptydir"} {
		want(t, "rollout status", s.rolledOut(name), fmt.Sprintf("deployment \"%s\" successfully rolled out\n", name))
	}
	pages := map[string]bool{}
	for _, p := range s.pods("app=nginx") {
		if page, err := s.curl("http://" + p.Status.PodIP + "/"); err != nil || page != "one page\n" {
			t.Errorf("pod %s served %q %v", p.Name, page, err)
		}
	}
	for _, p := range s.pods("app=nginx-emptydir") {
		page, err := s.curl("http://" + p.Status.PodIP + "/")
		if err != nil || page != "Hello from "+p.Name+"\n" {
			t.Errorf("pod %s served %q %v", p.Name, page, err)
		}
		pages[page] = true
	}
	if len(pages) != 4 {
		t.Errorf("%d pages, want 4 different ones", len(pages))
	}
	wantMatch(t, "get deploy", s.kubectl("get", "deploy", "-o", "wide"), `^NAME +READY +UP-TO-DATE +AVAILABLE +AGE +CONTAINERS +IMAGES +SELECTOR$`,
		`^nginx-deployment +4/4 +4 +4 +[0-9]+s +nginx +nginx:1\.8 +app=nginx$`)
	wantMatch(t, "get rs", s.kubectl("get", "rs", "-l", "app=nginx"), `^NAME +DESIRED +CURRENT +READY +AGE$`, `^nginx-deployment-[a-z0-9]+ +4 +4 +4 +`)
	wantMatch(t, "describe", s.kubectl("describe", "deploy", "nginx-deployment"), `^Replicas: +4 desired \| 4 updated \| 4 total \| 4 available \| 0 unavailable$`,
		`^StrategyType: +RollingUpdate$`, `^RollingUpdateStrategy: +25% max unavailable, 25% max surge$`, `^  Available +True +MinimumReplicasAvailable$`,
		`^  Progressing +True +NewReplicaSetAvailable$`, `^NewReplicaSet: +nginx-deployment-[a-z0-9]+ \(4/4 replicas created\)$`, `ScalingReplicaSet +\S+ +deployment-controller +Scaled up replica set nginx-deployment-[a-z0-9]+ from 0 to 4`)
}

func deployScale(t *testing.T) {
	s := newSpace(t)
	s.apply(deployment("web", 4))
	s.rolledOut("web")
	for _, n := range []int{6, 2, 0, 3} {
		if out := s.kubectl("scale", "deployment/web", fmt.Sprintf("--replicas=%d", n)); out != "deployment.apps/web scaled\n" {
			t.Errorf("scale printed %q", out)
		}
		s.eventually(fmt.Sprintf("%d Pods", n), func() error {
			if d, pods := s.deployment("web"), s.pods("app=web"); len(pods) != n || int(d.Status.ReadyReplicas) != n || d.Status.ObservedGeneration != d.Generation {
				return fmt.Errorf("%d Pods, status %+v", len(pods), d.Status)
			}
			return nil
		})
	}
	want(t, "scale with a wrong precondition", s.refused("scale", "deployment/web", "--current-replicas=9", "--replicas=1"), "Expected replicas to be 9, was 3")
	want(t, "a negative scale", s.refused("scale", "deployment/web", "--replicas=-1"), "--replicas=COUNT")
	if rs := s.replicaSets("web"); len(rs) != 1 {
		t.Errorf("%d ReplicaSets, want 1", len(rs))
	}
}

// deployRolling: of 4 replicas, 25 % surge is 1 and 25 % unavailable is 1; of 3, 50 % and 50 % are 2 and 1.
func deployRolling(t *testing.T) {
	s := newSpace(t)
	for _, v := range []struct {
		name                 string
		replicas             int
		surge, unavailable   string
		maxTotal, minServing int32
	}{
		{"quarter", 4, "25%", "25%", 5, 3},
		{"half", 3, "50%", "50%", 5, 2},
		{"careful", 3, "1", "0", 4, 3},
		{"inplace", 3, "0%", "34%", 3, 2},
	} {
		s.apply(deployment(v.name, v.replicas, fmt.Sprintf("strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: %s, maxUnavailable: %s}}", v.surge, v.unavailable)))
		s.rolledOut(v.name)
		stop := s.hold(v.name, v.maxTotal, v.minServing)
		if out := s.kubectl("set", "env", "deployment/"+v.name, "VERSION=two"); out != "deployment.apps/"+v.name+" env updated\n" {
			t.Errorf("set env printed %q", out)
		}
		want(t, "rollout status", s.rolledOut(v.name), fmt.Sprintf("deployment \"%s\" successfully rolled out\n", v.name))
		stop()
		rs := s.replicaSets(v.name)
		if len(rs) != 2 || *rs[0].Spec.Replicas != 0 || int(*rs[1].Spec.Replicas) != v.replicas {
			t.Errorf("%s: ReplicaSets after the rollout: %+v", v.name, rs)
		}
	}
	// Another image, as the seed does it.
	s.apply(deployment("image", 2))
	s.rolledOut("image")
	if out := s.kubectl("set", "image", "deployment/image", "main=busybox:latest"); out != "deployment.apps/image image updated\n" {
		t.Errorf("set image printed %q", out)
	}
	s.rolledOut("image")
	for _, p := range s.pods("app=image") {
		if p.DeletionTimestamp == nil && p.Spec.Containers[0].Image != "busybox:latest" {
			t.Errorf("pod %s has the image %s", p.Name, p.Spec.Containers[0].Image)
		}
	}
}

func deployHistory(t *testing.T) {
	s := newSpace(t)
	s.apply(deployment("web", 2))
	s.rolledOut("web")
	s.kubectl("annotate", "deployment/web", "kubernetes.io/change-cause=first")
	s.kubectl("set", "env", "deployment/web", "VERSION=two")
	s.kubectl("annotate", "deployment/web", "kubernetes.io/change-cause=second", "--overwrite")
	s.rolledOut("web")
	s.eventually("two revisions", func() error {
		out := s.kubectl("rollout", "history", "deployment/web")
		if !regexp.MustCompile(`(?m)^1 +first\n2 +second$`).MatchString(out) {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	wantMatch(t, "rollout history --revision=2", s.kubectl("rollout", "history", "deployment/web", "--revision=2"), `^ +VERSION:\s+two$`, `^ +Labels:\s+app=web$`)
	if out := s.kubectl("rollout", "undo", "deployment/web"); out != "deployment.apps/web rolled back\n" {
		t.Errorf("undo printed %q", out)
	}
	s.rolledOut("web")
	if v := s.deployment("web").Spec.Template.Spec.Containers[0].Env[0].Value; v != "one" {
		t.Errorf("after undo VERSION is %s", v)
	}
	s.eventually("revisions 2 and 3", func() error {
		out := s.kubectl("rollout", "history", "deployment/web")
		if !regexp.MustCompile(`(?m)^2 +second\n3 +first$`).MatchString(out) {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	s.kubectl("rollout", "undo", "deployment/web", "--to-revision=2")
	s.rolledOut("web")
	if v := s.deployment("web").Spec.Template.Spec.Containers[0].Env[0].Value; v != "two" {
		t.Errorf("after undo --to-revision=2 VERSION is %s", v)
	}
	if rs := s.replicaSets("web"); len(rs) != 2 {
		t.Errorf("%d ReplicaSets, want the same 2", len(rs))
	}
	want(t, "undo to nowhere", s.refused("rollout", "undo", "deployment/web", "--to-revision=77"), "error: unable to find specified revision 77 in history")
}

func deployPause(t *testing.T) {
	s := newSpace(t)
	s.apply(deployment("web", 2))
	s.rolledOut("web")
	s.kubectl("set", "env", "deployment/web", "VERSION=zero")
	s.rolledOut("web")
	if out := s.kubectl("rollout", "pause", "deployment/web"); out != "deployment.apps/web paused\n" {
		t.Errorf("pause printed %q", out)
	}
	s.kubectl("set", "env", "deployment/web", "VERSION=two")
	s.kubectl("set", "env", "deployment/web", "MORE=yes")
	s.kubectl("scale", "deployment/web", "--replicas=3")
	d := s.waitDeployment("web", func(d *appsv1.Deployment) error {
		if d.Status.ObservedGeneration != d.Generation || d.Status.ReadyReplicas != 3 {
			return fmt.Errorf("%+v", d.Status)
		}
		return nil
	})
	if len(s.replicaSets("web")) != 2 || d.Status.UpdatedReplicas != 0 {
		t.Errorf("a paused Deployment rolled out: %+v", d.Status)
	}
	want(t, "undo while paused", s.refused("rollout", "undo", "deployment/web"), `you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume'`)
	if out := s.kubectl("rollout", "resume", "deployment/web"); out != "deployment.apps/web resumed\n" {
		t.Errorf("resume printed %q", out)
	}
	s.rolledOut("web")
	if rs := s.replicaSets("web"); len(rs) != 3 {
		t.Errorf("%d ReplicaSets after two changes in one pause, want 3", len(rs))
	}
}

func deployRestart(t *testing.T) {
	s := newSpace(t)
	s.apply(deployment("web", 2))
	s.rolledOut("web")
	before := map[string]bool{}
	for _, p := range s.pods("app=web") {
		before[p.Name] = true
	}
	if out := s.kubectl("rollout", "restart", "deployment/web"); out != "deployment.apps/web restarted\n" {
		t.Errorf("restart printed %q", out)
	}
	s.rolledOut("web")
	s.eventually("only new Pods", func() error {
		for _, p := range s.pods("app=web") {
			if before[p.Name] {
				return fmt.Errorf("%s is still there", p.Name)
			}
		}
		return nil
	})
}

func deployRecreate(t *testing.T) {
	s := newSpace(t)
	s.apply(deployment("web", 3, "strategy: {type: Recreate}"))
	s.rolledOut("web")
	old := s.replicaSets("web")[0].UID
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w, err := s.c.kube.CoreV1().Pods(s.ns).Watch(ctx, metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan string, 1)
	go func() {
		oldAlive, bad := map[string]bool{}, ""
		for e := range w.ResultChan() {
			p, ok := e.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			switch {
			case metav1.GetControllerOf(p).UID != old && e.Type == "ADDED":
				for name := range oldAlive {
					bad = fmt.Sprintf("%s was made while %s still ran", p.Name, name)
				}
			case metav1.GetControllerOf(p).UID == old && (e.Type == "DELETED" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed):
				delete(oldAlive, p.Name)
			case metav1.GetControllerOf(p).UID == old:
				oldAlive[p.Name] = true
			}
		}
		done <- bad
	}()
	s.kubectl("set", "env", "deployment/web", "VERSION=two")
	s.rolledOut("web")
	cancel()
	if bad := <-done; bad != "" {
		t.Error(bad)
	}
}

func deployHistoryLimit(t *testing.T) {
	s := newSpace(t)
	s.apply(deployment("web", 1, "revisionHistoryLimit: 2"))
	s.rolledOut("web")
	for i := range 4 {
		s.kubectl("set", "env", "deployment/web", fmt.Sprintf("VERSION=v%d", i))
		s.rolledOut("web")
	}
	s.eventually("3 ReplicaSets", func() error {
		rs := s.replicaSets("web")
		if len(rs) != 3 || rs[0].Annotations["deployment.kubernetes.io/revision"] != "3" {
			return fmt.Errorf("%d ReplicaSets, first of revision %v", len(rs), rs[0].Annotations)
		}
		return nil
	})
}

func deployDeadline(t *testing.T) {
	s := newSpace(t)
	s.apply(strings.ReplaceAll(deployment("web", 1, "progressDeadlineSeconds: 2"), "image: busybox", "image: nothing-like-it"))
	s.waitDeployment("web", func(d *appsv1.Deployment) error {
		for _, c := range d.Status.Conditions {
			if c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse && c.Reason == "ProgressDeadlineExceeded" {
				return nil
			}
		}
		return fmt.Errorf("%+v", d.Status.Conditions)
	})
	want(t, "rollout status", s.refused("rollout", "status", "deployment/web", "--timeout=20s"), `error: deployment "web" exceeded its progress deadline`)
	s.kubectl("set", "image", "deployment/web", "main=busybox")
	s.rolledOut("web")
}

// deployBothZero: percentages that both come to 0 would stand still, so 1 may be unavailable.
func deployBothZero(t *testing.T) {
	s := newSpace(t)
	s.apply(deployment("web", 2, "strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 10%}}"))
	s.rolledOut("web")
	stop := s.hold("web", 2, 1)
	s.kubectl("set", "env", "deployment/web", "VERSION=two")
	s.rolledOut("web")
	stop()
	want(t, "both 0", s.applyRefused(deployment("bad", 2, "strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}")),
		"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0")
}

// deployProportional: a scale in the middle of a rollout that stands is shared out by the size of the ReplicaSets.
func deployProportional(t *testing.T) {
	s := newSpace(t)
	s.apply(deployment("web", 10, "strategy: {rollingUpdate: {maxSurge: 3, maxUnavailable: 2}}"))
	s.rolledOut("web")
	s.kubectl("set", "image", "deployment/web", "main=nothing-like-it")
	sizes := func() string {
		out := ""
		for _, rs := range s.replicaSets("web") {
			out += fmt.Sprint(*rs.Spec.Replicas, " ")
		}
		return out
	}
	s.eventually("8 old, 5 new", func() error {
		if got := sizes(); got != "8 5 " {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	s.kubectl("scale", "deployment/web", "--replicas=15")
	s.eventually("11 old, 7 new", func() error {
		if got := sizes(); got != "11 7 " {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	s.kubectl("rollout", "undo", "deployment/web")
	s.rolledOut("web")
}

func deployBadSelector(t *testing.T) {
	s := newSpace(t)
	s.apply(deployment("web", 1))
	s.rolledOut("web")
	want(t, "a change of the selector", s.refused("patch", "deployment", "web", "--type=merge", "-p", `{"spec":{"selector":{"matchLabels":{"app":"other"}},"template":{"metadata":{"labels":{"app":"other"}}}}}`),
		"spec.selector: Invalid value", "field is immutable")
	want(t, "a selector that does not match", s.applyRefused(strings.Replace(deployment("bad", 1), "metadata: {labels: {app: bad}}", "metadata: {labels: {app: good}}", 1)),
		"spec.template.metadata.labels: Invalid value", "`selector` does not match template `labels`")
}
