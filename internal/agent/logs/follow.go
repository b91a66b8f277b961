package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// lookEvery is how often a log is looked at while the kernel does not tell of changes: it allows only so many watchers, and does not tell
// of a folder that is made anew. A look costs four system calls.
const lookEvery = time.Second

// Follow is Read, and then goes on with what is added, until ctx or the container ends: containerEnded is closed when it has. A reader that
// is so slow that a part is removed before its turn goes on with the oldest that there is.
func Follow(ctx context.Context, path string, o Options, stdout, stderr io.Writer, containerEnded <-chan struct{}) error {
	changes := newChanges(path)
	changes.arm()
	defer changes.close()
	r, err := open(path, o, stdout, stderr)
	if err != nil {
		return err
	}
	defer r.close()
	for {
		if err := r.drain(); err != nil {
			return ended(err)
		}
		if moved, err := r.next(path); err != nil {
			return err
		} else if moved {
			continue
		}
		if containerEnded == nil {
			return nil
		}
		if changes.arm() {
			continue
		}
		if over, err := changes.wait(ctx, containerEnded); err != nil || ctx.Err() != nil {
			return err
		} else if over {
			containerEnded = nil // once more, then done
		}
	}
}

// changes are those of one log's files.
type changes struct {
	path    string
	dir     os.FileInfo       // the folder that is watched
	watcher *fsnotify.Watcher // nil if there is none
	look    *time.Ticker
}

func newChanges(path string) *changes {
	c := &changes{path: path, look: time.NewTicker(lookEvery)}
	c.look.Stop()
	return c
}

// arm sees to it that the next change is noticed. If it returns true, something may have changed before.
func (c *changes) arm() bool {
	name := filepath.Dir(c.path)
	dir, gone := os.Stat(name)
	if c.watcher != nil && (gone != nil || !os.SameFile(c.dir, dir)) {
		c.watcher.Close()
		c.watcher = nil
	}
	fresh := false
	if c.watcher == nil && gone == nil {
		if w, err := fsnotify.NewWatcher(); err == nil {
			if fresh = w.Add(name) == nil; fresh {
				c.watcher, c.dir = w, dir
			} else {
				w.Close()
			}
		}
	}
	if _, err := os.Stat(c.path); err != nil || c.watcher == nil {
		c.look.Reset(lookEvery)
	} else {
		c.look.Stop()
	}
	return fresh
}

func (c *changes) close() {
	c.look.Stop()
	if c.watcher != nil {
		c.watcher.Close()
	}
}

// wait returns when something may have changed; over says that it was the container's end.
func (c *changes) wait(ctx context.Context, containerEnded <-chan struct{}) (over bool, err error) {
	var events chan fsnotify.Event
	var errs chan error
	if c.watcher != nil {
		events, errs = c.watcher.Events, c.watcher.Errors
	}
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case <-containerEnded:
			return true, nil
		case <-c.look.C:
			return false, nil
		case err := <-errs:
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				return false, nil
			}
			return false, fmt.Errorf("follow %s: %w", c.path, err)
		case ev := <-events:
			if strings.HasPrefix(ev.Name, c.path) && !strings.HasSuffix(ev.Name, halfSuffix) {
				return false, nil
			}
		}
	}
}
