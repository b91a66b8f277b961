package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/config"
)

// ends is how many Pods at either end of the row are compared.
const ends = 25

// follower sees through one watch how Pods come and go. A watch for each Pod would cost the server the more the more Pods there are.
type follower struct {
	mu      sync.Mutex // guards waiting
	waiting map[string]chan struct{}
	stop    func()
	ended   chan struct{}
}

// follow begins with what happens from now on. A watch that the server ends, as it does with those that lag behind in a burst, is taken up
// again where it was.
func (c *carob) follow(ctx context.Context) (*follower, error) {
	pods := c.client.CoreV1().Pods(namespace)
	now, err := pods.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	w, err := watchtools.NewRetryWatcherWithContext(ctx, now.ResourceVersion, &cache.ListWatch{WatchFuncWithContext: pods.Watch})
	if err != nil {
		return nil, err
	}
	f := &follower{waiting: map[string]chan struct{}{}, stop: w.Stop, ended: make(chan struct{})}
	go func() {
		defer close(f.ended)
		for ev := range w.ResultChan() {
			p, ok := ev.Object.(*corev1.Pod)
			switch {
			case !ok:
			case ev.Type == watch.Deleted:
				f.seen("gone " + p.Name)
			case p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil:
				f.seen("runs " + p.Name)
			}
		}
	}()
	return f, nil
}

func (f *follower) seen(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ch := f.waiting[what]; ch != nil {
		close(ch)
		delete(f.waiting, what)
	}
}

// until does something and waits for what follows of it.
func (f *follower) until(ctx context.Context, what string, do func() error) (time.Duration, error) {
	ch := make(chan struct{})
	f.mu.Lock()
	f.waiting[what] = ch
	f.mu.Unlock()
	began := time.Now()
	if err := do(); err != nil {
		return 0, err
	}
	select {
	case <-ch:
		return time.Since(began), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-f.ended:
		return 0, fmt.Errorf("%s: the watch ended", what)
	case <-time.After(patience):
		return 0, fmt.Errorf("%s: not seen in %v", what, patience)
	}
}

// density creates Pods one after the other until the node is full, lists them, and deletes them: what many Pods cost, and whether each costs
// the more the more there are.
func density(ctx context.Context, b *bench) ([]Result, error) {
	c, err := b.fresh(ctx, "--node-cidr-mask-size", "21", "--max-pods", fmt.Sprint(b.pods+100))
	if err != nil {
		return nil, err
	}
	if _, err := b.carob(ctx); err != nil {
		return nil, err
	}
	f, err := c.follow(ctx)
	if err != nil {
		return nil, err
	}
	defer f.stop()
	name := func(i int) string { return fmt.Sprintf("dense-%d", i) }
	create := func(name string) (time.Duration, error) {
		return f.until(ctx, "runs "+name, func() error {
			_, err := c.client.CoreV1().Pods(namespace).Create(ctx, pod(name), metav1.CreateOptions{})
			return err
		})
	}
	remove := func(name string) (time.Duration, error) {
		return f.until(ctx, "gone "+name, func() error {
			return c.client.CoreV1().Pods(namespace).Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(1))})
		})
	}
	for i := range 3 { // caches
		if _, err := create(fmt.Sprintf("first-%d", i)); err != nil {
			return nil, err
		}
		if _, err := remove(fmt.Sprintf("first-%d", i)); err != nil {
			return nil, err
		}
	}
	list, err := c.memory("no Pods", false)
	if err != nil {
		return nil, err
	}
	var starts, removals []time.Duration
	var worked [4]work
	began := time.Now()
	for i := range b.pods {
		for at, n := range []int{0, ends, b.pods - ends} {
			if i == n {
				worked[at] = c.worked()
			}
		}
		d, err := create(name(i))
		if err != nil {
			return nil, err
		}
		starts = append(starts, d)
	}
	all := time.Since(began)
	worked[3] = c.worked()
	first, last := millis(fmt.Sprintf("start of a Pod, the first %d", ends), 0, starts[:ends]), millis(fmt.Sprintf("start of a Pod, the last %d of %d", ends, b.pods), 0, starts[len(starts)-ends:])
	list = append(list, summary(fmt.Sprintf("%d Pods created one by one", b.pods), "s", 0, all.Seconds()), first, last,
		summary("  the last by the first", "x", 1.5, last.Median/first.Median))
	for _, w := range []struct {
		what string
		of   func(work) time.Duration
	}{{"the daemon", func(w work) time.Duration { return w.daemon }}, {"shims, OCI runtime, containers", func(w work) time.Duration { return w.pods }},
		{"all", func(w work) time.Duration { return w.daemon + w.pods }}} {
		a, b := w.of(worked[1])-w.of(worked[0]), w.of(worked[3])-w.of(worked[2])
		list = append(list, millis("  processor time of a start, first: "+w.what, 0, []time.Duration{a / ends}),
			millis("  processor time of a start, last: "+w.what, 0, []time.Duration{b / ends}))
	}
	var listed []time.Duration
	for range 7 {
		began := time.Now()
		pods, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		if len(pods.Items) != b.pods {
			return nil, fmt.Errorf("%d Pods are listed, not %d", len(pods.Items), b.pods)
		}
		listed = append(listed, time.Since(began))
	}
	list = append(list, millis(fmt.Sprintf("list of %d Pods over the API", b.pods), 0, listed))
	if err := settle(ctx, 20*time.Second); err != nil {
		return nil, err
	}
	mem, err := c.memory(fmt.Sprintf("%d Pods", b.pods), false)
	if err != nil {
		return nil, err
	}
	per, err := c.overhead()
	if err != nil {
		return nil, err
	}
	idle, err := c.idle(ctx, 20*time.Second)
	if err != nil {
		return nil, err
	}
	list = append(append(list, mem...), per...)
	list = append(list, summary(fmt.Sprintf("idle processor time, %d Pods", b.pods), "%", 0, idle))
	for i := range ends {
		d, err := remove(name(i))
		if err != nil {
			return nil, err
		}
		removals = append(removals, d)
	}
	list = append(list, millis(fmt.Sprintf("delete of a Pod among %d", b.pods), 0, removals))
	began = time.Now()
	for i := ends; i < b.pods-ends; i++ {
		if err := c.client.CoreV1().Pods(namespace).Delete(ctx, name(i), metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(1))}); err != nil {
			return nil, err
		}
	}
	for {
		pods, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		if len(pods.Items) <= ends {
			break
		}
		if err := settle(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
	list = append(list, summary(fmt.Sprintf("%d Pods deleted at once", b.pods-2*ends), "s", 0, time.Since(began).Seconds()))
	removals = nil
	for i := b.pods - ends; i < b.pods; i++ {
		d, err := remove(name(i))
		if err != nil {
			return nil, err
		}
		removals = append(removals, d)
	}
	list = append(list, millis(fmt.Sprintf("delete of a Pod, the last %d", ends), 0, removals))
	return list, b.close()
}

// work is processor time that was used: it tells what something costs also on a machine that does other things.
type work struct{ daemon, pods time.Duration }

func (c *carob) worked() (w work) {
	w.daemon, _ = cpuTime(c.pid)
	root := config.Default(c.root).CgroupRoot()
	if ns, ok := number("/sys/fs/cgroup/cpuacct/" + root + "/cpuacct.usage"); ok {
		w.pods = time.Duration(ns)
	} else if f, err := fields("/sys/fs/cgroup/" + root + "/cpu.stat"); err == nil {
		w.pods = time.Duration(f["usage_usec"]) * time.Microsecond
	}
	return w
}
