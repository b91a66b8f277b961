package logs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/clock"
)

// writer appends numbered lines as a shim does, without a pause, and opens its file anew when it is told to.
type writer struct {
	mu   sync.Mutex // guards file
	file *os.File
	path string
}

// reopen opens the file anew. As with a shim, once the new one is there nothing goes to the old one any more.
func (w *writer) reopen(context.Context, string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	f, err := os.OpenFile(w.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	w.file.Close()
	w.file = f
	return nil
}

func (w *writer) write(t *testing.T, b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.file.Write(b); err != nil {
		t.Error(err)
	}
}

// numbered holds that what is read from it are the numbers from from on, each once, in order. It returns the number after the last.
func numbered(in io.Reader, from int) (int, error) {
	sc := bufio.NewScanner(in)
	for sc.Scan() {
		if sc.Text() != fmt.Sprintf("number %d", from) {
			return from, fmt.Errorf("%q in place of number %d", sc.Text(), from)
		}
		from++
	}
	return from, sc.Err()
}

// TestFollowAtFullSpeed has a writer of numbered lines, 60 rotations, and two followers, of which one now and then stands still for longer
// than it takes to pack what it reads: each sees each number once, in order.
func TestFollowAtFullSpeed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	w := &writer{path: path}
	if err := w.reopen(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	var followers sync.WaitGroup
	results := [2]int{}
	for i := range results {
		r, pipe := io.Pipe()
		followers.Go(func() {
			var out io.Writer = pipe
			if i == 1 {
				out = &halting{w: pipe}
			}
			if err := Follow(t.Context(), path, Options{}, out, out, over); err != nil {
				t.Error(err)
			}
			pipe.Close()
		})
		followers.Go(func() {
			var err error
			if results[i], err = numbered(r, 0); err != nil {
				t.Errorf("follower %d: %v", i, err)
				r.CloseWithError(err)
			}
		})
	}
	stop, stopped := make(chan struct{}), make(chan int)
	var allowed atomic.Int64 // lines: without it, the test would take as long as packing gigabytes
	go func() {
		var b []byte
		for n := 0; ; {
			b = b[:0]
			for range 100 {
				b = time.Now().UTC().AppendFormat(b, "2006-01-02T15:04:05.000000000Z07:00")
				b = fmt.Appendf(b, " stdout F number %d\n", n)
				n++
			}
			w.write(t, b)
			for waits := true; waits; waits = int64(n) >= allowed.Load() {
				select {
				case <-stop:
					stopped <- n
					return
				default:
					goruntime.Gosched()
				}
			}
		}
	}()
	rot := NewRotator(Limits{MaxSize: 1, MaxFiles: 1000}, w.reopen, clock.RealClock{}, slog.New(slog.DiscardHandler))
	for range 60 {
		allowed.Add(3000)
		time.Sleep(5 * time.Millisecond)
		if err := rot.rotate(t.Context(), "c", path); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	n := <-stopped
	close(over)
	followers.Wait()
	if d := cmp.Diff([2]int{n, n}, results); d != "" {
		t.Error(d)
	}
	r, pipe := io.Pipe()
	go func() { pipe.CloseWithError(Read(path, Options{}, pipe, pipe)) }()
	if got, err := numbered(r, 0); err != nil || got != n {
		t.Errorf("read: %d of %d, %v", got, n, err)
	}
	tail := int64(n / 2)
	r, pipe = io.Pipe()
	go func() { pipe.CloseWithError(Read(path, Options{Tail: &tail}, pipe, pipe)) }()
	if got, err := numbered(r, n-n/2); err != nil || got != n {
		t.Errorf("the later half: %d of %d, %v", got, n, err)
	}
}

// halting stands still now and then.
type halting struct {
	w io.Writer
	n int
}

func (h *halting) Write(p []byte) (int, error) {
	if h.n++; h.n%5000 == 1 && h.n < 60000 {
		time.Sleep(60 * time.Millisecond)
	}
	return h.w.Write(p)
}

// TestSlowFollower holds that who is too slow for the parts that are kept goes on with the oldest, in order and without a repeat.
func TestSlowFollower(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	write(t, path, line(0))
	r, err := open(path, Options{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	var out lockedBuffer
	r.stdout = &out
	rot := NewRotator(Limits{MaxSize: 1, MaxFiles: 3}, recreate(t, path), clock.RealClock{}, slog.New(slog.DiscardHandler))
	for n := 1; n < 8; n++ {
		if err := rot.rotate(t.Context(), "c", path); err != nil {
			t.Fatal(err)
		}
		write(t, path, line(n))
	}
	for moved := true; moved; {
		if err := r.drain(); err != nil {
			t.Fatal(err)
		}
		if moved, err = r.next(path); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(lines(0, 1)+lines(5, 8), out.String()); d != "" {
		t.Error(d)
	}
}

// TestFollowWhatIsNotThere follows a log that was moved away by an agent that ended then, one that is removed by hand, and one whose
// folder is removed.
func TestFollowWhatIsNotThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "0.log")
	moved := path + ".20260102-030405.000"
	write(t, moved, line(0))
	var out lockedBuffer
	over, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- Follow(t.Context(), path, Options{}, &out, &out, over) }()
	until := func(n int) {
		t.Helper()
		for range 3000 {
			if out.String() == lines(0, n) {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatalf("%q, want %d lines", out.String(), n)
	}
	until(1)
	write(t, moved, line(1))
	until(2)
	write(t, path, line(2))
	until(3)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, line(3))
	until(4)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, path, line(4))
	until(5)
	close(over)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := Follow(t.Context(), filepath.Join(dir, "1.log"), Options{}, &out, &out, over); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no log: %v", err)
	}
}

func TestOptions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	const old = "2026-01-02T03:04:05.000000000Z "
	const at = "2026-01-02T03:04:06.000000000Z "
	write(t, path+".20260102-030405.000", old+"stdout F old\n")
	if err := os.Chtimes(path+".20260102-030405.000", time.Time{}, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	write(t, path, old+"stdout F a\n"+at+"stdout P b\n"+at+"stdout P c\n"+at+"stdout F d\n"+at+"stderr F e \x00\xff\r\n"+at+"stdout P no newline\n"+at+"stdout F half an en")
	second := time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC)
	n := func(i int64) *int64 { return &i }
	for name, c := range map[string]struct {
		o           Options
		noErr       bool
		want, wantE string
	}{
		"all":           {Options{}, false, "old\na\nbcd\nno newline", "e \x00\xff\r\n"},
		"stdout alone":  {Options{}, true, "old\na\nbcd\nno newline", ""},
		"since":         {Options{Since: second}, false, "bcd\nno newline", "e \x00\xff\r\n"},
		"since later":   {Options{Since: second.Add(1)}, false, "", ""},
		"since earlier": {Options{Since: second.Add(-5 * time.Second)}, false, "old\na\nbcd\nno newline", "e \x00\xff\r\n"},
		"stamps":        {Options{Timestamps: true, Since: second}, true, at + "bcd\n" + at + "no newline", ""},
		"limit":         {Options{Limit: n(8)}, true, "old\na\nbc", ""},
		"limit stamps":  {Options{Limit: n(33), Timestamps: true}, true, old + "ol", ""},
		"tail 0":        {Options{Tail: n(0)}, false, "", ""},
		"tail 1":        {Options{Tail: n(1)}, false, "no newline", ""},
		"tail 2":        {Options{Tail: n(2)}, false, "no newline", "e \x00\xff\r\n"},
		"tail 3":        {Options{Tail: n(3)}, false, "bcd\nno newline", "e \x00\xff\r\n"},
		"tail 4":        {Options{Tail: n(4)}, false, "a\nbcd\nno newline", "e \x00\xff\r\n"},
		"tail 5":        {Options{Tail: n(5)}, false, "old\na\nbcd\nno newline", "e \x00\xff\r\n"},
		"tail, limit":   {Options{Tail: n(3), Limit: n(2)}, false, "bc", ""},
	} {
		var out, errOut strings.Builder
		var e io.Writer = &errOut
		if c.noErr {
			e = nil
		}
		if err := Read(path, c.o, &out, e); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([2]string{c.want, c.wantE}, [2]string{out.String(), errOut.String()}); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
