package logs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// rotatedLayout is the time in the name of a rotated part.
const rotatedLayout = "20060102-150405.000"

// checkEvery is how often sizes are looked at, while there are logs: one stat for each running container, a few microseconds.
const checkEvery = 10 * time.Second

// Limits are those of the log of one instance.
type Limits struct {
	// MaxSize, in bytes, makes a file be rotated; MaxFiles is how many are kept, the one in use included.
	MaxSize  int64
	MaxFiles int
}

// Rotator keeps logs within limits.
type Rotator struct {
	limits Limits
	reopen func(ctx context.Context, containerID string) error
	log    *slog.Logger
	added  chan struct{}

	mu    sync.Mutex // guards files
	files map[string]string
}

// NewRotator returns a Rotator; reopen tells the runtime that a container's log has been moved away.
func NewRotator(l Limits, reopen func(ctx context.Context, containerID string) error, log *slog.Logger) *Rotator {
	return &Rotator{limits: l, reopen: reopen, log: log, added: make(chan struct{}, 1), files: map[string]string{}}
}

// Add has the log of a container looked after.
func (r *Rotator) Add(containerID, path string) {
	r.mu.Lock()
	r.files[containerID] = path
	r.mu.Unlock()
	select {
	case r.added <- struct{}{}:
	default:
	}
}

// End says that a container writes no more.
func (r *Rotator) End(containerID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.files, containerID)
}

// Drop forgets all logs below the folder.
func (r *Rotator) Drop(dir string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, path := range r.files {
		if strings.HasPrefix(path, dir+"/") {
			delete(r.files, id)
		}
	}
}

// Run works until ctx ends.
func (r *Rotator) Run(ctx context.Context) {
	for {
		r.mu.Lock()
		idle := len(r.files) == 0
		r.mu.Unlock()
		if idle {
			select {
			case <-ctx.Done():
				return
			case <-r.added:
				continue
			}
		}
		timer := time.NewTimer(checkEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
			r.check(ctx)
		}
	}
}

func (r *Rotator) check(ctx context.Context) {
	r.mu.Lock()
	files := make(map[string]string, len(r.files))
	for id, path := range r.files {
		files[id] = path
	}
	r.mu.Unlock()
	for id, path := range files {
		st, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			// It was moved away by an agent that ended before the runtime was told; or the container has not been started.
			if err := r.reopen(ctx, id); err != nil {
				r.log.Debug("reopen a log that is not there", "path", path, "error", err)
			}
			continue
		}
		if err != nil || st.Size() < r.limits.MaxSize {
			continue
		}
		if err := r.rotate(ctx, id, path); err != nil {
			r.log.Warn("rotate a log", "path", path, "error", err)
		}
	}
}

func (r *Rotator) rotate(ctx context.Context, id, path string) error {
	moved := path + "." + time.Now().UTC().Format(rotatedLayout)
	if err := os.Rename(path, moved); err != nil {
		return err
	}
	if err := r.reopen(ctx, id); err != nil {
		return errors.Join(fmt.Errorf("reopen: %w", err), os.Rename(moved, path))
	}
	old := parts(path)
	old = old[:len(old)-1]
	for len(old) > r.limits.MaxFiles-1 {
		if err := os.Remove(old[0]); err != nil {
			return err
		}
		old = old[1:]
	}
	return nil
}

// Prune removes from a container's log folder what is older than the instance before the coming one.
func (r *Rotator) Prune(dir string, coming int32) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		number, _, _ := strings.Cut(e.Name(), ".")
		if n, err := strconv.Atoi(number); err == nil && int32(n) < coming-1 {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				r.log.Warn("remove an old log", "path", filepath.Join(dir, e.Name()), "error", err)
			}
		}
	}
}
