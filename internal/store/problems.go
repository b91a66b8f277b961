package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"carob.dev/carob/internal/health"
	"golang.org/x/sys/unix"
)

// Codes of the problems that Open returns.
const (
	CodeLocked      = "StoreLocked"
	CodeCorrupt     = "StoreCorrupt"
	CodeUnreachable = "StoreUnreachable"
)

// acquire takes the lock file, which goes with the process. It waits a little, for a process that is just ending.
func acquire(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	deadline := time.After(500 * time.Millisecond)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			_ = f.Truncate(0) // the content only tells people who holds the lock
			_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			f.Close()
			return nil, locked(path)
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		}
	}
}

func locked(path string) error {
	why := "another process has it open"
	if data, err := os.ReadFile(path); err == nil {
		if pid := strings.TrimSpace(string(data)); pid != "" {
			why = "process " + pid + " has it open"
		}
	}
	return &health.Problem{
		Code: CodeLocked, Severity: health.Error,
		What: fmt.Sprintf("the store (%s) is in use", path),
		Why:  why,
		Fix:  "stop the other carob first (carob down), or give this one a folder of its own with --root",
	}
}

func corrupt(path string, err error) error {
	return &health.Problem{
		Code: CodeCorrupt, Severity: health.Error,
		What: fmt.Sprintf("the store's file (%s) is damaged; it was left as it is", path),
		Why:  err.Error(),
		Fix:  fmt.Sprintf("put a backup in its place, or, to start with an empty cluster, move it away: mv %s %s.damaged", path, path),
	}
}

func unreachable(endpoints []string, err error) error {
	return &health.Problem{
		Code: CodeUnreachable, Severity: health.Error,
		What: "the etcd servers (" + strings.Join(endpoints, ", ") + ") do not answer",
		Why:  err.Error(),
		Fix:  "check that they run and can be reached from here: etcdctl --endpoints " + strings.Join(endpoints, ",") + " endpoint health",
	}
}
