package runtime

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestOneContainer(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	pod := b.pod(b.podConfig("one"))
	id := b.start(pod, containerConfig("c", "sh", "-c", "echo out; sleep 0.1; echo err >&2; sleep 0.1; hostname; printf unfinished; exit 3"))
	s := b.ended(id)
	if s.ExitCode != 3 || s.Reason != "Error" || s.StartedAt == 0 || s.FinishedAt < s.StartedAt {
		t.Errorf("status %v", s)
	}
	if d := cmp.Diff("stdout F out\nstderr F err\nstdout F one\nstdout P unfinished\n", b.log(id)); d != "" {
		t.Error(d)
	}
	ps, err := b.PodSandboxStatus(ctx, pod, true)
	if err != nil || ps.Status.State != runtimeapi.PodSandboxState_SANDBOX_READY || ps.Status.Network.Ip != "10.0.0.9" || len(ps.ContainersStatuses) != 1 {
		t.Errorf("%v %v", ps, err)
	}
	for range 2 {
		if err := b.StopPodSandbox(ctx, pod); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := b.RemovePodSandbox(ctx, pod); err != nil {
			t.Fatal(err)
		}
	}
}
