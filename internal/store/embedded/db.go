// Package embedded is an etcd client without an etcd: clientv3's KV, Lease, Watcher and Maintenance, in process, over one bbolt file.
// Kubernetes' own etcd3 store and watch cache run on top of it unchanged.
//
// How it works:
//   - Every version of every key is one record in one bucket, keyed by (key, revision inverted), so the state of a key at any
//     revision is one seek away, and compaction deletes what nothing can ask for any more.
//   - One goroutine, the committer, runs all writes. It takes whatever has queued up as one batch: one bbolt transaction, one fsync.
//     A write is acknowledged, and seen by readers and watchers, when its batch is on disk.
//   - Readers read at a revision, from a bbolt read transaction; they never wait for writers.
//   - Watchers hold no queue: each remembers the revision it has reached and reads on from there, from a bounded history in memory or,
//     when it fell behind, from disk. A slow watcher costs nothing.
//   - Updates of keys that Config.Volatile names (node heartbeats) are acknowledged from memory and written once a minute. The file always
//     holds a revision that is not below any that was handed out, and after a crash the store goes on from there.
//   - With nothing to write, nothing is written: no ticks, no periodic commits.
//
// Allowed imports: bbolt, the etcd client, config, health, sys. What the Kubernetes API server does not ask of etcd (nested transactions,
// sorting, lease keep-alives, cluster calls) is refused with a clear error.
package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	"k8s.io/utils/clock"
)

var (
	bucketKV     = []byte("kv")
	bucketMeta   = []byte("meta")
	bucketLeases = []byte("leases")

	metaFormat    = []byte("format")    // version of this layout
	metaCeiling   = []byte("ceiling")   // no revision above this one was handed out
	metaCompacted = []byte("compacted") // the revision of the last compaction
)

const (
	format = 1
	// reserve is how far ahead of use revisions are reserved on disk, and so at most how far they jump after a crash.
	reserve = 10000
	// flushAfter is how long a volatile update may stay in memory.
	flushAfter = time.Minute
)

// Config says how to open a store.
type Config struct {
	// Path is the file; it is made if it is missing.
	Path string
	// Volatile says whether updates of an existing key may be acknowledged before they are on disk. Creations and deletions always are
	// on disk. Nil for never.
	Volatile func(key []byte) bool
	// ProgressInterval is how often watchers that asked for progress notifications get one, if the revision moved. A minute if zero.
	ProgressInterval time.Duration
	// Clock is the time; the real one if nil.
	Clock clock.WithTicker
	// Log must not be nil.
	Log *slog.Logger
}

// DB is an open store. It is safe for concurrent use.
type DB struct {
	cfg   Config
	clock clock.WithTicker

	swap sync.RWMutex // held to read bolt, and to exchange it (Defrag)
	bolt *bolt.DB

	mu        sync.RWMutex // guards what follows, which is what readers see
	rev       int64
	compacted int64
	mem       overlay
	history   history
	watches   map[*watch]struct{}
	closed    bool

	queue chan *request
	stop  chan struct{} // closed to end
	ended chan struct{} // closed when the committer has
	wg    sync.WaitGroup

	// The committer's own.
	ceiling  int64
	flushAt  time.Time // zero when mem is empty
	leases   map[int64]*lease
	attached map[string]int64 // key → lease
}

// Open opens the store in cfg.Path. The caller sees to it that no other process has it open (bbolt also holds a lock of its own).
func Open(cfg Config) (*DB, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.ProgressInterval == 0 {
		cfg.ProgressInterval = time.Minute
	}
	if cfg.Volatile == nil {
		cfg.Volatile = func([]byte) bool { return false }
	}
	b, err := openBolt(cfg.Path)
	if err != nil {
		return nil, err
	}
	db := &DB{
		cfg: cfg, clock: cfg.Clock, bolt: b,
		watches: map[*watch]struct{}{}, queue: make(chan *request, 256), stop: make(chan struct{}), ended: make(chan struct{}),
		leases: map[int64]*lease{}, attached: map[string]int64{},
	}
	if err := db.load(); err != nil {
		b.Close()
		return nil, fmt.Errorf("open %s: %w", cfg.Path, err)
	}
	db.wg.Go(db.commit)
	db.wg.Go(db.notify)
	return db, nil
}

