package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

// httpError is an answer of a registry that is not success.
type httpError struct {
	url     string // without query
	status  int
	message string // what the registry says, if anything
	retryAt string // Retry-After: seconds, or a date
}

func (e *httpError) Error() string {
	s := fmt.Sprintf("%s: %d %s", e.url, e.status, http.StatusText(e.status))
	if e.message != "" {
		s += ": " + e.message
	}
	return s
}

// Is makes the status comparable to what it means.
func (e *httpError) Is(target error) bool {
	switch target {
	case ErrUnauthorized:
		return e.status == http.StatusUnauthorized || e.status == http.StatusForbidden
	case ErrNotFound:
		return e.status == http.StatusNotFound
	case ErrCorrupt:
		return e.status == http.StatusRequestedRangeNotSatisfiable
	case ErrUnavailable:
		return e.passing()
	}
	return false
}

func (e *httpError) passing() bool {
	return e.status >= 500 || e.status == http.StatusTooManyRequests || e.status == http.StatusRequestTimeout
}

// after is how long the registry wants to be left alone.
func (e *httpError) after(now time.Time) time.Duration {
	if sec, err := strconv.Atoi(e.retryAt); err == nil {
		return time.Duration(sec) * time.Second
	}
	if t, err := http.ParseTime(e.retryAt); err == nil {
		return t.Sub(now)
	}
	return 0
}

// transient says whether the same request may well work a little later. A refused connection or an unknown host is not: other
// hosts, and then the caller's own back-off, come first.
func transient(err error) bool {
	if h, ok := errors.AsType[*httpError](err); ok {
		return h.passing()
	}
	if errors.Is(err, context.Canceled) {
		return false
	}
	if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() {
		return true
	}
	for _, e := range []error{io.ErrUnexpectedEOF, io.EOF, errStalled, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// retry repeats fn while it fails for passing reasons, with growing pauses, or those the registry asks for.
func (s *Store) retry(ctx context.Context, fn func() error) error {
	delay := s.cfg.RetryDelay
	for n := 1; ; n++ {
		err := fn()
		if err == nil || n >= s.cfg.Attempts || ctx.Err() != nil || !transient(err) {
			return err
		}
		pause := delay
		if h, ok := errors.AsType[*httpError](err); ok {
			pause = max(pause, min(h.after(s.cfg.Clock.Now()), time.Minute))
		}
		t := s.cfg.Clock.NewTimer(pause)
		select {
		case <-t.C():
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
		delay *= 2
	}
}

// worst sums up what several hosts said: the telling reason first. "Not found" holds only if every host says so.
func worst(errs []error) error {
	for _, kind := range []error{syscall.ENOSPC, context.Canceled, ErrCorrupt, ErrUnauthorized, ErrInvalid, ErrPlatform} {
		for i, err := range errs {
			if errors.Is(err, kind) {
				return told(kind, errs, i)
			}
		}
	}
	for i, err := range errs {
		if !errors.Is(err, ErrNotFound) {
			return told(ErrUnavailable, errs, i)
		}
	}
	return told(ErrNotFound, errs, 0)
}

// told gives the error at i its kind in words, and adds what the other hosts said.
func told(kind error, errs []error, i int) error {
	out := errs[i]
	// An httpError only means the kind, its text does not say it.
	_, answer := errors.AsType[*httpError](out)
	ours := !errors.Is(kind, syscall.ENOSPC) && !errors.Is(kind, context.Canceled)
	if ours && (answer || !errors.Is(out, kind)) {
		out = fmt.Errorf("%w: %w", kind, out)
	}
	for j, e := range errs {
		if j != i {
			out = fmt.Errorf("%w; %v", out, e)
		}
	}
	return out
}
