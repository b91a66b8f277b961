package logs

import (
	"bytes"
)

// entry is one line of a log file, in pieces of it.
type entry struct {
	stamp, text []byte
	// stderr says which of the two streams it is of.
	stderr bool
	// partial says that the line it belongs to goes on; text has no newline then.
	partial bool
}

// parseEntry takes a line of a log file apart, with its newline or without. False if it is no entry of the CRI's format.
func parseEntry(line []byte) (e entry, ok bool) {
	stamp, rest, ok1 := bytes.Cut(line, []byte{' '})
	stream, rest, ok2 := bytes.Cut(rest, []byte{' '})
	tags, text, ok3 := bytes.Cut(rest, []byte{' '})
	if !ok1 || !ok2 || !ok3 || len(stamp) < len("2006-01-02T15:04:05Z") || stamp[4] != '-' || stamp[7] != '-' || stamp[10] != 'T' {
		return entry{}, false
	}
	e = entry{stamp: stamp, text: text}
	switch string(stream) {
	case "stdout":
	case "stderr":
		e.stderr = true
	default:
		return entry{}, false
	}
	tag, _, _ := bytes.Cut(tags, []byte{':'})
	if e.partial = string(tag) == "P"; e.partial {
		e.text = bytes.TrimSuffix(text, []byte{'\n'})
	}
	return e, true
}

// maxHead is more than the part of an entry before its text takes.
const maxHead = 80

// endsLine says whether an entry begins so, and whether it is the last of its line.
func endsLine(head []byte) (ok, ends bool) {
	head, _, _ = bytes.Cut(head, []byte{'\n'})
	e, ok := parseEntry(head)
	return ok, ok && !e.partial
}
