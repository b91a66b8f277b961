package agent

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"carob.dev/carob/internal/agent/shutdown"

	podrule "carob.dev/carob/internal/api/pod"
)

// fakeLogin plays the machine's session manager.
type fakeLogin struct {
	downs chan bool
	locks atomic.Int32
}

func (l *fakeLogin) DelayMax() (time.Duration, error) { return time.Minute, nil }
func (l *fakeLogin) Shutdowns() <-chan bool           { return l.downs }
func (l *fakeLogin) Close() error                     { return nil }
func (l *fakeLogin) Delay() (io.Closer, error) {
	l.locks.Add(1)
	return &fakeLock{l: l}, nil
}

// fakeLock counts once.
type fakeLock struct {
	l      *fakeLogin
	closed bool
}

func (f *fakeLock) Close() error {
	if !f.closed {
		f.closed = true
		f.l.locks.Add(-1)
	}
	return nil
}

// TestMachineShutsDown: Pods end in the order of their priority and are told as Failed before the machine goes on, those that come meanwhile are
// refused, and a shutdown that is called off leaves a node that takes Pods.
func TestMachineShutsDown(t *testing.T) {
	b := newBench(t)
	b.stop()
	login := &fakeLogin{downs: make(chan bool)}
	b.cfg.ShutdownPeriods = shutdown.Periods(20*time.Second, 10*time.Second)
	b.cfg.OpenLogin = func(context.Context) (shutdown.Manager, error) { return login, nil }
	b.start()
	system, high := pod("system", corev1.RestartPolicyAlways, "s"), int32(podrule.SystemCritical)
	system.Spec.Priority = &high
	b.create(system)
	b.create(pod("usual", corev1.RestartPolicyAlways, "u"))
	b.untilPod("system", "runs", running(1))
	b.untilPod("usual", "runs", running(1))
	b.until("shutdowns wait", func() bool { return login.locks.Load() == 1 })

	b.runtime.mu.Lock()
	b.runtime.hangStop = true
	b.runtime.mu.Unlock()
	login.downs <- true
	over := func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed && p.Status.Reason == "Terminated" }
	asked := func(n int) func() bool {
		return func() bool {
			b.runtime.mu.Lock()
			defer b.runtime.mu.Unlock()
			return strings.Count(strings.Join(b.runtime.calls, ","), "StopContainer 10") == n
		}
	}
	b.until("the usual one is asked to end", asked(1))
	b.until("the node takes no Pods", func() bool {
		n, err := b.client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
		if err != nil {
			return false
		}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady {
				return c.Status == corev1.ConditionFalse && c.Message == "node is shutting down"
			}
		}
		return false
	})
	if over(b.get("system")) || login.locks.Load() != 1 {
		t.Error("a Pod of the system ended, or the machine went on, before the others had ended")
	}
	b.create(pod("late", corev1.RestartPolicyAlways, "l"))
	b.untilPod("late", "is refused", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodFailed && p.Status.Reason == "NodeShutdown"
	})
	b.runtime.exits("u", 0)
	b.until("that of the system is asked to end", asked(2))
	b.runtime.exits("s", 0)
	b.until("the machine goes on", func() bool { return login.locks.Load() == 0 })
	for _, name := range []string{"usual", "system"} {
		p := b.get(name)
		if !over(p) {
			t.Errorf("%s: %+v", name, p.Status)
		}
		disrupted := false
		for _, c := range p.Status.Conditions {
			disrupted = disrupted || c.Type == corev1.DisruptionTarget && c.Reason == corev1.PodReasonTerminationByKubelet
		}
		if !disrupted {
			t.Errorf("%s: no condition DisruptionTarget: %+v", name, p.Status.Conditions)
		}
	}

	b.runtime.mu.Lock()
	b.runtime.hangStop = false
	b.runtime.mu.Unlock()
	login.downs <- false
	b.until("the next shutdown waits", func() bool { return login.locks.Load() == 1 })
	b.create(pod("after", corev1.RestartPolicyAlways, "a"))
	b.untilPod("after", "runs", running(1))
}
