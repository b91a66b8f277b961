package main

import (
	"bytes"
	"time"

	"golang.org/x/sys/unix"
)

// maxLine is the longest piece of a line in one log entry, in bytes; longer lines become several entries, all but the last tagged P.
const maxLine = 16 << 10

// stream is one of a container's outputs: read by the shim, written to the log and to the attached sessions.
type stream struct {
	fd   int
	name string
	// line holds the beginning of a line whose end has not come.
	line []byte
}

// openLog opens the log file anew; the old one stays in use if that fails. Containers without a log path log nowhere.
func (k *container) openLog() error {
	if k.log == "" {
		return nil
	}
	// Without blocking: a file is written to as ever, and a fifo without a reader is refused.
	fd, err := unix.Open(k.log, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o640)
	if err != nil {
		return err
	}
	if k.logFD >= 0 {
		unix.Close(k.logFD)
	}
	k.logFD = fd
	return nil
}

// take logs what one read of a stream brought, with one time for all of it. The entries gather in a buffer that is kept: short lines make a
// multiple of what came.
func (s *shim) take(k *container, st *stream, b []byte) {
	if k.logFD < 0 {
		return
	}
	s.head = st.head(s.head[:0])
	entries := s.entries[:0]
	for len(b) > 0 {
		if len(entries) > maxLine {
			k.write(entries)
			entries = entries[:0]
		}
		i := bytes.IndexByte(b, '\n')
		piece, used, tag := b, len(b), byte(0)
		if i >= 0 {
			piece, used, tag = b[:i], i+1, 'F'
		}
		if room := maxLine - len(st.line); len(piece) > room {
			piece, used, tag = b[:room], room, 'P'
		}
		b = b[used:]
		if tag == 0 {
			st.line = append(st.line, piece...)
			break
		}
		entries = append(append(entries, s.head...), tag, ' ')
		entries = append(append(append(entries, st.line...), piece...), '\n')
		st.line = st.line[:0]
	}
	k.write(entries)
	s.entries = entries
}

// finish logs a last line that has no newline: as in other runtimes it is partial, so that who reads it adds none.
func (k *container) finish(st *stream) {
	if len(st.line) > 0 && k.logFD >= 0 {
		k.write(append(append(append(st.head(nil), 'P', ' '), st.line...), '\n'))
		st.line = nil
	}
}

// head appends the beginning of an entry in the CRI's log format: time and stream.
func (st *stream) head(b []byte) []byte {
	b = time.Now().UTC().AppendFormat(b, "2006-01-02T15:04:05.000000000Z07:00")
	return append(append(append(b, ' '), st.name...), ' ')
}

// write writes entries to the log. A full disk loses some, never the container; what is written later begins on a line of its own.
func (k *container) write(b []byte) {
	if k.torn && len(b) > 0 {
		if _, err := unix.Write(k.logFD, []byte{'\n'}); err != nil {
			return
		}
		k.torn = false
	}
	for done := 0; done < len(b); {
		n, err := unix.Write(k.logFD, b[done:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			k.torn = done > 0 && b[done-1] != '\n'
			return
		}
		done += n
	}
}
