package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"carob.dev/carob/internal/config"
)

func coldStart(ctx context.Context, b *bench) ([]Result, error) {
	var took []time.Duration
	for range 5 {
		if err := b.close(); err != nil {
			return nil, err
		}
		began := time.Now()
		if _, err := b.fresh(ctx); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	return []Result{millis("cold start until usable", 1500, took)}, nil
}

func restart(ctx context.Context, b *bench) ([]Result, error) {
	c, err := b.carob(ctx)
	if err != nil {
		return nil, err
	}
	var took, ends []time.Duration
	for range 5 {
		began := time.Now()
		if err := c.stop(); err != nil {
			return nil, err
		}
		ends = append(ends, time.Since(began))
		began = time.Now()
		if err := c.up(ctx); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	return []Result{millis("restart until usable", 0, took), millis("  end of the daemon", 0, ends)}, nil
}

// memory reads the daemon's. MB are 1e6 bytes.
func (c *carob) memory(when string, budgets bool) ([]Result, error) {
	m, err := fields(fmt.Sprintf("/proc/%d/smaps_rollup", c.pid))
	if err != nil {
		return nil, err
	}
	anonymous, rss := 0.0, 0.0
	if budgets {
		anonymous, rss = 60, 120
	}
	mb := func(name string) float64 { return m[name] * 1024 / 1e6 }
	return []Result{summary("anonymous memory, "+when, "MB", anonymous, mb("Anonymous")), summary("  RSS, "+when, "MB", rss, mb("Rss")),
		summary("  PSS, "+when, "MB", 0, mb("Pss"))}, nil
}

func settle(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func memoryFresh(ctx context.Context, b *bench) ([]Result, error) {
	c, err := b.fresh(ctx)
	if err != nil {
		return nil, err
	}
	if err := settle(ctx, 20*time.Second); err != nil {
		return nil, err
	}
	return c.memory("fresh, idle", true)
}

// memoryKubectl has kubectl do what loads most into the server: OpenAPI in both versions, apply on both sides.
func memoryKubectl(ctx context.Context, b *bench) ([]Result, error) {
	c, err := b.fresh(ctx)
	if err != nil {
		return nil, err
	}
	manifest := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"applied"},"data":{"k":"v"}}`
	for _, args := range [][]string{{"explain", "pods.spec.containers"}, {"get", "all", "-A"}, {"apply", "-f", "-"}, {"apply", "--server-side", "--force-conflicts", "-f", "-"},
		{"get", "cm", "-A", "-o", "wide"}, {"describe", "node"}} {
		cmd := exec.CommandContext(ctx, c.binary, append([]string{"kubectl", "--kubeconfig", c.kubeconfig}, args...)...)
		cmd.Stdin = strings.NewReader(manifest)
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("kubectl %s: %w\n%s", args[0], err, bytes.TrimSpace(out))
		}
	}
	at, err := c.memory("while kubectl is used", false)
	if err != nil {
		return nil, err
	}
	if err := settle(ctx, time.Minute); err != nil {
		return nil, err
	}
	later, err := c.memory("a minute after kubectl", true)
	return append(at, later...), err
}

// idle is the share of a core that the daemon uses while nothing is asked of it, in percent.
func (c *carob) idle(ctx context.Context, d time.Duration) (float64, error) {
	before, err := cpuTime(c.pid)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := settle(ctx, d); err != nil {
		return 0, err
	}
	after, err := cpuTime(c.pid)
	if err != nil {
		return 0, err
	}
	return 100 * float64(after-before) / float64(time.Since(began)), nil
}

func cpuEmpty(ctx context.Context, b *bench) ([]Result, error) {
	c, err := b.carob(ctx)
	if err != nil {
		return nil, err
	}
	if err := settle(ctx, 15*time.Second); err != nil {
		return nil, err
	}
	v, err := c.idle(ctx, time.Minute)
	return []Result{summary("idle processor time, no Pods", "%", 0.5, v)}, err
}

func diskWrites(ctx context.Context, b *bench) ([]Result, error) {
	c, err := b.carob(ctx)
	if err != nil {
		return nil, err
	}
	if err := settle(ctx, 15*time.Second); err != nil {
		return nil, err
	}
	path := fmt.Sprintf("/proc/%d/io", c.pid)
	before, err := fields(path)
	if err != nil {
		return nil, err
	}
	if err := settle(ctx, 2*time.Minute); err != nil {
		return nil, err
	}
	after, err := fields(path)
	if err != nil {
		return nil, err
	}
	return []Result{summary("idle disk writes a minute", "KB", 100, (after["write_bytes"]-before["write_bytes"])/2/1e3)}, nil
}

func thirtyPods(ctx context.Context, b *bench) ([]Result, error) {
	c, err := b.fresh(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := b.carob(ctx); err != nil {
		return nil, err
	}
	if _, err := c.scaleUp(ctx, "thirty", 30); err != nil {
		return nil, err
	}
	if err := settle(ctx, 30*time.Second); err != nil {
		return nil, err
	}
	list, err := c.memory("30 Pods", false)
	if err != nil {
		return nil, err
	}
	v, err := c.idle(ctx, time.Minute)
	if err != nil {
		return nil, err
	}
	list = append(list, summary("idle processor time, 30 Pods", "%", 1, v))
	per, err := c.overhead()
	if err != nil {
		return nil, err
	}
	list = append(list, per...)
	d, err := c.scaleDown(ctx, "thirty")
	return append(list, millis("  30 replicas gone", 0, []time.Duration{d})), err
}

// overhead is what each Pod's shim and pause cost, kernel memory included, as their memory cgroups count it.
func (c *carob) overhead() ([]Result, error) {
	top := ""
	for _, dir := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		top = filepath.Join(dir, config.Default(c.root).CgroupRoot(), "shims")
		if _, err := os.Stat(top); err == nil {
			break
		}
	}
	shims, err := os.ReadDir(top)
	if err != nil {
		return nil, err
	}
	var all, kernel, anonymous []float64
	for _, s := range shims {
		dir := filepath.Join(top, s.Name())
		if !s.IsDir() {
			continue
		}
		usage, ok := number(filepath.Join(dir, "memory.usage_in_bytes"))
		if !ok {
			if usage, ok = number(filepath.Join(dir, "memory.current")); !ok {
				continue
			}
		}
		all = append(all, usage/1e6)
		if k, ok := number(filepath.Join(dir, "memory.kmem.usage_in_bytes")); ok {
			kernel = append(kernel, k/1e6)
		}
		raw, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		sum := 0.0
		for pid := range strings.FieldsSeq(string(raw)) {
			if m, err := fields("/proc/" + pid + "/smaps_rollup"); err == nil {
				sum += m["Pss"] * 1024 / 1e6
			}
		}
		anonymous = append(anonymous, sum)
	}
	return []Result{summary("per Pod: shim + pause + kernel (cgroup)", "MB", 1.4, all...), summary("  of which kernel", "MB", 0, kernel...),
		summary("  per Pod: PSS of shim + pause", "MB", 0.8, anonymous...)}, nil
}

func number(path string) (float64, bool) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(string(raw)), 64)
	return v, err == nil
}

// configMaps counts durable creates a second.
func configMaps(ctx context.Context, b *bench) ([]Result, error) {
	c, err := b.carob(ctx)
	if err != nil {
		return nil, err
	}
	one, err := c.writeConfigMaps(ctx, 1, 3*time.Second)
	if err != nil {
		return nil, err
	}
	many, err := c.writeConfigMaps(ctx, 16, 3*time.Second)
	if err != nil {
		return nil, err
	}
	r1, r16 := summary("ConfigMap creates, 1 writer", "/s", 400, one), summary("ConfigMap creates, 16 writers", "/s", 1200, many)
	r1.AtLeast, r16.AtLeast = true, true
	return []Result{r1, r16}, nil
}

func (c *carob) writeConfigMaps(ctx context.Context, writers int, d time.Duration) (float64, error) {
	ns := fmt.Sprintf("writers-%d", writers)
	if _, err := c.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	var n atomic.Int64
	errs := make(chan error, writers)
	began := time.Now()
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for k := 0; time.Since(began) < d; k++ {
				cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("c%d-%d", i, k)}, Data: map[string]string{"key": strings.Repeat("v", 200)}}
				if _, err := c.client.CoreV1().ConfigMaps(ns).Create(ctx, cm, metav1.CreateOptions{}); err != nil {
					errs <- err
					return
				}
				n.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	close(errs)
	if err := <-errs; err != nil {
		return 0, err
	}
	return float64(n.Load()) / took.Seconds(), c.client.CoreV1().Namespaces().Delete(ctx, ns, metav1.DeleteOptions{})
}
