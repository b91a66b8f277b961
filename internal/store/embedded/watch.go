package embedded

import (
	"bytes"
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// maxEvents bounds the changes in one response, except that a revision is never split.
const maxEvents = 1000

// watch is one watcher: a goroutine that sends what happened in its range since the revision that it has reached.
type watch struct {
	db             *DB
	lo, hi         []byte // the range of keys; hi nil for the key lo alone
	open           bool   // the range has no end
	prevKV         bool
	noPut, noDel   bool
	progressNotify bool // periodic progress was asked for

	ctx    context.Context
	cancel context.CancelFunc
	signal chan struct{} // capacity 1
	out    chan clientv3.WatchResponse

	next int64 // the first revision that was not looked at. The goroutine's own.
	told int64 // the revision of the last response. The goroutine's own.

	// Guarded by db.mu.
	pending  int64 // the first revision with something for this watcher that it has not read; 0 for none
	asked    bool  // a progress notification is owed
	periodic bool  // one is owed if the revision moved
}

func (w *watch) matches(key []byte) bool {
	switch {
	case w.open:
		return bytes.Compare(key, w.lo) >= 0
	case w.hi == nil:
		return bytes.Equal(key, w.lo)
	}
	return bytes.Compare(key, w.lo) >= 0 && bytes.Compare(key, w.hi) < 0
}

// wants notes whether any of the events is for the watcher. db.mu is held.
func (w *watch) wants(events []event) bool {
	for _, e := range events {
		if w.matches(e.now.key) {
			if w.pending == 0 {
				w.pending = e.now.rev
			}
			return true
		}
	}
	return false
}

func (w *watch) wake() {
	select {
	case w.signal <- struct{}{}:
	default: // it is awake
	}
}

// run sends until the context ends or the revisions it needs are gone.
func (w *watch) run() {
	defer w.db.wg.Done()
	defer close(w.out)
	defer w.cancel()
	defer func() {
		w.db.mu.Lock()
		delete(w.db.watches, w)
		w.db.mu.Unlock()
	}()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-w.signal:
		}
		if !w.step() {
			return
		}
	}
}

// step sends all that is pending, and progress behind it.
func (w *watch) step() bool {
	w.db.mu.Lock()
	from, upto, compacted := w.pending, w.db.rev, w.db.compacted
	asked, periodic := w.asked, w.periodic
	w.pending, w.asked, w.periodic = 0, false, false
	var events []event
	inMemory := true
	if from > 0 {
		from = max(from, w.next)
		events, inMemory = w.db.history.since(from, w.matches)
	}
	w.db.mu.Unlock()

	if from > compacted && !inMemory {
		var err error
		if events, upto, compacted, err = w.fromDisk(from, upto); err != nil {
			if w.ctx.Err() == nil && !errors.Is(err, errClosed) {
				w.send(clientv3.WatchResponse{Header: header(upto), Canceled: true, CancelReason: err.Error()})
			}
			return false
		}
	}
	if from > 0 && from <= compacted {
		w.send(clientv3.WatchResponse{Header: header(upto), Canceled: true, CompactRevision: compacted})
		return false
	}
	for len(events) > 0 {
		n := min(len(events), maxEvents)
		for n < len(events) && events[n].now.rev == events[n-1].now.rev {
			n++
		}
		if out := w.convert(events[:n]); len(out) > 0 {
			if !w.send(clientv3.WatchResponse{Header: header(upto), Events: out}) {
				return false
			}
			w.told = upto
		}
		events = events[n:]
	}
	w.next = max(w.next, upto+1)
	if (asked || periodic && upto > w.told) && w.next == upto+1 {
		w.told = upto
		return w.send(clientv3.WatchResponse{Header: header(upto)})
	}
	return true
}

// fromDisk reads what the history in memory no longer has.
func (w *watch) fromDisk(from, upto int64) (events []event, _, compacted int64, err error) {
	err = w.db.read(func(v view, _, c int64) error {
		compacted = c
		if from <= c {
			return nil
		}
		hi := w.hi
		switch {
		case w.open:
			hi = nil
		case hi == nil:
			hi = append(bytes.Clone(w.lo), 0)
		}
		var err error
		events, err = v.since(w.lo, hi, from, upto)
		return err
	})
	return events, upto, compacted, err
}

