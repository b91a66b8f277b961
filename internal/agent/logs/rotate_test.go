package logs

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// recreate is a runtime that writes to the log's own name again.
func recreate(t *testing.T, path string) func(context.Context, string) error {
	return func(context.Context, string) error { write(t, path, ""); return nil }
}

func text(t *testing.T, path string, o Options) string {
	t.Helper()
	var b bytes.Buffer
	if err := Read(path, o, &b, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// lines is what lines from to before till read as.
func lines(from, till int) string {
	var b strings.Builder
	for n := from; n < till; n++ {
		fmt.Fprintf(&b, "line %d\n", n)
	}
	return b.String()
}

// TestRotation follows the names and contents of the parts, with a clock that stands and then is set back.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	at := clocktesting.NewFakeClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	r := NewRotator(Limits{MaxSize: 1, MaxFiles: 4}, recreate(t, path), at, slog.New(slog.DiscardHandler))
	r.Add("c", path)
	write(t, path+".20260101-000000.000.gz.tmp", "half packed")
	for n := range 5 {
		for i := range 10 {
			write(t, path, line(10*n+i))
		}
		if n == 3 {
			at.SetTime(at.Now().Add(-time.Hour))
		}
		r.check(t.Context())
	}
	want := []string{"0.log", "0.log.20260102-030405.002.gz", "0.log.20260102-030405.003.gz", "0.log.20260102-030405.004"}
	if d := cmp.Diff(want, names(t, dir)); d != "" {
		t.Error(d)
	}
	write(t, path, line(50))
	if d := cmp.Diff(lines(20, 51), text(t, path, Options{})); d != "" {
		t.Error(d)
	}
	for _, tail := range []int64{0, 1, 2, 11, 12, 20, 21, 22, 30, 31, 99} {
		if d := cmp.Diff(lines(max(51-int(tail), 20), 51), text(t, path, Options{Tail: &tail})); d != "" {
			t.Errorf("tail %d: %s", tail, d)
		}
	}
}

// TestPackedTwice holds that a part whose packing was cut off at its very end is read once.
func TestPackedTwice(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	old := path + ".20260102-030405.000"
	write(t, old, line(0))
	list, _, err := parts(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := pack(list[0]); err != nil {
		t.Fatal(err)
	}
	write(t, old, line(0))
	write(t, path, line(1))
	if got := text(t, path, Options{}); got != lines(0, 2) {
		t.Errorf("%q", got)
	}
	r := NewRotator(Limits{MaxSize: 1, MaxFiles: 4}, recreate(t, path), clock.RealClock{}, slog.New(slog.DiscardHandler))
	if err := r.rotate(t.Context(), "c", path); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); len(got) != 3 || got[1] != "0.log.20260102-030405.000.gz" {
		t.Error(got)
	}
	st, err := os.Stat(old + ".gz")
	if err != nil || !st.ModTime().Equal(list[0].info.ModTime()) {
		t.Errorf("packed: %v %v, was %v", st.ModTime(), err, list[0].info.ModTime())
	}
}

// TestDamagedPart holds that a part which cannot be unpacked does not hide the others.
func TestDamagedPart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	var whole bytes.Buffer
	zip := gzip.NewWriter(&whole)
	for n := range 10000 {
		io.WriteString(zip, line(n))
	}
	zip.Close()
	write(t, path+".20260102-030405.000.gz", "this is not gzip")
	write(t, path+".20260102-030406.000.gz", whole.String()[:whole.Len()/2])
	write(t, path+".20260102-030407.000.gz", "")
	write(t, path, line(1))
	got := text(t, path, Options{})
	if !strings.HasPrefix(got, lines(0, 1000)) || !strings.HasSuffix(got, "\nline 1\n") {
		t.Errorf("%d bytes", len(got))
	}
	tail := int64(3)
	if got := text(t, path, Options{Tail: &tail}); !strings.HasSuffix(got, "\nline 1\n") || strings.Count(got, "\n") != 3 {
		t.Errorf("%q", got)
	}
}

// TestReopenFails holds that no line is lost when the runtime says that it did not open the log anew, whether that is true or not.
func TestReopenFails(t *testing.T) {
	for _, opened := range []bool{false, true} {
		dir := t.TempDir()
		path := filepath.Join(dir, "0.log")
		write(t, path, line(0))
		r := NewRotator(Limits{MaxSize: 1, MaxFiles: 3}, func(context.Context, string) error {
			if opened {
				write(t, path, line(1))
			}
			return errors.New("no answer")
		}, clock.RealClock{}, slog.New(slog.DiscardHandler))
		if err := r.rotate(t.Context(), "c", path); err == nil || !strings.Contains(err.Error(), "no answer") {
			t.Errorf("%v", err)
		}
		want := lines(0, 1)
		if opened {
			want = lines(0, 2)
		}
		if got := text(t, path, Options{}); got != want {
			t.Errorf("opened %v: %q in %v", opened, got, names(t, dir))
		}
	}
}

// TestFolderGone holds that a log whose folder was removed comes back, but not that of a container which has ended.
func TestFolderGone(t *testing.T) {
	top := t.TempDir()
	path := filepath.Join(top, "pod", "c", "0.log")
	running := true
	r := NewRotator(Limits{MaxSize: 1, MaxFiles: 3}, func(context.Context, string) error {
		if !running {
			return errors.New("not running")
		}
		return os.WriteFile(path, nil, 0o600)
	}, clock.RealClock{}, slog.New(slog.DiscardHandler))
	r.Add("c", path)
	r.check(t.Context())
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	running = false
	if err := os.RemoveAll(filepath.Join(top, "pod")); err != nil {
		t.Fatal(err)
	}
	r.check(t.Context())
	if left := names(t, top); len(left) != 0 {
		t.Error(left)
	}
}

func TestDue(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		was, size int64
		want      time.Duration
	}{
		"empty":            {-1, 0, checkEvery},
		"not known before": {-1, 50, checkSoonest},
		"still":            {50, 50, checkEvery},
		"slow":             {50, 51, checkEvery},
		"half way":         {0, 50, time.Second},
		"fast":             {0, 99, checkSoonest},
		"just rotated":     {50, 150, time.Second * 100 / 150},
	} {
		f := growing{size: c.was, at: start}
		if got := f.due(c.size, 100, start.Add(time.Second)); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