func openBolt(path string) (*bolt.DB, error) {
	b, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:         time.Second,
		NoFreelistSync:  true, // found again on open, and not written with each commit
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: 256 << 20, // address space only; growing it later would wait for readers
		NoStatistics:    true,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	b.AllocSize = 1 << 20
	return b, nil
}

// load reads the counters and leases, and lays out a new file.
func (db *DB) load() error {
	fresh := false
	if err := db.bolt.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			fresh = true
			return nil
		}
		if v := getInt(meta, metaFormat); v != format {
			return fmt.Errorf("the store has format %d; this program knows format %d", v, format)
		}
		db.rev, db.compacted = getInt(meta, metaCeiling), getInt(meta, metaCompacted)
		return db.loadLeases(tx)
	}); err != nil {
		return err
	}
	if fresh {
		db.rev = 1 // as an empty etcd has
		if err := db.bolt.Update(func(tx *bolt.Tx) error {
			for _, name := range [][]byte{bucketKV, bucketMeta, bucketLeases} {
				if _, err := tx.CreateBucketIfNotExists(name); err != nil {
					return err
				}
			}
			meta := tx.Bucket(bucketMeta)
			return errors.Join(putInt(meta, metaFormat, format), putInt(meta, metaCeiling, db.rev))
		}); err != nil {
			return err
		}
	}
	db.ceiling = db.rev
	db.history.from = db.rev + 1
	return nil
}

func getInt(b *bolt.Bucket, key []byte) int64 {
	if v := b.Get(key); len(v) == 8 {
		return int64(binary.BigEndian.Uint64(v))
	}
	return 0
}

func putInt(b *bolt.Bucket, key []byte, v int64) error {
	return b.Put(key, binary.BigEndian.AppendUint64(nil, uint64(v)))
}

// Close writes what is only in memory, ends all watches, and closes the file. Requests after it fail.
func (db *DB) Close() error {
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		return nil
	}
	db.closed = true
	watches := make([]*watch, 0, len(db.watches))
	for w := range db.watches {
		watches = append(watches, w)
	}
	db.mu.Unlock()
	for _, w := range watches {
		w.cancel()
	}
	close(db.stop)
	db.wg.Wait()
	db.swap.Lock()
	defer db.swap.Unlock()
	return db.bolt.Close()
}

// read runs fn on the state at one moment: its revision, and the revision of the last compaction.
func (db *DB) read(fn func(v view, rev, compacted int64) error) error {
	db.swap.RLock()
	defer db.swap.RUnlock()
	for {
		db.mu.RLock()
		rev, mem, closed := db.rev, db.mem, db.closed
		db.mu.RUnlock()
		if closed {
			return errClosed
		}
		again := false
		// The transaction may hold later versions than rev; readers do not look at them. It may also lack versions that a compaction
		// after that moment deleted: then it knows of the compaction.
		err := db.bolt.View(func(tx *bolt.Tx) error {
			db.mu.RLock()
			compacted := db.compacted
			db.mu.RUnlock()
			if again = compacted > rev; again {
				return nil
			}
			return fn(newView(tx, mem), rev, compacted)
		})
		if !again {
			return err
		}
	}
}

// Revision is the latest revision.
func (db *DB) Revision() int64 {
	db.mu.RLock()
	defer db.mu.RUnlock()
	return db.rev
}

// do hands run to the committer and waits for its batch to be on disk.
func (db *DB) do(ctx context.Context, volatile bool, run func(b *batch) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := &request{ctx: ctx, volatile: volatile, run: run, done: make(chan error, 1)}
	select {
	case db.queue <- r:
	case <-db.stop:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done(): // it may still be written, as with any server
		return ctx.Err()
	case <-db.ended:
	}
	select {
	case err := <-r.done: // the committer's last batch
		return err
	default:
		return errClosed
	}
}
