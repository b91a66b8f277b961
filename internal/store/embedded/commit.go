package embedded

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	errClosed = status.Error(codes.Unavailable, "the store is closed")
	// errNeedDisk is what a volatile request returns when it turns out that it must go to disk; its batch runs again as a durable one.
	errNeedDisk = errors.New("needs a durable batch")
)

// maxBatch bounds the requests of one batch, and so the time that the first of them waits for the others.
const maxBatch = 512

// request is one unit of work for the committer. run may run more than once, and must change nothing but the batch; it returns an error
// before it changes anything, or none.
type request struct {
	ctx      context.Context
	volatile bool
	run      func(b *batch) error
	done     chan error
}

// batch is the state that the requests of one commit build up; readers see it when it is published.
type batch struct {
	db      *DB
	tx      *bolt.Tx
	durable bool // tx can write
	changed bool // tx must be committed
	rev     int64
	mem     overlay
	events  []event
	// compacted is the revision to compact to; 0 for none.
	compacted int64
	flushed   bool
	// onCommit runs when the batch is on disk, in the committer.
	onCommit []func()
	replies  []reply
}

type reply struct {
	r   *request
	err error
}

// commit is the committer: it runs until the store closes.
func (db *DB) commit() {
	defer close(db.ended)
	for {
		var timer <-chan time.Time
		var stopTimer func() bool
		if at := db.nextDeadline(); !at.IsZero() {
			t := db.clock.NewTimer(max(0, at.Sub(db.clock.Now())))
			timer, stopTimer = t.C(), t.Stop
		}
		var requests []*request
		stopping := false
		select {
		case r := <-db.queue:
			requests = append(requests, r)
		case <-timer:
		case <-db.stop:
			stopping = true
		}
		if stopTimer != nil {
			stopTimer()
		}
	fill:
		for len(requests) < maxBatch {
			select {
			case r := <-db.queue:
				requests = append(requests, r)
			default:
				break fill
			}
		}
		requests = append(requests, db.expired()...)
		db.runBatch(requests, stopping || db.flushDue(), stopping)
		if stopping {
			return
		}
	}
}

func (db *DB) nextDeadline() time.Time {
	at := db.flushAt
	for _, l := range db.leases {
		if at.IsZero() || l.expires.Before(at) {
			at = l.expires
		}
	}
	return at
}

func (db *DB) flushDue() bool { return !db.flushAt.IsZero() && !db.clock.Now().Before(db.flushAt) }

// runBatch runs requests, commits, publishes, and answers. flush also writes what is only in memory; last makes the revision on disk exact.
func (db *DB) runBatch(requests []*request, flush, last bool) {
	durable := flush || last
	for _, r := range requests {
		durable = durable || !r.volatile
	}
	b, err := db.tryBatch(requests, durable, flush, last)
	if errors.Is(err, errNeedDisk) {
		b, err = db.tryBatch(requests, true, flush, last)
	}
	if err != nil {
		db.cfg.Log.Error("Writing to the store failed", "path", db.cfg.Path, "err", err)
		if flush && !last {
			db.flushAt = db.clock.Now().Add(flushAfter)
		}
		for _, r := range requests {
			r.done <- writeError(err)
		}
		return
	}
	db.publish(b)
	for _, rep := range b.replies {
		rep.r.done <- rep.err
	}
}

func writeError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return rpctypes.ErrGRPCNoSpace
	}
	return status.Error(codes.Unavailable, "writing to the store failed: "+err.Error())
}

func (db *DB) tryBatch(requests []*request, durable, flush, last bool) (b *batch, err error) {
	db.swap.RLock()
	defer db.swap.RUnlock()
	tx, err := db.bolt.Begin(durable)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	committed := false
	defer func() {
		if !committed {
			_ = tx.Rollback() // it was not asked to keep anything
		}
	}()
	b = &batch{db: db, tx: tx, durable: durable, rev: db.rev, mem: db.mem}
	for _, r := range requests {
		if err := r.ctx.Err(); err != nil {
			b.replies = append(b.replies, reply{r, err})
			continue
		}
		err := r.run(b)
		if errors.Is(err, errNeedDisk) || isDiskError(err) {
			return nil, err
		}
		b.replies = append(b.replies, reply{r, err})
	}
	if !durable {
		return b, nil
	}
	if flush {
		if err := b.flush(); err != nil {
			return nil, err
		}
	}
	ceiling := db.ceiling
	if last {
		ceiling = b.rev
	} else if b.rev > ceiling {
		ceiling = b.rev + reserve
	}
	if ceiling != db.ceiling {
		b.changed = true
		if err := putInt(tx.Bucket(bucketMeta), metaCeiling, ceiling); err != nil {
			return nil, err
		}
	}
	if !b.changed {
		return b, nil
	}
	committed = true
	if err := tx.Commit(); err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	db.ceiling = ceiling
	return b, nil
}

// diskError marks an error of bbolt's inside a request: the whole batch fails.
type diskError struct{ error }

func (e diskError) Unwrap() error { return e.error }

func isDiskError(err error) bool {
	var d diskError
	return errors.As(err, &d)
}

// publish lets readers and watchers see the batch.
func (db *DB) publish(b *batch) {
	for _, fn := range b.onCommit {
		fn()
	}
	for _, e := range b.events {
		db.attach(e.now)
	}
	switch {
	case len(b.mem) == 0:
		db.flushAt = time.Time{}
	case db.flushAt.IsZero() || b.flushed:
		db.flushAt = db.clock.Now().Add(flushAfter)
	}
	db.mu.Lock()
	db.rev, db.mem = b.rev, b.mem
	db.compacted = max(db.compacted, b.compacted)
	db.history.add(b.events)
	var wake []*watch
	for w := range db.watches {
		if w.wants(b.events) {
			wake = append(wake, w)
		}
	}
	db.mu.Unlock()
	for _, w := range wake {
		w.wake()
	}
}

// write adds a version to the batch.
func (b *batch) write(now, prev *record) error {
	if prev != nil && prev.deleted {
		prev = nil
	}
	if b.db.cfg.Volatile(now.key) && !now.deleted && now.version > 1 && now.lease == 0 {
		if now.rev > b.db.ceiling && !b.durable {
			return errNeedDisk // more revisions must be reserved first
		}
		b.mem = b.mem.insert(now)
	} else {
		if !b.durable {
			return errNeedDisk
		}
		b.changed = true
		dk := diskKey(now.key, now.rev)
		if err := b.tx.Bucket(bucketKV).Put(dk, now.encode(dk)); err != nil {
			return diskError{fmt.Errorf("put %s: %w", now.key, err)}
		}
		if err := b.saveLease(now.lease); err != nil {
			return err
		}
	}
	b.events = append(b.events, event{now: now, prev: prev})
	return nil
}

// flush writes the overlay to disk and empties it.
func (b *batch) flush() error {
	kv := b.tx.Bucket(bucketKV)
	for i, r := range b.mem {
		if i > 0 && string(b.mem[i-1].key) == string(r.key) && b.mem[i-1].rev <= b.db.compacted {
			continue // superseded before the last compaction
		}
		dk := diskKey(r.key, r.rev)
		if err := kv.Put(dk, r.encode(dk)); err != nil {
			return fmt.Errorf("put %s: %w", r.key, err)
		}
		b.changed = true
	}
	b.mem, b.flushed = nil, true
	return nil
}
