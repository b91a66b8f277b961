package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"carob.dev/carob/internal/sys"
	bolt "go.etcd.io/bbolt"
)

// Size is the size of the file in bytes, free pages included.
func (db *DB) Size() (size int64, err error) {
	db.swap.RLock()
	defer db.swap.RUnlock()
	err = db.bolt.View(func(tx *bolt.Tx) error {
		size = tx.Size()
		return nil
	})
	return size, err
}

// Backup writes a copy of the store as it is on disk at one moment, while it goes on working. Updates of volatile keys of the last minute are
// written first. The copy is a store file: put in place of the original, it is the store again.
func (db *DB) Backup(w io.Writer) (int64, error) {
	if err := db.do(context.Background(), false, func(b *batch) error { return b.flush() }); err != nil {
		return 0, fmt.Errorf("back up: %w", err)
	}
	db.swap.RLock()
	defer db.swap.RUnlock()
	var n int64
	err := db.bolt.View(func(tx *bolt.Tx) (err error) {
		n, err = tx.WriteTo(w)
		return err
	})
	if err != nil {
		return n, fmt.Errorf("back up: %w", err)
	}
	return n, nil
}

// Check looks at all pages and records; writes wait for it. The errors found are joined.
func (db *DB) Check(ctx context.Context) error {
	var found error
	err := db.do(ctx, false, func(b *batch) error {
		found = errors.Join(checkPages(b.tx), checkRecords(b.tx))
		return nil
	})
	return errors.Join(err, found)
}

func checkPages(tx *bolt.Tx) error {
	var errs []error
	for err := range tx.Check() {
		if len(errs) < 20 {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func checkRecords(tx *bolt.Tx) error {
	var errs []error
	err := tx.Bucket(bucketKV).ForEach(func(k, v []byte) error {
		if _, err := decode(k, v); err != nil && len(errs) < 20 {
			errs = append(errs, err)
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// Defrag rewrites the file without its free pages and exchanges it. Reads and writes wait for it.
func (db *DB) Defrag(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	db.swap.Lock()
	defer db.swap.Unlock()
	path := db.cfg.Path
	tmp := path + ".defrag"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("defragment: %w", err)
	}
	dst, err := openBolt(tmp)
	if err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	if err := bolt.Compact(dst, db.bolt, 1<<20); err != nil {
		dst.Close()
		os.Remove(tmp)
		return fmt.Errorf("defragment: %w", err)
	}
	// The open file goes on being used under its new name.
	if err := os.Rename(tmp, path); err != nil {
		dst.Close()
		os.Remove(tmp)
		return fmt.Errorf("defragment: %w", err)
	}
	old := db.bolt
	db.bolt = dst
	return errors.Join(old.Close(), sys.SyncDir(filepath.Dir(path)))
}