func (w *watch) convert(events []event) []*clientv3.Event {
	out := make([]*clientv3.Event, 0, len(events))
	for _, e := range events {
		if e.now.rev < w.next || (e.now.deleted && w.noDel) || (!e.now.deleted && w.noPut) {
			continue
		}
		ev := &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: e.now.kv()}
		if e.now.deleted {
			ev.Type = mvccpb.Event_DELETE
		}
		if w.prevKV && e.prev != nil {
			ev.PrevKv = e.prev.kv()
		}
		out = append(out, (*clientv3.Event)(ev))
	}
	return out
}

func (w *watch) send(r clientv3.WatchResponse) bool {
	select {
	case w.out <- r:
		return true
	case <-w.ctx.Done():
		return false
	}
}

// watcher is clientv3's Watcher.
type watcher struct{ db *DB }

var _ clientv3.Watcher = watcher{}

// Watch sends the changes of a key or range from a revision on, or from now.
func (s watcher) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	op := clientv3.OpWatch(key, opts...)
	w := &watch{
		db: s.db, lo: op.KeyBytes(), hi: op.RangeBytes(), prevKV: op.IsPrevKV(), noPut: op.IsFilterPut(), noDel: op.IsFilterDelete(),
		progressNotify: op.IsProgressNotify(), signal: make(chan struct{}, 1), out: make(chan clientv3.WatchResponse, 1),
	}
	if len(w.hi) == 0 {
		w.hi = nil
	} else if rangeEnd(w.hi) == nil {
		w.hi, w.open = nil, true
	}
	w.ctx, w.cancel = context.WithCancel(ctx)

	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	if s.db.closed {
		w.cancel()
		w.out <- clientv3.WatchResponse{Header: header(s.db.rev), Canceled: true, CancelReason: errClosed.Error()}
		close(w.out)
		return w.out
	}
	w.next = op.Rev()
	if w.next <= 0 {
		w.next = s.db.rev + 1
	}
	w.told = w.next - 1
	if w.next <= s.db.rev {
		w.pending = w.next
		w.signal <- struct{}{}
	}
	if op.IsCreatedNotify() {
		w.out <- clientv3.WatchResponse{Header: header(s.db.rev), Created: true}
	}
	s.db.watches[w] = struct{}{}
	s.db.wg.Add(1)
	go w.run()
	return w.out
}

// RequestProgress makes every watcher tell the revision it has reached, behind what it still has to send.
func (s watcher) RequestProgress(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.db.tell(func(w *watch) bool {
		w.asked = true
		return true
	})
	return nil
}

// Close does nothing: watches end with their contexts, or with their DB.
func (watcher) Close() error { return nil }

// tell wakes the watchers that mark chooses; db.mu is held while it runs.
func (db *DB) tell(mark func(w *watch) bool) {
	db.mu.Lock()
	var wake []*watch
	for w := range db.watches {
		if mark(w) {
			wake = append(wake, w)
		}
	}
	db.mu.Unlock()
	for _, w := range wake {
		w.wake()
	}
}

// nudge makes the watchers of the folder key report progress. The API server reads the bare name of a kind's folder to learn the current
// revision, and then waits until its cache of that kind has seen it; without this it would wait for its next request for progress.
func (db *DB) nudge(key []byte) {
	db.tell(func(w *watch) bool {
		if w.progressNotify && len(w.lo) == len(key)+1 && w.lo[len(key)] == '/' && bytes.HasPrefix(w.lo, key) {
			w.asked = true
			return true
		}
		return false
	})
}

// notify sends periodic progress until the store closes. Idle cost: one wake-up per interval, and one per watcher if the revision moved.
func (db *DB) notify() {
	ticker := db.clock.NewTicker(db.cfg.ProgressInterval)
	defer ticker.Stop()
	told := int64(0)
	for {
		select {
		case <-db.stop:
			return
		case <-ticker.C():
		}
		if rev := db.Revision(); rev != told {
			told = rev
			db.tell(func(w *watch) bool {
				w.periodic = w.progressNotify
				return w.progressNotify
			})
		}
	}
}
