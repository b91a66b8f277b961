package embedded

import (
	"bytes"
	"context"
	"fmt"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// gcBatch is how many versions one batch deletes, so that other writes wait little.
const gcBatch = 2000

// compact makes rev the oldest revision that can be read in full, then deletes what is older. Both are found again after a crash: the first
// is on disk before anything is deleted, and the next compaction deletes what this one did not come to.
func (db *DB) compact(ctx context.Context, rev int64) error {
	if err := db.do(ctx, false, func(b *batch) error {
		switch {
		case rev <= max(db.compacted, b.compacted):
			return rpctypes.ErrGRPCCompacted
		case rev > b.rev:
			return rpctypes.ErrGRPCFutureRev
		}
		b.compacted, b.changed = rev, true
		if err := putInt(b.tx.Bucket(bucketMeta), metaCompacted, rev); err != nil {
			return diskError{fmt.Errorf("compact: %w", err)}
		}
		return nil
	}); err != nil {
		return err
	}
	var from []byte
	for {
		garbage, next, err := db.garbage(from, rev)
		if err != nil {
			return fmt.Errorf("compact: %w", err)
		}
		if len(garbage) > 0 {
			if err := db.do(ctx, false, func(b *batch) error {
				b.changed = true
				bucket := b.tx.Bucket(bucketKV)
				for _, dk := range garbage {
					if err := bucket.Delete(dk); err != nil {
						return diskError{fmt.Errorf("compact: %w", err)}
					}
				}
				return nil
			}); err != nil {
				return err
			}
		}
		if next == nil {
			return nil
		}
		from = next
	}
}

// garbage lists the disk keys of versions that nothing can read at rev or later, beginning at from; next is where to go on.
func (db *DB) garbage(from []byte, rev int64) (found [][]byte, next []byte, err error) {
	db.swap.RLock()
	defer db.swap.RUnlock()
	err = db.bolt.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketKV).Cursor()
		var settled []byte // the key whose newest version at rev was passed
		for dk, data := c.Seek(from); dk != nil; dk, data = c.Next() {
			key, r, err := splitDiskKey(dk)
			if err != nil {
				return err
			}
			switch {
			case r > rev:
				continue
			case !bytes.Equal(key, settled):
				if len(found) >= gcBatch {
					next = bytes.Clone(dk)
					return nil
				}
				settled = append(settled[:0], key...)
				if !isTombstone(data) || r == rev {
					continue
				}
			}
			found = append(found, bytes.Clone(dk))
		}
		return nil
	})
	return found, next, err
}
