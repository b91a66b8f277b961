package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/config"
	"carob.dev/carob/internal/network"
	"carob.dev/carob/internal/runtime"
	"carob.dev/carob/internal/runtime/image"
	"carob.dev/carob/internal/sys"
)

// podRuntime is the Pod runtime alone, in this process.
type podRuntime struct {
	*runtime.Runtime
	cfg     config.Config
	images  *image.Store
	network *network.Network
	count   int
	points  *pointReader
}

func openPodRuntime(ctx context.Context, b *bench, points *pointReader) (r *podRuntime, err error) {
	b.count++
	r = &podRuntime{cfg: config.Default(filepath.Join(b.dir, fmt.Sprint("root", b.count))), points: points}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if r.images, err = image.Open(ctx, image.Config{Dir: r.cfg.Path("images"), Log: log, InUse: func(string) bool { return true }}); err != nil {
		return nil, err
	}
	archive, err := os.Open(filepath.Join(b.images, "busybox.tar"))
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	if _, err := r.images.Import(ctx, archive, nil); err != nil {
		return nil, err
	}
	r.network, err = network.New(ctx, network.Config{NFTable: r.cfg.NFTable(), Dir: r.cfg.Path("network"), PodCIDRs: []netip.Prefix{r.cfg.PodCIDR}, Log: log,
		NodeCIDRs: []netip.Prefix{netip.PrefixFrom(r.cfg.PodCIDR.Addr(), 21)}})
	if err != nil {
		return nil, err
	}
	return r, r.open(ctx, 0)
}

func (r *podRuntime) open(ctx context.Context, warm int) (err error) {
	r.Runtime, err = runtime.New(ctx, runtime.Config{Root: r.cfg.Root, RunDir: r.cfg.RunDir(), CgroupRoot: r.cfg.CgroupRoot(), Images: r.images,
		Network: r.network, OCIRuntimes: r.cfg.OCIRuntimes, WarmSandboxes: warm, Log: slog.New(slog.DiscardHandler)})
	return err
}

func (r *podRuntime) close(ctx context.Context, b *bench) error {
	list, err := r.ListPodSandbox(ctx, nil)
	for _, sb := range list {
		err = errors.Join(err, r.RemovePodSandbox(ctx, sb.Id))
	}
	err = errors.Join(err, r.Close(ctx), r.network.Close(), r.images.Close(ctx))
	return errors.Join(err, (&carob{binary: b.binary}).do(ctx, "uninstall", "--root", r.cfg.Root))
}

// lap is how long the parts of one Pod's way took.
type lap struct{ run, create, start, stop, remove time.Duration }

// up brings a Pod with one container up.
func (r *podRuntime) up(ctx context.Context, name string) (id string, l lap, err error) {
	cfg := &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Uid: name, Namespace: "default"}, Hostname: name,
		LogDirectory: r.cfg.Path("logs", name), Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: "/" + r.cfg.CgroupRoot() + "/kubepods/pod" + name,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}}}}
	if err := sys.CgroupCreate(cfg.Linux.CgroupParent, sys.Resources{}); err != nil { // the agent's work
		return "", l, err
	}
	began := time.Now()
	if id, err = r.RunPodSandbox(ctx, cfg, ""); err != nil {
		return "", l, err
	}
	l.run = time.Since(began)
	began = time.Now()
	c, err := r.CreateContainer(ctx, id, &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, LogPath: "c.log",
		Image: &runtimeapi.ImageSpec{Image: "docker.io/library/busybox:latest"}, Command: []string{"sleep", "1000"},
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
			Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}}}}, cfg)
	if err != nil {
		return "", l, err
	}
	l.create = time.Since(began)
	began = time.Now()
	err = r.StartContainer(ctx, c)
	l.start = time.Since(began)
	return id, l, err
}

func (r *podRuntime) down(ctx context.Context, id string, l *lap) error {
	began := time.Now()
	if err := r.StopPodSandbox(ctx, id); err != nil {
		return err
	}
	l.stop = time.Since(began)
	began = time.Now()
	err := r.RemovePodSandbox(ctx, id)
	l.remove = time.Since(began)
	return err
}

