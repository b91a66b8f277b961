package csi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"google.golang.org/grpc"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// registryDir holds the sockets at which plugins register, below the agent's folder.
const registryDir = "plugins_registry"

const (
	registerTimeout = 30 * time.Second
	firstRetry      = 500 * time.Millisecond
	lastRetry       = 30 * time.Second
)

// Run hears of drivers until ctx ends: each socket that appears below plugins_registry is asked who it is, and a driver whose socket goes is
// forgotten. It waits for the kernel's word and does nothing otherwise.
func (n *Node) Run(ctx context.Context) error {
	top := filepath.Join(n.cfg.Root, registryDir)
	if err := os.MkdirAll(top, 0o750); err != nil {
		return fmt.Errorf("csi: %w", err)
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("csi: watch %s: %w", top, err)
	}
	defer w.Close()
	r := &registry{node: n, ctx: ctx, watcher: w, cancels: map[string]context.CancelFunc{}}
	defer r.wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.ctx = ctx
	if err := r.visit(top); err != nil {
		return fmt.Errorf("csi: watch %s: %w", top, err)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-w.Errors:
			n.cfg.Log.Warn("watch for drivers", "error", err)
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				r.visit(top)
			}
		case ev := <-w.Events:
			switch {
			case ev.Has(fsnotify.Create):
				if err := r.visit(ev.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
					n.cfg.Log.Warn("look at what may be a driver", "path", ev.Name, "error", err)
				}
			case ev.Has(fsnotify.Remove), ev.Has(fsnotify.Rename):
				r.gone(ev.Name)
			}
		}
	}
}

// registry is what Run knows of sockets. All but wg belongs to Run's goroutine.
type registry struct {
	node    *Node
	ctx     context.Context
	watcher *fsnotify.Watcher
	wg      sync.WaitGroup
	// cancels end the registering at a socket that is under way or done.
	cancels map[string]context.CancelFunc
}

// visit takes up a socket, or a folder with all that is in it. Hidden names are left alone.
func (r *registry) visit(path string) error {
	return filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return filepath.SkipDir
			}
		case d.IsDir():
			return r.watcher.Add(p)
		case d.Type()&fs.ModeSocket != 0:
			r.gone(p)
			ctx, cancel := context.WithCancel(r.ctx)
			r.cancels[p] = cancel
			r.wg.Go(func() {
				if d := r.node.registerAt(ctx, p); d != nil {
					<-ctx.Done()
					r.node.drop(d, r.ctx.Err() == nil)
				}
			})
		}
		return nil
	})
}

// gone forgets the socket.
func (r *registry) gone(path string) {
	if cancel := r.cancels[path]; cancel != nil {
		cancel()
		delete(r.cancels, path)
	}
}

// registerAt registers the driver that listens at a socket, with tries anew while that fails; nil if ctx ended before.
func (n *Node) registerAt(ctx context.Context, socket string) *driver {
	wait := firstRetry
	for {
		d, err := n.register(ctx, socket)
		if err == nil {
			n.cfg.Log.Info("a CSI driver has registered", "driver", d.name)
			return d
		}
		if ctx.Err() != nil {
			return nil
		}
		n.cfg.Log.Warn("register a CSI driver", "socket", socket, "error", err)
		timer := n.cfg.Clock.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C():
		}
		wait = min(2*wait, lastRetry)
	}
}

// register asks at a socket who is there and takes the driver up. What comes of it is told at the socket.
func (n *Node) register(ctx context.Context, socket string) (*driver, error) {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	conn, err := dial(socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	client := registerapi.NewRegistrationClient(conn)
	info, err := client.GetInfo(ctx, &registerapi.InfoRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return nil, fmt.Errorf("ask who it is: %w", unwrapStatus(err))
	}
	d, err := n.take(ctx, socket, info)
	status := &registerapi.RegistrationStatus{PluginRegistered: err == nil}
	if err != nil {
		status.Error = err.Error()
	}
	if _, told := client.NotifyRegistrationStatus(ctx, status); told != nil && err == nil {
		n.cfg.Log.Warn("tell a driver that it is registered", "driver", info.GetName(), "error", told)
	}
	return d, err
}

// take makes a driver one of this node's.
func (n *Node) take(ctx context.Context, socket string, info *registerapi.PluginInfo) (*driver, error) {
	switch {
	case info.GetType() != registerapi.CSIPlugin:
		return nil, fmt.Errorf("plugins of type %q are not supported", info.GetType())
	case info.GetName() == "":
		return nil, errors.New("the plugin has no name")
	case !slices.ContainsFunc(info.GetSupportedVersions(), isVersion1):
		return nil, fmt.Errorf("driver %s speaks CSI %v; 1.x is needed", info.GetName(), info.GetSupportedVersions())
	}
	endpoint := info.GetEndpoint()
	if endpoint == "" {
		endpoint = socket
	}
	d, err := meet(ctx, info.GetName(), endpoint)
	if err != nil {
		return nil, err
	}
	if err := n.tellOf(ctx, d); err != nil {
		d.conn.Close()
		return nil, err
	}
	n.mu.Lock()
	old := n.drivers[d.name]
	n.drivers[d.name] = d
	n.mu.Unlock()
	if old != nil {
		old.conn.Close()
	}
	n.unstageOrphans(ctx, d)
	if n.cfg.Changed != nil {
		n.cfg.Changed()
	}
	return d, nil
}

func isVersion1(v string) bool {
	v = strings.TrimPrefix(v, "v")
	return v == "1" || strings.HasPrefix(v, "1.")
}

// drop forgets a driver, unless it has registered anew; its volumes stay as they are. The API is told unless it is the agent that ends.
func (n *Node) drop(d *driver, tell bool) {
	n.mu.Lock()
	current := n.drivers[d.name] == d
	if current {
		delete(n.drivers, d.name)
	}
	n.mu.Unlock()
	d.conn.Close()
	if !current || !tell {
		return
	}
	n.cfg.Log.Info("a CSI driver has gone", "driver", d.name)
	ctx, cancel := context.WithTimeout(context.Background(), registerTimeout)
	defer cancel()
	if err := n.untell(ctx, d.name); err != nil {
		n.cfg.Log.Warn("tell the API that a CSI driver has gone", "driver", d.name, "error", err)
	}
	if n.cfg.Changed != nil {
		n.cfg.Changed()
	}
}
