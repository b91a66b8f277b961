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
	fd, err := unix.Open(k.log, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_CLOEXEC, 0o640)
	if err != nil {
		return err
	}
	if k.logFD >= 0 {
		unix.Close(k.logFD)
	}
	k.logFD = fd
	return nil
}

// take logs what a stream brought. The entries gather in a buffer that is kept: short lines make a multiple of what came.
func (s *shim) take(k *container, st *stream, b []byte) {
	if k.logFD < 0 {
		return
	}
	entries := s.entries[:0]
	for len(b) > 0 {
		if len(entries) > maxLine {
			writeAll(k.logFD, entries)
			entries = entries[:0]
		}
		i := bytes.IndexByte(b, '\n')
		piece := b
		if i >= 0 {
			piece = b[:i]
		}
		room := maxLine - len(st.line)
		if len(piece) > room {
			st.line = append(st.line, piece[:room]...)
			entries = st.entry(entries, 'P')
			b = b[room:]
			continue
		}
		st.line = append(st.line, piece...)
		if i < 0 {
			break
		}
		entries = st.entry(entries, 'F')
		b = b[i+1:]
	}
	writeAll(k.logFD, entries)
	s.entries = entries
}

// finish logs a last line that has no newline.
func (k *container) finish(st *stream) {
	if len(st.line) > 0 && k.logFD >= 0 {
		writeAll(k.logFD, st.entry(nil, 'F'))
	}
}

// entry appends the gathered line as an entry of the CRI's log format: time, stream, tag, text.
func (st *stream) entry(b []byte, tag byte) []byte {
	b = time.Now().UTC().AppendFormat(b, "2006-01-02T15:04:05.000000000Z07:00")
	b = append(b, ' ')
	b = append(b, st.name...)
	b = append(b, ' ', tag, ' ')
	b = append(b, st.line...)
	st.line = st.line[:0]
	return append(b, '\n')
}

func writeAll(fd int, b []byte) {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return // a full disk loses log lines, never the container
		}
		b = b[n:]
	}
}
