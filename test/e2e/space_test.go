//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// patience is how long anything that should come at once may take on a machine that is busy with other tests.
const patience = 30 * time.Second

// space is a namespace of one test, and the stock kubectl in it.
type space struct {
	*testing.T
	c  *cluster
	ns string
}

var notName = regexp.MustCompile(`[^a-z0-9]+`)

// newSpace makes a namespace in the shared cluster. The test may run beside others.
func newSpace(t *testing.T) *space {
	t.Helper()
	t.Parallel()
	return shared.space(t)
}

// space makes a namespace that goes with the test.
func (c *cluster) space(t *testing.T) *space {
	t.Helper()
	s := &space{T: t, c: c, ns: strings.Trim(notName.ReplaceAllString(strings.ToLower(t.Name()), "-"), "-")}
	if len(s.ns) > 60 {
		s.ns = s.ns[:60]
	}
	s.kubectl("create", "namespace", s.ns)
	s.eventually("the default service account", func() error {
		_, err := c.kube.CoreV1().ServiceAccounts(s.ns).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	t.Cleanup(func() {
		if t.Failed() && !c.gone {
			s.show()
		}
		if !c.gone {
			s.try("delete", "pods", "--all", "--grace-period=1", "--wait=false")
			s.try("delete", "namespace", s.ns, "--wait=false")
		}
	})
	return s
}

// show logs what a person would look at first.
func (s *space) show() {
	for _, args := range [][]string{{"get", "pods,deploy,rs", "-o", "wide"}, {"get", "events", "--sort-by=.lastTimestamp"}} {
		out, stderr, _ := s.try(args...)
		if len(out) > 6000 {
			out = out[len(out)-6000:]
		}
		s.Logf("kubectl %s\n%s%s", strings.Join(args, " "), out, stderr)
	}
}

// run runs kubectl in the host with the given standard input.
func (s *space) run(stdin string, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := s.command(ctx, args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

func (s *space) command(ctx context.Context, args ...string) *exec.Cmd {
	return s.c.command(ctx, kubectlBinary, append([]string{"-n", s.ns}, args...)...)
}

func (s *space) try(args ...string) (stdout, stderr string, err error) { return s.run("", args...) }

// kubectl must work; it returns what it printed.
func (s *space) kubectl(args ...string) string {
	s.Helper()
	out, stderr, err := s.try(args...)
	if err != nil {
		s.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr)
	}
	return out
}

// refused must fail; it returns what kubectl wrote to standard error.
func (s *space) refused(args ...string) string {
	s.Helper()
	out, stderr, err := s.try(args...)
	if err == nil {
		s.Fatalf("kubectl %s should have failed, but printed:\n%s%s", strings.Join(args, " "), out, stderr)
	}
	return stderr
}

// apply applies a manifest, and returns what kubectl printed.
func (s *space) apply(manifest string, more ...string) string {
	s.Helper()
	out, stderr, err := s.run(manifest, append([]string{"apply", "-f", "-"}, more...)...)
	if err != nil {
		s.Fatalf("kubectl apply: %v\n%s%s\n%s", err, out, stderr, manifest)
	}
	return out
}

// applyRefused applies a manifest that must be refused, and returns the words.
func (s *space) applyRefused(manifest string, more ...string) string {
	s.Helper()
	out, stderr, err := s.run(manifest, append([]string{"apply", "-f", "-"}, more...)...)
	if err == nil {
		s.Fatalf("kubectl apply should have failed, but printed %s%s\n%s", out, stderr, manifest)
	}
	return stderr
}

// sh runs a script in a container by kubectl exec; container may be empty.
func (s *space) sh(pod, container, script string) string {
	s.Helper()
	args := []string{"exec", pod}
	if container != "" {
		args = append(args, "-c", container)
	}
	return s.kubectl(append(args, "--", "sh", "-c", script)...)
}

// eventually asks again until f is content.
func (s *space) eventually(what string, f func() error) {
	s.Helper()
	eventually(s.T, what, f)
}

func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	within(t, patience, what, f)
}

func within(t testing.TB, limit time.Duration, what string, f func() error) {
	t.Helper()
	tick := time.NewTicker(40 * time.Millisecond)
	defer tick.Stop()
	var err error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); <-tick.C {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: not within %s: %v", what, limit, err)
}

// pod reads a Pod; it must be there.
func (s *space) pod(name string) *corev1.Pod {
	s.Helper()
	p, err := s.c.kube.CoreV1().Pods(s.ns).Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		s.Fatalf("get pod %s: %v", name, err)
	}
	return p
}

// waitPod waits until the Pod is as wanted: want returns why it is not yet.
func (s *space) waitPod(name string, want func(*corev1.Pod) error) *corev1.Pod {
	s.Helper()
	var p *corev1.Pod
	s.eventually("pod "+name, func() (err error) {
		if p, err = s.c.kube.CoreV1().Pods(s.ns).Get(context.Background(), name, metav1.GetOptions{}); err != nil {
			return err
		}
		return want(p)
	})
	return p
}

// ready waits by kubectl for a Pod.
func (s *space) ready(names ...string) *corev1.Pod {
	s.Helper()
	for _, n := range names {
		s.kubectl("wait", "--for=condition=Ready", "--timeout=30s", "pod/"+n)
	}
	return s.pod(names[0])
}

// phase waits for a phase.
func (s *space) phase(name string, phase corev1.PodPhase) *corev1.Pod {
	s.Helper()
	return s.waitPod(name, func(p *corev1.Pod) error {
		if p.Status.Phase != phase {
			return fmt.Errorf("phase %s (%s %s), want %s", p.Status.Phase, p.Status.Reason, p.Status.Message, phase)
		}
		return nil
	})
}

// waitGone waits until the Pod is no more.
func (s *space) waitGone(name string) {
	s.Helper()
	s.eventually("end of pod "+name, func() error {
		_, err := s.c.kube.CoreV1().Pods(s.ns).Get(context.Background(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("still there: %v", err)
	})
}

// pods lists by selector.
func (s *space) pods(selector string) []corev1.Pod {
	s.Helper()
	l, err := s.c.kube.CoreV1().Pods(s.ns).List(context.Background(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		s.Fatal(err)
	}
	return l.Items
}

// event waits for an event of an object with the given reason and a part of its message.
func (s *space) event(object, reason, message string) corev1.Event {
	s.Helper()
	var found corev1.Event
	s.eventually(fmt.Sprintf("event %s of %s with %q", reason, object, message), func() error {
		l, err := s.c.kube.CoreV1().Events(s.ns).List(context.Background(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + object})
		if err != nil {
			return err
		}
		var seen []string
		for _, e := range l.Items {
			if e.Reason == reason && strings.Contains(e.Message, message) {
				found = e
				return nil
			}
			seen = append(seen, e.Reason+": "+e.Message)
		}
		return errors.New("only:\n" + strings.Join(seen, "\n"))
	})
	return found
}

// status of a container, init or main.
func status(p *corev1.Pod, container string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == container {
				return &list[i]
			}
		}
	}
	return &corev1.ContainerStatus{}
}

// curl asks from the host, as its user would.
func (s *space) curl(url string, more ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := s.c.command(ctx, "curl", append([]string{"-sS", "--max-time", "5", "-f", url}, more...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("curl %s: %w: %s", url, err, out)
	}
	return string(out), nil
}

// want fails unless text has every part.
func want(t testing.TB, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s lacks %q:\n%s", what, p, text)
		}
	}
}

// wantMatch fails unless text matches every expression.
func wantMatch(t testing.TB, what, text string, expressions ...string) {
	t.Helper()
	for _, e := range expressions {
		if !regexp.MustCompile("(?m)" + e).MatchString(text) {
			t.Errorf("%s does not match %s:\n%s", what, e, text)
		}
	}
}
