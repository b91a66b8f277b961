package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
)

const (
	namespace = "default"
	patience  = 60 * time.Second
)

// podSpec is a Pod that ends when it is told to.
func podSpec() corev1.PodSpec {
	return corev1.PodSpec{TerminationGracePeriodSeconds: ptr.To(int64(10)), Containers: []corev1.Container{{Name: "c", Image: "docker.io/library/busybox:latest",
		ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"}}}}
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: podSpec()}
}

// mark is when something of a Pod was first seen.
type mark struct {
	what string
	at   time.Time
}

// createOnce creates a Pod and watches it until it runs. It returns what was seen when.
func (c *carob) createOnce(ctx context.Context, name string) ([]mark, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	api := c.client.CoreV1().Pods(namespace)
	w, err := api.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return nil, err
	}
	defer w.Stop()
	marks := []mark{{"POST sent", time.Now()}}
	answered := make(chan error, 1)
	go func() {
		_, err := api.Create(ctx, pod(name), metav1.CreateOptions{})
		answered <- err
	}()
	see := func(what string) {
		if !slices.ContainsFunc(marks, func(m mark) bool { return m.what == what }) {
			marks = append(marks, mark{what, time.Now()})
		}
	}
	for {
		select {
		case err := <-answered:
			if err != nil {
				return nil, err
			}
			see("POST answered")
			answered = nil
		case ev, ok := <-w.ResultChan():
			if !ok {
				return nil, fmt.Errorf("Pod %s: the watch ended before it ran", name)
			}
			p, ok := ev.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			see("created")
			if p.Spec.NodeName != "" {
				see("bound")
			}
			if p.Status.Phase == corev1.PodRunning {
				see("Running")
				return marks, nil
			}
		}
	}
}

// deleteOnce deletes a Pod and watches until it is gone.
func (c *carob) deleteOnce(ctx context.Context, name string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	api := c.client.CoreV1().Pods(namespace)
	w, err := api.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return 0, err
	}
	defer w.Stop()
	began := time.Now()
	if err := api.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return 0, err
	}
	for ev := range w.ResultChan() {
		if ev.Type == watch.Deleted {
			return time.Since(began), nil
		}
	}
	return 0, fmt.Errorf("Pod %s: the watch ended before it was gone", name)
}

func (m mark) since(list []mark) time.Duration { return m.at.Sub(list[0].at) }

func createPod(ctx context.Context, b *bench) ([]Result, error) {
	c, err := b.carob(ctx)
	if err != nil {
		return nil, err
	}
	stages := map[string][]time.Duration{}
	for i := range b.runs + 2 {
		name := fmt.Sprintf("create-%d", i)
		marks, err := c.createOnce(ctx, name)
		if err != nil {
			return nil, err
		}
		if i >= 2 { // the first warm caches up
			for _, m := range marks[1:] {
				stages[m.what] = append(stages[m.what], m.since(marks))
			}
		}
		if _, err := c.deleteOnce(ctx, name); err != nil {
			return nil, err
		}
	}
	return []Result{
		millis("  POST to answer", 0, stages["POST answered"]), millis("  POST to bound", 0, stages["bound"]),
		millis("create to Running, one Pod", 60, stages["Running"]),
	}, nil
}

func deletePod(ctx context.Context, b *bench) ([]Result, error) {
	c, err := b.carob(ctx)
	if err != nil {
		return nil, err
	}
	var took []time.Duration
	for i := range b.runs {
		name := fmt.Sprintf("delete-%d", i)
		if _, err := c.createOnce(ctx, name); err != nil {
			return nil, err
		}
		time.Sleep(200 * time.Millisecond) // so that the shell has set its trap
		d, err := c.deleteOnce(ctx, name)
		if err != nil {
			return nil, err
		}
		took = append(took, d)
	}
	var atOnce []time.Duration
	for i := range b.runs {
		d, err := c.killOnce(ctx, fmt.Sprintf("kill-%d", i))
		if err != nil {
			return nil, err
		}
		atOnce = append(atOnce, d)
	}
	return []Result{millis("delete to gone, Pod obeys SIGTERM", 50, took), millis("delete to the end of its process, with no grace", 50, atOnce)}, nil
}

