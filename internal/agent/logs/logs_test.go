package logs

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/utils/clock"
)

func line(n int) string {
	return fmt.Sprintf("2026-01-02T03:04:%02d.5Z stdout F line %d\n", n%60, n)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestTailAcrossRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	for n := range 30 {
		file := path
		switch {
		case n < 10:
			file += ".20260102-030400.000"
		case n < 20:
			file += ".20260102-030500.000"
		}
		write(t, file, line(n))
	}
	write(t, path+".gz", "not ours\n")
	for tail, from := range map[int64]int{0: 30, 1: 29, 10: 20, 11: 19, 25: 5, 30: 0, 99: 0} {
		var b bytes.Buffer
		if err := Read(path, Options{Tail: &tail}, &b, nil); err != nil {
			t.Fatal(err)
		}
		var want strings.Builder
		for n := from; n < 30; n++ {
			fmt.Fprintf(&want, "line %d\n", n)
		}
		if b.String() != want.String() {
			t.Errorf("tail %d: %q", tail, b.String())
		}
	}
}

func TestLongLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	long := strings.Repeat("x", 100<<10)
	write(t, path, "2026-01-02T03:04:05Z stdout F "+long+"\nbroken\n2026-01-02T03:04:05Z stderr F e\n")
	var out, errOut bytes.Buffer
	if err := Read(path, Options{}, &out, &errOut); err != nil {
		t.Fatal(err)
	}
	if out.String() != long+"\n" || errOut.String() != "e\n" {
		t.Errorf("%d bytes, %q", out.Len(), errOut.String())
	}
}

// lockedBuffer may be written and read at the same time.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestFollowAcrossRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	write(t, path, line(0))
	var out lockedBuffer
	over, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- Follow(t.Context(), path, Options{}, &out, &out, over) }()
	until := func(want string) {
		t.Helper()
		for range 2000 {
			if out.String() == want {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatalf("%q, want %q", out.String(), want)
	}
	until("line 0\n")
	write(t, path, line(1)[:20])
	write(t, path, line(1)[20:])
	until("line 0\nline 1\n")
	r := NewRotator(Limits{MaxSize: 1, MaxFiles: 2}, func(context.Context, string) error { write(t, path, ""); return nil }, clock.RealClock{}, slog.New(slog.DiscardHandler))
	r.Add("c", path)
	for n := 2; n < 5; n++ {
		write(t, path, line(n))
		r.check(t.Context())
		time.Sleep(5 * time.Millisecond)
	}
	write(t, path, line(5))
	until("line 0\nline 1\nline 2\nline 3\nline 4\nline 5\n")
	if left, _, _ := parts(path); len(left) != 2 {
		t.Errorf("files %v", left)
	}
	write(t, path, line(6))
	close(over)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	until("line 0\nline 1\nline 2\nline 3\nline 4\nline 5\nline 6\n")
}

// TestRotationThatWasCutOff finds a log moved away whose writer was not told.
func TestRotationThatWasCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	told := ""
	r := NewRotator(Limits{MaxSize: 1, MaxFiles: 2}, func(_ context.Context, id string) error { told = id; return nil }, clock.RealClock{}, slog.New(slog.DiscardHandler))
	r.Add("c", path)
	r.check(t.Context())
	if told != "c" {
		t.Error("the runtime was not told to write to the log's own name again")
	}
}

func TestPrune(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"0.log", "1.log", "1.log.20260102-030400.000", "2.log", "3.log"} {
		write(t, filepath.Join(dir, name), "x")
	}
	NewRotator(Limits{}, nil, clock.RealClock{}, slog.New(slog.DiscardHandler)).Prune(dir, 4)
	left, _ := filepath.Glob(dir + "/*")
	if len(left) != 1 || filepath.Base(left[0]) != "3.log" {
		t.Errorf("left %v", left)
	}
}
