package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// bench is one run of the program. It has one Carob at a time, started when a measurement first needs it.
type bench struct {
	binary, images, dir string
	runs, pods          int
	live                *carob
	count               int
}

// carob is a running Carob.
type carob struct {
	binary, root, kubeconfig string
	pid                      int
	client                   kubernetes.Interface
}

// fresh starts a Carob on an empty root, in place of the one that ran.
func (b *bench) fresh(ctx context.Context, args ...string) (*carob, error) {
	if err := b.close(); err != nil {
		return nil, err
	}
	b.count++
	root := filepath.Join(b.dir, "root"+strconv.Itoa(b.count))
	c := &carob{binary: b.binary, root: root, kubeconfig: root + ".kubeconfig"}
	b.live = c
	if err := c.up(ctx, args...); err != nil {
		return nil, err
	}
	return c, nil
}

// carob is the one that runs; it has the busybox image.
func (b *bench) carob(ctx context.Context) (*carob, error) {
	if b.live == nil {
		if _, err := b.fresh(ctx); err != nil {
			return nil, err
		}
	}
	return b.live, b.live.do(ctx, "image", "import", "--root", b.live.root, filepath.Join(b.images, "busybox.tar"))
}

func (b *bench) close() error {
	if b.live == nil {
		return nil
	}
	c := b.live
	b.live = nil
	ctx := context.Background()
	return errors.Join(c.do(ctx, "uninstall", "--root", c.root), os.RemoveAll(c.root), os.RemoveAll(c.kubeconfig))
}

func (c *carob) do(ctx context.Context, args ...string) error {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, c.binary, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("carob %s: %w\n%s", strings.Join(args, " "), err, &out)
	}
	return nil
}

// up starts it and returns when it says that it is usable.
func (c *carob) up(ctx context.Context, args ...string) error {
	args = append([]string{"up", "-d", "--root", c.root, "--kubeconfig", c.kubeconfig, "--node-name", "bench", "--eviction-hard=none"}, args...)
	if err := c.do(ctx, args...); err != nil {
		return err
	}
	var err error
	if c.pid, err = serverPID(c.root); err != nil {
		return err
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	if err != nil {
		return err
	}
	cfg.QPS = -1
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	cfg.AcceptContentTypes = cfg.ContentType
	c.client, err = kubernetes.NewForConfig(cfg)
	return err
}

// stop ends the daemon; Pods run on.
func (c *carob) stop() error {
	p, err := os.FindProcess(c.pid)
	if err != nil {
		return err
	}
	if err := p.Signal(os.Interrupt); err != nil {
		return err
	}
	for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(5 * time.Millisecond) {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.pid))
		if err != nil || bytes.Contains(raw, []byte(") Z ")) { // its parent may take its time to reap it
			return nil
		}
	}
	return fmt.Errorf("carob (process %d) does not end", c.pid)
}

// serverPID finds the daemon by its root.
func serverPID(root string) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		raw, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		args := strings.Split(string(raw), "\x00")
		if len(args) < 3 || args[1] != "server" {
			continue
		}
		for _, a := range args[2:] {
			if a == root || strings.HasSuffix(a, "="+root) {
				return pid, nil
			}
		}
	}
	return 0, fmt.Errorf("no daemon with the root %s", root)
}

// fields reads a file of lines "name: number".
func fields(path string) (map[string]float64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]float64{}
	for s := bufio.NewScanner(f); s.Scan(); {
		name, rest, ok := strings.Cut(s.Text(), ":")
		if !ok {
			continue
		}
		if words := strings.Fields(rest); len(words) > 0 {
			if v, err := strconv.ParseFloat(words[0], 64); err == nil {
				out[name] = v
			}
		}
	}
	return out, nil
}

// cpuTime is the processor time that a process has used.
func cpuTime(pid int) (time.Duration, error) {
	_, err := os.Stat(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err == nil {
		// The first number is that of the main thread only: sum all threads.
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		var sum time.Duration
		for _, t := range tasks {
			if raw, err := os.ReadFile(t); err == nil {
				if w := strings.Fields(string(raw)); len(w) > 0 {
					ns, _ := strconv.ParseInt(w[0], 10, 64)
					sum += time.Duration(ns)
				}
			}
		}
		return sum, nil
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	w := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	user, _ := strconv.ParseInt(w[11], 10, 64)
	system, _ := strconv.ParseInt(w[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, nil
}