// traceCreate runs a Carob that logs each of the agent's actions, and lays what the client saw beside them.
func traceCreate(ctx context.Context, b *bench) ([]Result, error) {
	if _, err := b.fresh(ctx, "--log-level", "debug"); err != nil {
		return nil, err
	}
	c, err := b.carob(ctx)
	if err != nil {
		return nil, err
	}
	byStage := map[string][]time.Duration{}
	var order []string
	for i := range b.runs + 2 {
		name := fmt.Sprintf("trace-%d", i)
		marks, err := c.createOnce(ctx, name)
		if err != nil {
			return nil, err
		}
		actions, err := actionsOf(filepath.Join(c.root, "carob.log"), namespace+"/"+name)
		if err != nil {
			return nil, err
		}
		start := marks[0]
		marks = append(marks, actions...)
		slices.SortStableFunc(marks, func(a, b mark) int { return a.at.Compare(b.at) })
		for _, m := range marks {
			if m == start || i < 2 {
				continue
			}
			if byStage[m.what] == nil {
				order = append(order, m.what)
			}
			byStage[m.what] = append(byStage[m.what], m.at.Sub(start.at))
		}
		if _, err := c.deleteOnce(ctx, name); err != nil {
			return nil, err
		}
	}
	var list []Result
	for _, what := range order {
		list = append(list, millis("  POST to "+what, 0, byStage[what]))
	}
	slices.SortStableFunc(list, func(a, b Result) int { return int(1000*a.Median - 1000*b.Median) })
	return list, b.close()
}

// actionsOf reads when the agent began what for a Pod, from its log.
func actionsOf(log, pod string) ([]mark, error) {
	f, err := os.Open(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []mark
	for s := bufio.NewScanner(f); s.Scan(); {
		line := s.Text()
		if !strings.Contains(line, "msg=action") || !strings.Contains(line, " pod="+pod+" ") {
			continue
		}
		stamp, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil {
			return nil, err
		}
		_, verb, _ := strings.Cut(line, " verb=")
		if rest, ok := strings.CutPrefix(verb, `"`); ok {
			verb, _, _ = strings.Cut(rest, `"`)
		} else {
			verb, _, _ = strings.Cut(verb, " ")
		}
		list = append(list, mark{"agent: " + verb, at})
	}
	return list, nil
}

func deployment(name string, n int32) *appsv1.Deployment {
	l := map[string]string{"app": name}
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{Replicas: &n,
		Selector: &metav1.LabelSelector{MatchLabels: l}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: podSpec()}}}
}

// replicas measures from the Deployment's POST until its status has all of them Ready.
func replicas(n int32, budget float64, runs int) func(context.Context, *bench) ([]Result, error) {
	return func(ctx context.Context, b *bench) ([]Result, error) {
		c, err := b.carob(ctx)
		if err != nil {
			return nil, err
		}
		var took, gone []time.Duration
		for i := range runs {
			name := fmt.Sprintf("d%d-%d", n, i)
			d, err := c.scaleUp(ctx, name, n)
			if err != nil {
				return nil, err
			}
			took = append(took, d)
			if d, err = c.scaleDown(ctx, name); err != nil {
				return nil, err
			}
			gone = append(gone, d)
		}
		return []Result{millis(fmt.Sprintf("%d replicas all Ready", n), budget, took), millis(fmt.Sprintf("  %d replicas gone", n), 0, gone)}, nil
	}
}

func (c *carob) scaleUp(ctx context.Context, name string, n int32) (time.Duration, error) {
	return c.ready(ctx, deployment(name, n))
}

// ready creates the Deployment and waits until all its replicas are Ready.
func (c *carob) ready(ctx context.Context, d *appsv1.Deployment) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	api := c.client.AppsV1().Deployments(namespace)
	w, err := api.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + d.Name})
	if err != nil {
		return 0, err
	}
	defer w.Stop()
	began := time.Now()
	if _, err := api.Create(ctx, d, metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	for ev := range w.ResultChan() {
		if now, ok := ev.Object.(*appsv1.Deployment); ok && now.Status.ReadyReplicas == *d.Spec.Replicas {
			return time.Since(began), nil
		}
	}
	return 0, fmt.Errorf("Deployment %s: the watch ended before it was Ready", d.Name)
}

func (c *carob) scaleDown(ctx context.Context, name string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	began := time.Now()
	if err := c.client.AppsV1().Deployments(namespace).Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}); err != nil {
		return 0, err
	}
	for {
		list, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + name})
		if err != nil {
			return 0, err
		}
		if len(list.Items) == 0 {
			return time.Since(began), nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}
