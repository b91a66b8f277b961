package embedded

// history holds the latest changes in memory, so that a watcher need not read them back from disk. It is bounded by number and by
// bytes; a watcher that falls behind it reads from disk.
type history struct {
	events []event
	bytes  int
	// from is the first revision that is wholly in events; everything from there on is.
	from int64
}

// The bounds of the history.
const (
	historyEvents = 2048
	historyBytes  = 2 << 20
)

func (h *history) add(events []event) {
	for _, e := range events {
		h.bytes += e.size()
	}
	h.events = append(h.events, events...)
	drop := 0
	for len(h.events)-drop > 0 && (len(h.events)-drop > historyEvents || h.bytes > historyBytes) {
		rev := h.events[drop].now.rev
		for drop < len(h.events) && h.events[drop].now.rev == rev { // revisions leave whole
			h.bytes -= h.events[drop].size()
			h.events[drop] = event{}
			drop++
		}
		h.from = rev + 1
	}
	h.events = h.events[drop:]
}

// since lists the changes from revision from on that match; ok is false if they are not all in memory.
func (h *history) since(from int64, match func(key []byte) bool) (out []event, ok bool) {
	if from < h.from {
		return nil, false
	}
	lo, hi := 0, len(h.events)
	for lo < hi {
		if mid := (lo + hi) / 2; h.events[mid].now.rev < from {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	for _, e := range h.events[lo:] {
		if match(e.now.key) {
			out = append(out, e)
		}
	}
	return out, true
}
