//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// deployComesBack: a Pod that is deleted is replaced.
func deployComesBack(t *testing.T) {
	s := newSpace(t)
	s.apply(deployment("web", 2))
	s.rolledOut("web")
	first := s.pods("app=web")
	start := time.Now()
	s.kubectl("delete", "pod", first[0].Name)
	s.eventually("another Pod", func() error {
		pods := s.pods("app=web")
		for _, p := range pods {
			if p.Name == first[0].Name || !hasCondition(&p, corev1.PodReady, corev1.ConditionTrue) {
				return fmt.Errorf("%s %s", p.Name, p.Status.Phase)
			}
		}
		if len(pods) != 2 {
			return fmt.Errorf("%d Pods", len(pods))
		}
		return nil
	})
	t.Logf("a deleted Pod was replaced after %s", time.Since(start).Round(time.Millisecond))
}

// deployKilled: all processes of a Pod die at once, its shim and pause too.
func deployKilled(t *testing.T) {
	s := newSpace(t)
	s.apply(deployment("web", 2))
	s.rolledOut("web")
	p := s.pods("app=web")[0]
	pause := s.pause(&p, "main")
	all := allProcesses()
	doomed := []int{pause.parent}
	for again := true; again; {
		again = false
		for _, proc := range all {
			if slices.Contains(doomed, proc.parent) && !slices.Contains(doomed, proc.pid) {
				doomed, again = append(doomed, proc.pid), true
			}
		}
	}
	if len(doomed) < 4 {
		t.Fatalf("only %v to kill", doomed)
	}
	for _, pid := range doomed {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	s.eventually("two Pods that run", func() error {
		pods, restarts := s.pods("app=web"), 0
		for _, q := range pods {
			if !hasCondition(&q, corev1.PodReady, corev1.ConditionTrue) {
				return fmt.Errorf("%s is not ready: %+v", q.Name, q.Status.ContainerStatuses)
			}
			restarts += int(status(&q, "main").RestartCount)
		}
		if len(pods) != 2 || restarts != 1 {
			return fmt.Errorf("%d Pods, %d restarts", len(pods), restarts)
		}
		return nil
	})
	s.kubectl("delete", "pod", p.Name, "--timeout=20s")
	kills := 0
	l, err := s.c.kube.CoreV1().Events(s.ns).List(context.Background(), metav1.ListOptions{FieldSelector: "reason=Killing,involvedObject.name=" + p.Name})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range l.Items {
		kills += int(max(e.Count, 1))
	}
	if kills > 2 {
		t.Errorf("one container was reported as stopping %d times", kills)
	}
}
