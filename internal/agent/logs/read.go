package logs

import (
	"bufio"
	"errors"
	"io"
	"os"
	"time"
)

// Options say what to read. The zero value is everything.
type Options struct {
	// Tail is the number of lines from the end, Limit of bytes at most; nil for all.
	Tail, Limit *int64
	// Since leaves older entries out.
	Since time.Time
	// Timestamps puts its time in front of each line.
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

// errLimit ends reading when enough has been written.
var errLimit = errors.New("the limit of bytes is reached")

func ended(err error) error {
	if errors.Is(err, errLimit) {
		return nil
	}
	return err
}

// reader goes through the files of a log.
type reader struct {
	o              Options
	stdout, stderr io.Writer
	// left is how many bytes may still be written; negative for no limit.
	left  int64
	files []*file
	buf   *bufio.Reader
	// rest is the beginning of an entry.
	rest []byte
	// outGoesOn and errGoesOn say that a stream's last entry was partial.
	outGoesOn, errGoesOn bool
	line                 []byte // reused
}

// open finds where to begin and makes a reader.
func open(path string, o Options, stdout, stderr io.Writer) (*reader, error) {
	r := &reader{o: o, stdout: stdout, stderr: stderr, left: -1}
	if o.Limit != nil {
		r.left = *o.Limit
	}
	var err error
	if r.files, err = snapshot(path, o.Since); err != nil {
		return nil, err
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

func (r *reader) close() { closeAll(r.files) }

// drain writes all whole entries that there are, through all files at hand.
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
			r.files, r.rest = r.files[1:], r.rest[:0]
			r.buf.Reset(r.files[0])
			continue
		}
		if err != nil {
			return err
		}
		if len(r.rest) > 0 {
			r.rest = append(r.rest, line...)
			line = r.rest
		}
		err = r.write(line)
		r.rest = r.rest[:0]
		if err != nil {
			return err
		}
	}
}

// next opens the part that follows the newest one at hand, if there is one. The part at hand is complete then.
func (r *reader) next(path string) (bool, error) {
	last := r.files[len(r.files)-1]
	if now, err := os.Stat(path); err == nil && os.SameFile(last.info, now) {
		return false, nil
	}
	for {
		list, _, err := parts(path)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil // the folder is gone
		}
		if err != nil {
			return false, err
		}
		if again, _, err := parts(path); err != nil || !sameParts(list, again) {
			continue // what was moved just now may be missing in the list
		}
		f, err := last.successor(list)
		if errors.Is(err, os.ErrNotExist) {
			continue // something was moved just now
		}
		if err != nil || f == nil {
			return false, err
		}
		r.files = append(r.files, f)
		return true, nil
	}
}

// successor opens the part after f; nil if f is the newest. If f itself is no longer there, that is the oldest newer one.
func (f *file) successor(list []part) (*file, error) {
	before := ""
	for _, p := range list {
		if p.at != "" && p.at <= f.at {
			before = p.at
			continue
		}
		if f.is(p) {
			if p.at != "" {
				f.at, before = p.at, p.at
			}
			continue
		}
		next, err := openPart(p)
		if err == nil && p.at == "" {
			next.at = before
		}
		return next, err
	}
	return nil, nil
}

// write passes one entry on.
func (r *reader) write(raw []byte) error {
	e, ok := parseEntry(raw)
	if f := r.files[0]; f.skip > 0 {
		if ok && !e.partial {
			f.skip--
		}
		return nil
	}
	if !ok {
		return nil
	}
	w, goesOn := r.stdout, &r.outGoesOn
	if e.stderr {
		w, goesOn = r.stderr, &r.errGoesOn
	}
	continues := *goesOn
	*goesOn = e.partial
	if w == nil {
		return nil
	}
	if !r.o.Since.IsZero() {
		if at, err := time.Parse(time.RFC3339Nano, string(e.stamp)); err != nil || at.Before(r.o.Since) {
			return nil
		}
	}
	text := e.text
	if r.o.Timestamps && !continues {
		r.line = append(append(append(r.line[:0], e.stamp...), ' '), text...)
		text = r.line
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
