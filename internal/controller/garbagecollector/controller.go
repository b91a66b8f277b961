// Package garbagecollector deletes objects whose owners are gone, and carries out foreground and orphaning deletions.
//
// It imports client-go and internal/controller/loop. graph.go and resources.go are pure. It watches the metadata of every kind that
// can be deleted, listed and watched, custom ones too, and remembers only who owns whom. Invariants: an object is deleted only after
// the server itself has said that none of its owners exists (never on the word of a cache), and only if it still is what was
// looked at (uid and resourceVersion).
package garbagecollector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/controller/loop"
)

// Name is the controller's name: of its service account and in the log.
const Name = "generic-garbage-collector"

const (
	workers = 8
	// settle is how long after a change of the API the kinds are read again: discovery lags a little behind.
	settle = 100 * time.Millisecond
	// settleAgain is when they are read once more after that.
	settleAgain = 2 * time.Second
	// slowRefresh finds what no event told of. It costs one discovery request each time.
	slowRefresh = 10 * time.Minute
	// firstSync is how long to wait for the first lists before working without them.
	firstSync = 30 * time.Second
)

// Config is what the controller needs. All fields but Shared and Clock are required.
type Config struct {
	Metadata  metadata.Interface
	Discovery discovery.DiscoveryInterface
	// Shared are informers that run anyway; other resources get a metadata-only watch.
	Shared map[schema.GroupVersionResource]cache.SharedIndexInformer
	Log    *slog.Logger
	Clock  clock.WithTicker
}

// Controller is the garbage collector. Make one with New.
type Controller struct {
	metadata  metadata.Interface
	discovery discovery.DiscoveryInterface
	shared    map[schema.GroupVersionResource]cache.SharedIndexInformer
	log       *slog.Logger
	clock     clock.WithTicker
	loop      *loop.Loop[types.UID]
	graph     *graph

	mapper  atomic.Pointer[meta.RESTMapper]
	refresh chan struct{}
	// monitors belong to the goroutine that refreshes.
	monitors map[schema.GroupVersionResource]*monitor
}

// New returns a Controller. It watches nothing before Run.
func New(cfg Config) (*Controller, error) {
	if cfg.Metadata == nil || cfg.Discovery == nil || cfg.Log == nil {
		return nil, errors.New("garbage collector: metadata, discovery and log are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	c := &Controller{
		metadata: cfg.Metadata, discovery: cfg.Discovery, shared: cfg.Shared, log: cfg.Log, clock: cfg.Clock,
		graph: newGraph(), refresh: make(chan struct{}, 1), monitors: map[schema.GroupVersionResource]*monitor{},
	}
	c.loop = loop.New(Name, cfg.Clock, cfg.Log, c.sync)
	return c, nil
}

// Name returns the controller's name.
func (c *Controller) Name() string { return Name }

// Run works until ctx ends. The shared informers must be running.
func (c *Controller) Run(ctx context.Context) error {
	defer func() {
		for _, m := range c.monitors {
			m.stop()
			<-m.done
		}
	}()
	for c.readKinds(ctx) != nil {
		if !c.sleep(ctx, time.Second) {
			return nil
		}
	}
	c.awaitFirst(ctx)
	working := make(chan struct{})
	go func() {
		defer close(working)
		if err := c.loop.Run(ctx, workers); err != nil {
			c.log.Error("garbage collector stopped", "err", err)
		}
	}()
	c.keepKinds(ctx)
	<-working
	return nil
}

// keepKinds reads the kinds again whenever the API changes, until ctx ends.
func (c *Controller) keepKinds(ctx context.Context) {
	slow := c.clock.NewTicker(slowRefresh)
	defer slow.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-slow.C():
			_ = c.readKinds(ctx)
		case <-c.refresh:
			for _, wait := range []time.Duration{settle, settleAgain} {
				if !c.sleep(ctx, wait) {
					return
				}
				_ = c.readKinds(ctx)
			}
		}
	}
}

func (c *Controller) sleep(ctx context.Context, d time.Duration) bool {
	timer := c.clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return true
	case <-ctx.Done():
		return false
	}
}

// askRefresh asks for the kinds to be read again soon.
func (c *Controller) askRefresh() {
	select {
	case c.refresh <- struct{}{}:
	default:
	}
}

// readKinds asks the server for its kinds, starts to watch new ones and stops watching those that are gone. It logs what fails.
func (c *Controller) readKinds(ctx context.Context) error {
	groups, err := restmapper.GetAPIGroupResources(c.discovery)
	if err != nil {
		c.log.Warn("cannot read the API's kinds", "err", err)
		return fmt.Errorf("read the API's kinds: %w", err)
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	c.mapper.Store(&mapper)
	resources, failed := watchable(groups)
	for r, m := range c.monitors {
		if _, ok := resources[r]; !ok && !failed[r.Group] {
			c.log.Debug("kind is gone", "resource", r.String())
			m.abandon()
			delete(c.monitors, r)
		}
	}
	added := 0
	for r, kind := range resources {
		if c.monitors[r] != nil {
			continue
		}
		m, err := c.start(ctx, r, kind)
		if err != nil {
			c.log.Warn("cannot watch", "resource", r.String(), "err", err)
			continue
		}
		c.monitors[r] = m
		added++
	}
	if added > 0 {
		// Owners of kinds that were not known may be found now.
		c.wake(c.graph.onlyHeardOf()...)
	}
	return nil
}

// awaitFirst waits until all kinds have been listed once, so that owners known to the server are known here.
func (c *Controller) awaitFirst(ctx context.Context) {
	timer := c.clock.NewTimer(firstSync)
	defer timer.Stop()
	for r, m := range c.monitors {
		select {
		case <-m.synced:
		case <-ctx.Done():
			return
		case <-timer.C():
			c.log.Warn("not all kinds could be listed in time, collecting anyway", "resource", r.String())
			return
		}
	}
}

func (c *Controller) wake(uids ...types.UID) {
	for _, uid := range uids {
		c.loop.Add(uid)
	}
}