// laps leads Pods through one after the other, with a pause in which warm sandboxes are made.
func (r *podRuntime) laps(ctx context.Context, n int, pause time.Duration) (laps []lap, err error) {
	for i := range n + 2 {
		r.count++
		id, l, err := r.up(ctx, fmt.Sprint("p", r.count))
		if err != nil {
			return nil, err
		}
		if err := r.down(ctx, id, &l); err != nil {
			return nil, err
		}
		if i >= 2 { // the first fill caches
			laps = append(laps, l)
		}
		if err := settle(ctx, pause); err != nil {
			return nil, err
		}
	}
	return laps, nil
}

func (b *bench) lapResults(how string, budget float64, laps []lap) []Result {
	pick := func(f func(lap) time.Duration) (list []time.Duration) {
		for _, l := range laps {
			list = append(list, f(l))
		}
		return list
	}
	return []Result{
		millis("Pod up ("+how+"): RunPodSandbox, CreateContainer, StartContainer", budget, pick(func(l lap) time.Duration { return l.run + l.create + l.start })),
		millis("  RunPodSandbox", 0, pick(func(l lap) time.Duration { return l.run })), millis("  CreateContainer", 0, pick(func(l lap) time.Duration { return l.create })),
		millis("  StartContainer", 0, pick(func(l lap) time.Duration { return l.start })),
		millis("Pod down ("+how+"): StopPodSandbox, RemovePodSandbox", 15, pick(func(l lap) time.Duration { return l.stop + l.remove })),
		millis("  StopPodSandbox", 0, pick(func(l lap) time.Duration { return l.stop })), millis("  RemovePodSandbox", 0, pick(func(l lap) time.Duration { return l.remove })),
	}
}

// runtimeAlone measures the Pod runtime without API and agent.
func runtimeAlone(ctx context.Context, b *bench) (list []Result, err error) {
	if err := b.close(); err != nil {
		return nil, err
	}
	points, err := readPoints(filepath.Join(b.dir, "points"))
	if err != nil {
		return nil, err
	}
	r, err := openPodRuntime(ctx, b, points)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close(ctx, b)) }()
	cold, err := r.laps(ctx, b.runs, 60*time.Millisecond)
	if err != nil {
		return nil, err
	}
	list = b.lapResults("cold", 45, cold)
	if err := errors.Join(r.Close(ctx), r.open(ctx, 4)); err != nil {
		return nil, err
	}
	if err := settle(ctx, time.Second); err != nil {
		return nil, err
	}
	warm, err := r.laps(ctx, b.runs, 200*time.Millisecond)
	if err != nil {
		return nil, err
	}
	list = append(list, b.lapResults("warm", 30, warm)...)
	if err := errors.Join(r.Close(ctx), r.open(ctx, 0)); err != nil {
		return nil, err
	}
	var took, gone []time.Duration
	for range 3 {
		d, ids, err := r.atOnce(ctx, 30)
		if err != nil {
			return nil, err
		}
		took = append(took, d)
		began := time.Now()
		for _, id := range ids {
			if err := r.down(ctx, id, &lap{}); err != nil {
				return nil, err
			}
		}
		gone = append(gone, time.Since(began))
	}
	list = append(list, millis("30 Pods at once", 600, took), millis("  and down, one by one", 0, gone))
	steps, err := r.steps(ctx, b.runs)
	return append(list, steps...), err
}

