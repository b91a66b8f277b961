// Package imagegc removes images that no container uses, as kubelet does: when the disk that holds them fills up, those that were used
// longest ago first, and, if so configured, those that were not used for a long time.
//
// It may import client-go's recorder and cri-api. It looks every five minutes, which costs two calls to the runtime and one to the file
// system. Images in use and pinned images always stay. What was used when is known since this process began, as with kubelet.
package imagegc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

// lookEvery is how often images are looked at.
const lookEvery = 5 * time.Minute

// Policy says when images go. That it does not contradict itself is the configuration's to see.
type Policy struct {
	// HighPercent of the disk in use makes images go, until no more than LowPercent is in use. 100 never does.
	HighPercent, LowPercent int
	// MinAge is how long an image stays at least after it was first seen.
	MinAge time.Duration
	// MaxAge is how long an unused image stays at most, whatever room there is. Zero: for ever.
	MaxAge time.Duration
}

// Containers lists the containers of the node.
type Containers interface {
	ListContainers(context.Context, *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
}

// Config is what a Collector needs. Fields without a note must be set.
type Config struct {
	Images     cri.ImageManagerService
	Containers Containers
	Policy     Policy
	// Recorder writes events about Node.
	Recorder record.EventRecorder
	Node     *corev1.ObjectReference
	Log      *slog.Logger
	Clock    clock.Clock
	// Statfs tells size and free room, in bytes, of the file system at a path. Nil: the kernel's.
	Statfs func(path string) (capacity, available int64, err error)
}

// Collector removes images.
type Collector struct {
	cfg   Config
	began time.Time

	mu    sync.Mutex // guards known
	known map[string]*known
}

// known is what is remembered of an image.
type known struct {
	firstSeen, lastUsed time.Time
}

// New returns a Collector that does nothing before Run.
func New(cfg Config) *Collector {
	if cfg.Statfs == nil {
		cfg.Statfs = statfs
	}
	return &Collector{cfg: cfg, began: cfg.Clock.Now(), known: map[string]*known{}}
}

func statfs(path string) (capacity, available int64, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return 0, 0, fmt.Errorf("statfs %s: %w", path, err)
	}
	return int64(fs.Blocks) * fs.Bsize, int64(fs.Bavail) * fs.Bsize, nil
}

// Run collects every five minutes until ctx ends, unless the policy never wants anything gone. A failure that comes a second time in a row is told by an event.
func (c *Collector) Run(ctx context.Context) {
	if c.cfg.Policy.HighPercent >= 100 && c.cfg.Policy.MaxAge == 0 {
		return
	}
	failing := false
	for {
		err := c.Collect(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failing = false
		case failing:
			c.cfg.Log.Warn("collect unused images", "error", err)
			c.event("ImageGCFailed", err.Error())
		default:
			failing = true
		}
		timer := c.cfg.Clock.NewTimer(lookEvery)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (c *Collector) event(reason, message string) {
	c.cfg.Recorder.Event(c.cfg.Node, corev1.EventTypeWarning, reason, message)
}

// Collect looks at images, containers and the disk once, and removes what the policy wants gone. The error says what could not be
// removed, or that too little could.
func (c *Collector) Collect(ctx context.Context) error {
	now := c.cfg.Clock.Now()
	unused, err := c.look(ctx, now)
	if err != nil {
		return err
	}
	old, rest := split(unused, c.cfg.Policy, now, c.began)
	kept, _, err := c.remove(ctx, old, everything)
	if err != nil {
		return fmt.Errorf("remove images not used for %s: %w", c.cfg.Policy.MaxAge, err)
	}
	capacity, available, err := c.disk(ctx)
	if err != nil {
		return err
	}
	if capacity <= 0 {
		c.event("InvalidDiskCapacity", "invalid capacity 0 on image filesystem")
		return errors.New("invalid capacity 0 on image filesystem")
	}
	used, need := c.cfg.Policy.need(capacity, min(available, capacity))
	if need <= 0 {
		return nil
	}
	c.cfg.Log.Info("the images' disk is filling up", "used", used, "high", c.cfg.Policy.HighPercent, "free", need)
	_, freed, err := c.remove(ctx, ripe(append(kept, rest...), c.cfg.Policy, now), need)
	if err != nil {
		return fmt.Errorf("wanted to free %d bytes, freed %d: %w", need, freed, err)
	}
	if freed < need {
		message := fmt.Sprintf("Insufficient free disk space on the node's image filesystem (%d%% of %s used). "+
			"Failed to free sufficient space by deleting unused images (freed %d bytes). "+
			"Investigate disk usage, as it could be used by active images, logs, volumes, or other data.", used, size(capacity), freed)
		c.event("FreeDiskSpaceFailed", message)
		return errors.New(message)
	}
	return nil
}

// Free removes every image that may go, whatever room there is.
func (c *Collector) Free(ctx context.Context) error {
	now := c.cfg.Clock.Now()
	unused, err := c.look(ctx, now)
	if err != nil {
		return err
	}
	_, _, err = c.remove(ctx, ripe(unused, c.cfg.Policy, now), everything)
	return err
}

// look brings what is known up to date, and returns the images that may go, those used longest ago first.
func (c *Collector) look(ctx context.Context, now time.Time) ([]candidate, error) {
	images, err := c.cfg.Images.ListImages(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	containers, err := c.cfg.Containers.ListContainers(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	used := map[string]bool{}
	for _, x := range containers {
		used[x.GetImageId()], used[x.GetImageRef()] = true, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	present := map[string]bool{}
	var unused []candidate
	for _, i := range images {
		present[i.GetId()] = true
		k := c.known[i.GetId()]
		if k == nil {
			k = &known{firstSeen: now}
			c.known[i.GetId()] = k
		}
		if uses(used, i) {
			k.lastUsed = now
			continue
		}
		if !i.GetPinned() {
			unused = append(unused, candidate{id: i.GetId(), size: int64(i.GetSize()), known: *k})
		}
	}
	for id := range c.known {
		if !present[id] {
			delete(c.known, id)
		}
	}
	order(unused)
	return unused, nil
}

// uses says whether a container names the image: by its ID, or, as some runtimes have it, by one of its names.
func uses(used map[string]bool, i *runtimeapi.Image) bool {
	if used[i.GetId()] {
		return true
	}
	for _, names := range [][]string{i.GetRepoTags(), i.GetRepoDigests()} {
		for _, n := range names {
			if used[n] {
				return true
			}
		}
	}
	return false
}

func (c *Collector) disk(ctx context.Context) (capacity, available int64, err error) {
	info, err := c.cfg.Images.ImageFsInfo(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("the images' file system: %w", err)
	}
	if len(info.GetImageFilesystems()) == 0 {
		return 0, 0, errors.New("the runtime tells no file system of images")
	}
	return c.cfg.Statfs(info.GetImageFilesystems()[0].GetFsId().GetMountpoint())
}

// remove removes images in their order until enough is free, and returns those that could not be removed.
func (c *Collector) remove(ctx context.Context, list []candidate, enough int64) (kept []candidate, freed int64, err error) {
	var errs []error
	for _, i := range list {
		if freed >= enough {
			break
		}
		c.cfg.Log.Info("removing an unused image", "id", i.id, "size", i.size)
		if err := c.cfg.Images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: i.id}); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", i.id, err))
			kept = append(kept, i)
			continue
		}
		freed += i.size
	}
	return kept, freed, errors.Join(errs...)
}
