package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Options say what to read. The zero value is everything.
type Options struct {
	// Tail is the number of lines from the end, Limit of bytes at most; nil for all.
	Tail, Limit *int64
	// Since leaves older lines out.
	Since      time.Time
	Timestamps bool
}

// Read writes the log at path to the two outputs. A nil output is left out.
func Read(path string, o Options, stdout, stderr io.Writer) error {
	r, err := open(path, o, stdout, stderr)
	if err != nil {
		return err
	}
	defer r.close()
	return ended(r.drain())
}

// Follow is Read, and then goes on with what is added, until ctx or the container ends. ended is closed when it has.
func Follow(ctx context.Context, path string, o Options, stdout, stderr io.Writer, containerEnded <-chan struct{}) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("follow %s: %w", path, err)
	}
	defer watcher.Close()
	if err := watcher.Add(filepath.Dir(path)); err != nil {
		return fmt.Errorf("follow %s: %w", path, err)
	}
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
		for relevant := false; !relevant; {
			select {
			case <-ctx.Done():
				return nil
			case <-containerEnded:
				containerEnded, relevant = nil, true // once more, then done
			case err := <-watcher.Errors:
				return fmt.Errorf("follow %s: %w", path, err)
			case ev := <-watcher.Events:
				relevant = ev.Name == path
			}
		}
	}
}

// errLimit ends reading when enough has been written.
var errLimit = errors.New("the limit of bytes is reached")

func ended(err error) error {
	if errors.Is(err, errLimit) {
		return nil
	}
	return err
}

// parts are the files of a log, oldest first; the last is path itself.
func parts(path string) []string {
	rotated, _ := filepath.Glob(path + ".*")
	sort.Strings(rotated)
	list := rotated[:0]
	for _, p := range rotated {
		if _, err := time.Parse(rotatedLayout, strings.TrimPrefix(p, path+".")); err == nil {
			list = append(list, p)
		}
	}
	return append(list, path)
}

type reader struct {
	o      Options
	out    map[string]io.Writer
	left   int64
	files  []*os.File
	buf    *bufio.Reader
	middle map[string]bool // a stream whose last line was partial
	rest   []byte
}

// open finds where to begin and makes a reader.
func open(path string, o Options, stdout, stderr io.Writer) (*reader, error) {
	r := &reader{o: o, out: map[string]io.Writer{"stdout": stdout, "stderr": stderr}, left: -1, middle: map[string]bool{}}
	if o.Limit != nil {
		r.left = *o.Limit
	}
	for _, p := range parts(path) {
		f, err := os.Open(p)
		if errors.Is(err, os.ErrNotExist) && p != path {
			continue // pruned meanwhile
		}
		if err != nil {
			r.close()
			return nil, err
		}
		r.files = append(r.files, f)
	}
	if o.Tail != nil {
		if err := r.seekTail(*o.Tail); err != nil {
			r.close()
			return nil, err
		}
	}
	r.buf = bufio.NewReaderSize(r.files[0], 32<<10)
	return r, nil
}

func (r *reader) close() {
	for _, f := range r.files {
		f.Close()
	}
}

// seekTail drops the files, and moves in the first that stays, so that n lines are left.
func (r *reader) seekTail(n int64) error {
	for i := len(r.files) - 1; i >= 0; i-- {
		found, at, err := lastLines(r.files[i], n)
		if err != nil {
			return err
		}
		if _, err := r.files[i].Seek(at, io.SeekStart); err != nil {
			return err
		}
		n -= found
		if n <= 0 {
			for _, f := range r.files[:i] {
				f.Close()
			}
			r.files = r.files[i:]
			return nil
		}
	}
	return nil
}

// lastLines is where the last n lines of the file begin, and how many there are.
func lastLines(f *os.File, n int64) (found, at int64, err error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || n <= 0 || size == 0 {
		return 0, size, err
	}
	const block = 32 << 10
	buf := make([]byte, block)
	end := size
	for end > 0 {
		begin := max(end-block, 0)
		b := buf[:end-begin]
		if _, err := f.ReadAt(b, begin); err != nil && err != io.EOF {
			return 0, 0, err
		}
		for i := len(b) - 1; i >= 0; i-- {
			if b[i] != '\n' || begin+int64(i) == size-1 {
				continue
			}
			if found++; found == n {
				return found, begin + int64(i) + 1, nil
			}
		}
		end = begin
	}
	return found + 1, 0, nil
}

// drain writes all whole lines that there are, through all files at hand.
func (r *reader) drain() error {
	for {
		line, err := r.buf.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			r.rest = append(r.rest, line...)
			continue
		}
		if err == io.EOF {
			r.rest = append(r.rest, line...)
			if len(r.files) == 1 {
				return nil
			}
			r.files[0].Close()
			r.files, r.rest = r.files[1:], nil
			r.buf.Reset(r.files[0])
			continue
		}
		if err != nil {
			return err
		}
		if len(r.rest) > 0 {
			line = append(r.rest, line...)
		}
		err = r.write(line)
		r.rest = r.rest[:0]
		if err != nil {
			return err
		}
	}
}

// next goes on to the file that has taken the path of a rotated one.
func (r *reader) next(path string) (bool, error) {
	now, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // between rename and reopen, or the end
	}
	if err != nil {
		return false, err
	}
	was, err := r.files[0].Stat()
	if err != nil || os.SameFile(was, now) {
		return false, err
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	r.files = append(r.files, f)
	return true, nil
}

// write passes one line on. A line that is not in the format is passed over.
func (r *reader) write(line []byte) error {
	stamp, rest, ok := bytes.Cut(line, []byte(" "))
	stream, rest, ok2 := bytes.Cut(rest, []byte(" "))
	tags, text, ok3 := bytes.Cut(rest, []byte(" "))
	if !ok || !ok2 || !ok3 {
		return nil
	}
	name := string(stream)
	continues := r.middle[name]
	partial := false
	for tag := range bytes.SplitSeq(tags, []byte(":")) {
		partial = partial || string(tag) == "P"
	}
	r.middle[name] = partial
	w := r.out[name]
	if w == nil {
		return nil
	}
	if !r.o.Since.IsZero() {
		if at, err := time.Parse(time.RFC3339Nano, string(stamp)); err != nil || at.Before(r.o.Since) {
			return nil
		}
	}
	if partial {
		text = bytes.TrimSuffix(text, []byte("\n"))
	}
	if r.o.Timestamps && !continues {
		text = append(append(append([]byte{}, stamp...), ' '), text...)
	}
	if r.left >= 0 && int64(len(text)) > r.left {
		text = text[:r.left]
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	if r.left >= 0 {
		if r.left -= int64(len(text)); r.left <= 0 {
			return errLimit
		}
	}
	return nil
}