// atOnce brings Pods up at the same time.
func (r *podRuntime) atOnce(ctx context.Context, n int) (d time.Duration, ids []string, err error) {
	ids = make([]string, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range n {
		r.count++
		name := fmt.Sprint("p", r.count)
		wg.Go(func() { ids[i], _, errs[i] = r.up(ctx, name) })
	}
	wg.Wait()
	return time.Since(began), ids, errors.Join(errs...)
}

// pointReader notes when the runtime comes to its fail points: they stand between all of its side effects, so they tell where the time goes.
type pointReader struct {
	mu    sync.Mutex // guards marks
	marks []mark
}

// readPoints must be called before anything that has fail points.
func readPoints(path string) (*pointReader, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	p := &pointReader{}
	go func() {
		for s := bufio.NewScanner(f); s.Scan(); {
			p.mu.Lock()
			p.marks = append(p.marks, mark{s.Text(), time.Now()})
			p.mu.Unlock()
		}
	}()
	return p, os.Setenv("CAROB_FAILPOINT_LIST", path)
}

func (p *pointReader) take() []mark {
	time.Sleep(5 * time.Millisecond) // the last ones are on their way
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.marks
	p.marks = nil
	return list
}

// steps is where the time of a Pod's way goes: each line is the time until that point since the one before.
func (r *podRuntime) steps(ctx context.Context, n int) ([]Result, error) {
	took := map[string][]time.Duration{}
	var order []string
	for range n {
		r.count++
		r.points.take()
		marks := []mark{{"", time.Now()}}
		id, _, err := r.up(ctx, fmt.Sprint("p", r.count))
		if err != nil {
			return nil, err
		}
		marks = append(marks, r.points.take()...)
		began := time.Now()
		if err := r.down(ctx, id, &lap{}); err != nil {
			return nil, err
		}
		down := append([]mark{{"", began}}, r.points.take()...)
		for _, list := range [][]mark{marks, down} {
			seen := map[string]int{}
			for i, m := range list[1:] {
				seen[m.what]++
				name := fmt.Sprintf("  step %s", m.what)
				if seen[m.what] > 1 {
					name = fmt.Sprintf("%s, %d", name, seen[m.what])
				}
				if !slices.Contains(order, name) {
					order = append(order, name)
				}
				took[name] = append(took[name], m.at.Sub(list[i].at))
			}
		}
		if err := settle(ctx, 60*time.Millisecond); err != nil {
			return nil, err
		}
	}
	var list []Result
	for _, name := range order {
		if len(took[name]) > n/2 && !strings.Contains(name, "sys/") {
			list = append(list, millis(name, 0, took[name]))
		}
	}
	return list, nil
}

// runtimeDensity compares a Pod's way through the runtime with none beside it and with many.
func runtimeDensity(ctx context.Context, b *bench) (list []Result, err error) {
	if err := b.close(); err != nil {
		return nil, err
	}
	r, err := openPodRuntime(ctx, b, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close(ctx, b)) }()
	few, err := r.laps(ctx, b.runs, 60*time.Millisecond)
	if err != nil {
		return nil, err
	}
	list = b.lapResults("none beside it", 0, few)
	began := time.Now()
	for n := b.pods; n > 0; n -= 10 {
		if _, _, err := r.atOnce(ctx, min(n, 10)); err != nil {
			return nil, err
		}
	}
	list = append(list, summary(fmt.Sprintf("%d Pods up, ten at a time", b.pods), "s", 0, time.Since(began).Seconds()))
	many, err := r.laps(ctx, b.runs, 60*time.Millisecond)
	if err != nil {
		return nil, err
	}
	dense := b.lapResults(fmt.Sprintf("%d beside it", b.pods), 0, many)
	list = append(list, dense...)
	for i, what := range map[int]string{0: "up", 4: "down"} {
		list = append(list, summary(fmt.Sprintf("  a Pod %s among %d, by one alone", what, b.pods), "x", 1.5, dense[i].Median/list[i].Median))
	}
	began = time.Now()
	pods, err := r.ListPodSandbox(ctx, nil)
	if err != nil {
		return nil, err
	}
	list = append(list, millis(fmt.Sprintf("ListPodSandbox with %d Pods", len(pods)), 0, []time.Duration{time.Since(began)}))
	began = time.Now()
	for _, p := range pods {
		if err := r.down(ctx, p.Id, &lap{}); err != nil {
			return nil, err
		}
	}
	return append(list, summary(fmt.Sprintf("%d Pods down, one by one", b.pods), "s", 0, time.Since(began).Seconds())), nil
}
