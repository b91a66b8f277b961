package agent

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestServerFollows follows a container's log until it ends and restarts: the stream ends with it, whole, and its successor's is another.
func TestServerFollows(t *testing.T) {
	b := newBench(t)
	b.create(pod("p", corev1.RestartPolicyAlways, "a"))
	b.untilPod("p", "runs", running(1))
	dir := filepath.Join(b.cfg.Root, "logs", "pods", "ns_p_uid-p", "a")
	write := func(name, text string) {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	const out, errs = "2026-01-02T03:04:05.6Z stdout F ", "2026-01-02T03:04:05.6Z stderr F "
	write("0.log", out+"one\n"+errs+"two\n")
	srv := httptest.NewServer(b.agent.Handler())
	defer srv.Close()
	get := func(query string) (*bufio.Reader, func()) {
		t.Helper()
		resp, err := http.Get(srv.URL + "/containerLogs/ns/p/a?" + query)
		if err != nil {
			t.Fatal(err)
		}
		return bufio.NewReader(resp.Body), func() { resp.Body.Close() }
	}
	all, end := get("follow=true")
	defer end()
	later, end := get("follow=true&tailLines=0")
	defer end()
	stdout, end := get("follow=true&stream=Stdout")
	defer end()
	for _, want := range []string{"one\n", "two\n"} {
		if got, err := all.ReadString('\n'); got != want {
			t.Errorf("%q, %v", got, err)
		}
	}
	if got, err := stdout.ReadString('\n'); got != "one\n" {
		t.Errorf("stdout: %q, %v", got, err)
	}
	time.Sleep(20 * time.Millisecond)
	write("0.log", errs+"three\n")
	if err := os.Rename(filepath.Join(dir, "0.log"), filepath.Join(dir, "0.log.20260102-030406.000")); err != nil {
		t.Fatal(err)
	}
	write("0.log", out+"four\n"+"2026-01-02T03:04:05.6Z stdout P no newline\n")
	b.runtime.exits("a", 1)
	for name, c := range map[string]struct {
		r    io.Reader
		want string
	}{"all": {all, "three\nfour\nno newline"}, "later": {later, "three\nfour\nno newline"}, "stdout": {stdout, "four\nno newline"}} {
		if rest, err := io.ReadAll(c.r); err != nil || string(rest) != c.want {
			t.Errorf("%s: %q, %v", name, rest, err)
		}
	}
	b.untilPod("p", "restarts", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 1 && running(1)(p) })
	write("1.log", out+"another life\n")
	for query, want := range map[string]string{"": "another life\n", "previous=true": "one\ntwo\nthree\nfour\nno newline", "previous=true&follow=true&tailLines=2": "four\nno newline"} {
		r, end := get(query)
		if got, err := io.ReadAll(r); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", query, got, err)
		}
		end()
	}
}

// TestShimDies holds that a Pod which loses its shim says so, and starts anew.
func TestShimDies(t *testing.T) {
	b := newBench(t)
	b.create(pod("p", corev1.RestartPolicyAlways, "a"))
	b.create(pod("never", corev1.RestartPolicyNever, "n"))
	b.untilPod("p", "runs", running(1))
	b.untilPod("never", "runs", running(1))
	b.runtime.shimsDie()
	b.untilPod("p", "runs again", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 1 && running(1)(p) })
	b.untilPod("never", "has failed", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	for name, state := range map[string]func(corev1.ContainerStatus) *corev1.ContainerStateTerminated{
		"p": func(s corev1.ContainerStatus) *corev1.ContainerStateTerminated {
			return s.LastTerminationState.Terminated
		},
		"never": func(s corev1.ContainerStatus) *corev1.ContainerStateTerminated { return s.State.Terminated },
	} {
		end := state(b.get(name).Status.ContainerStatuses[0])
		if end == nil || end.Reason != "ShimDied" || end.ExitCode != 255 || end.Message != "its shim died" {
			t.Errorf("%s: %+v", name, end)
		}
	}
	if events := b.eventTexts(); strings.Count(events, "Warning ShimDied its shim died") != 2 {
		t.Error(events)
	}
}

// shimsDie has every Pod lose its shim.
func (r *fakeRuntime) shimsDie() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			continue
		}
		s := r.sandboxes[c.sandbox]
		r.sandboxes[c.sandbox] = &runtimeapi.PodSandboxStatus{Id: s.GetId(), Metadata: s.GetMetadata(), State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY, Network: s.GetNetwork()}
		c.State, c.ExitCode, c.FinishedAt, c.Reason, c.Message = runtimeapi.ContainerState_CONTAINER_EXITED, 255, time.Now().UnixNano(), "ShimDied", "its shim died"
		r.tell(runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, c.Id, c.sandbox)
	}
}
