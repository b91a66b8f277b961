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

	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"
)

// Sizes are looked at every checkEvery while there are logs, or sooner, but not sooner than checkSoonest, where a log's growth would make
// it too long before that, or is not known yet. A look costs one stat for each running container, a few microseconds.
const (
	checkEvery   = 10 * time.Second
	checkSoonest = 500 * time.Millisecond
)

// Limits are those of the log of one instance.
type Limits struct {
	// MaxSize, in bytes, makes a file be rotated; MaxFiles is how many are kept, the one in use included, at least 2.
	MaxSize  int64
	MaxFiles int
}

// Rotator keeps logs within limits.
type Rotator struct {
	limits Limits
	reopen func(ctx context.Context, containerID string) error
	clock  clock.Clock
	log    *slog.Logger
	added  chan struct{}

	mu    sync.Mutex // guards files
	files map[string]*growing
}

// growing is a log that is looked after. size is what it had at the time at, negative if that is not known; both are Run's own.
type growing struct {
	path string
	size int64
	at   time.Time
}

// NewRotator returns a Rotator; reopen tells the runtime that a container's log has been moved away.
func NewRotator(l Limits, reopen func(ctx context.Context, containerID string) error, clock clock.Clock, log *slog.Logger) *Rotator {
	return &Rotator{limits: l, reopen: reopen, clock: clock, log: log, added: make(chan struct{}, 1), files: map[string]*growing{}}
}

// Add has the log of a container looked after.
func (r *Rotator) Add(containerID, path string) {
	r.mu.Lock()
	r.files[containerID] = &growing{path: path, size: -1}
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
	for id, f := range r.files {
		if strings.HasPrefix(f.path, dir+"/") {
			delete(r.files, id)
		}
	}
}

// Run works until ctx ends.
func (r *Rotator) Run(ctx context.Context) {
	next := r.clock.Now().Add(checkEvery)
	for {
		r.mu.Lock()
		idle := len(r.files) == 0
		r.mu.Unlock()
		timer := r.clock.NewTimer(max(next.Sub(r.clock.Now()), 0))
		due := timer.C()
		if idle {
			due = nil
		}
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-r.added:
			timer.Stop()
			if soon := r.clock.Now().Add(checkSoonest); soon.Before(next) || idle {
				next = soon
			}
		case <-due:
			next = r.clock.Now().Add(r.check(ctx))
		}
	}
}

// check looks at all logs, and says when to look again.
func (r *Rotator) check(ctx context.Context) time.Duration {
	r.mu.Lock()
	files := make(map[string]*growing, len(r.files))
	for id, f := range r.files {
		files[id] = f
	}
	r.mu.Unlock()
	wait := checkEvery
	for id, f := range files {
		st, err := os.Stat(f.path)
		if errors.Is(err, os.ErrNotExist) {
			// Somebody removed it, or it was moved away by an agent that ended before the runtime was told.
			if err := r.restore(ctx, id, f.path); err != nil {
				r.log.Debug("reopen a log that is not there", "path", f.path, "error", err)
			}
			continue
		}
		if err != nil {
			continue
		}
		if st.Size() >= r.limits.MaxSize {
			if err := r.rotate(ctx, id, f.path); err != nil {
				r.log.Warn("rotate a log", "path", f.path, "error", err)
			}
		}
		wait = min(wait, f.due(st.Size(), r.limits.MaxSize, r.clock.Now()))
	}
	return wait
}

// due notes the size, and says in what time the log may be full.
func (f *growing) due(size, limit int64, now time.Time) time.Duration {
	grown, in, known := size-f.size, now.Sub(f.at), f.size >= 0
	f.size, f.at = size, now
	left := limit - size
	if left <= 0 {
		f.size, left, grown = 0, limit, size // it has just been rotated, and grew at least so fast
	}
	if !known && size > 0 {
		return checkSoonest
	}
	if !known || in <= 0 || grown <= 0 {
		return checkEvery
	}
	return min(max(time.Duration(float64(in)*float64(left)/float64(grown)), checkSoonest), checkEvery)
}

// restore has the runtime write to the log's own name, and makes the folder anew if that is gone.
func (r *Rotator) restore(ctx context.Context, id, path string) error {
	err := r.reopen(ctx, id)
	dir := filepath.Dir(path)
	if _, gone := os.Stat(dir); err == nil || !errors.Is(gone, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := r.reopen(ctx, id); err != nil {
		os.Remove(dir) // it does not run
		os.Remove(filepath.Dir(dir))
		return err
	}
	return nil
}

func (r *Rotator) rotate(ctx context.Context, id, path string) error {
	list, leftover, err := parts(path)
	if err != nil {
		return err
	}
	for _, file := range leftover {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	for len(list) > 0 && list[len(list)-1].at == "" {
		list = list[:len(list)-1]
	}
	for len(list) > max(r.limits.MaxFiles-2, 0) {
		if err := os.Remove(list[0].path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		list = list[1:]
	}
	newest := ""
	for _, p := range list {
		newest = p.at
		if p.packed {
			continue
		}
		if err := pack(p); err != nil { // a full disk, perhaps: all the more reason to rotate
			r.log.Warn("pack a rotated log", "path", p.path, "error", err)
		}
	}
	moved := path + "." + after(newest, r.clock.Now())
	if err := os.Rename(path, moved); err != nil {
		return err
	}
	if err := r.reopen(ctx, id); err != nil {
		// The runtime may have opened it all the same: what it wrote there must not be covered.
		back := unix.Renameat2(unix.AT_FDCWD, moved, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
		if errors.Is(back, unix.EEXIST) {
			back = nil
		}
		return errors.Join(fmt.Errorf("reopen: %w", err), back)
	}
	return nil
}

// after is now as a part's name tells it, but later than that of the newest part, whatever the clock does.
func after(newest string, now time.Time) string {
	at := now.UTC().Format(rotatedLayout)
	if at > newest {
		return at
	}
	last, err := time.Parse(rotatedLayout, newest)
	if err != nil {
		return at
	}
	return last.Add(time.Millisecond).Format(rotatedLayout)
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
