package embedded

import (
	"bytes"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// overlay holds versions that are not on disk yet, sorted as they will be there. It is never changed: insert makes a new one.
type overlay []*record

// compareVersions orders records as their disk keys are: by key, then newest first.
func compareVersions(a, b *record) int {
	if c := bytes.Compare(a.key, b.key); c != 0 {
		return c
	}
	switch {
	case a.rev > b.rev:
		return -1
	case a.rev < b.rev:
		return 1
	}
	return 0
}

func (o overlay) insert(r *record) overlay {
	i, _ := slices.BinarySearchFunc(o, r, compareVersions)
	out := make(overlay, 0, len(o)+1)
	out = append(out, o[:i]...)
	out = append(out, r)
	return append(out, o[i:]...)
}

// view reads versions from a bolt transaction with an overlay on top. It is used by one goroutine, within the transaction.
type view struct {
	cursor *bolt.Cursor
	mem    overlay
}

func newView(tx *bolt.Tx, mem overlay) view {
	return view{cursor: tx.Bucket(bucketKV).Cursor(), mem: mem}
}

// walk calls fn with each version whose disk key is in [lo, hi), in order, until it returns false; hi nil means no end. disk is the
// record's data on disk, or nil where rec is given. A version that is both on disk and in the overlay is shown once.
func (v view) walk(lo, hi []byte, fn func(dk, disk []byte, rec *record) (bool, error)) error {
	dk, data := v.cursor.Seek(lo)
	mem := v.mem
	if len(mem) > 0 {
		i, _ := slices.BinarySearchFunc(mem, lo, func(r *record, lo []byte) int { return bytes.Compare(diskKey(r.key, r.rev), lo) })
		mem = mem[i:]
	}
	inside := func(k []byte) bool { return k != nil && (hi == nil || bytes.Compare(k, hi) < 0) }
	for {
		var mk []byte
		if len(mem) > 0 {
			mk = diskKey(mem[0].key, mem[0].rev)
		}
		onDisk, inMem := inside(dk), inside(mk)
		if !onDisk && !inMem {
			return nil
		}
		order := 0
		switch {
		case !onDisk:
			order = 1
		case !inMem:
			order = -1
		default:
			order = bytes.Compare(dk, mk)
		}
		var more bool
		var err error
		if order < 0 {
			more, err = fn(dk, data, nil)
		} else {
			more, err = fn(mk, nil, mem[0])
			mem = mem[1:]
		}
		if err != nil || !more {
			return err
		}
		if order <= 0 {
			dk, data = v.cursor.Next()
		}
	}
}

// get returns the state of key at revision rev: the newest version not after it, which may be a tombstone; nil if there is none.
func (v view) get(key []byte, rev int64) (*record, error) {
	var found *record
	err := v.walk(diskKey(key, rev), append(bytes.Clone(key), 1), func(dk, disk []byte, rec *record) (bool, error) {
		var err error
		if found = rec; rec == nil {
			found, err = decode(dk, disk)
		}
		return false, err
	})
	return found, err
}

// scan calls fn for each key in [lo, hi) (bounds as clients give them, hi empty for no end) that exists at revision rev, in order, until it
// returns false. load reads the record; not calling it saves copying.
func (v view) scan(lo, hi []byte, rev int64, fn func(load func() (*record, error)) (bool, error)) error {
	var last []byte // the key whose state is settled
	lo = diskBound(lo)
	if len(hi) == 0 {
		hi = nil
	} else {
		hi = diskBound(hi)
	}
	return v.walk(lo, hi, func(dk, disk []byte, rec *record) (bool, error) {
		key, r, err := splitDiskKey(dk)
		if err != nil {
			return false, err
		}
		if r > rev || (last != nil && bytes.Equal(key, last)) {
			return true, nil
		}
		last = append(last[:0], key...)
		if rec != nil {
			if rec.deleted {
				return true, nil
			}
			return fn(func() (*record, error) { return rec, nil })
		}
		if isTombstone(disk) {
			return true, nil
		}
		return fn(func() (*record, error) { return decode(dk, disk) })
	})
}

// since lists the changes in [lo, hi) with revisions in [from, to], in order of revision.
func (v view) since(lo, hi []byte, from, to int64) ([]event, error) {
	lo = diskBound(lo)
	if len(hi) == 0 {
		hi = nil
	} else {
		hi = diskBound(hi)
	}
	var out []event
	waiting := false // the last event of out lacks the version before it, which comes next if there is one
	err := v.walk(lo, hi, func(dk, disk []byte, rec *record) (bool, error) {
		key, r, err := splitDiskKey(dk)
		if err != nil {
			return false, err
		}
		sameKey := waiting && bytes.Equal(out[len(out)-1].now.key, key)
		wanted := r >= from && r <= to
		if !sameKey && !wanted {
			waiting = false
			return true, nil
		}
		if rec == nil {
			if rec, err = decode(dk, disk); err != nil {
				return false, err
			}
		}
		if sameKey && !rec.deleted {
			out[len(out)-1].prev = rec
		}
		waiting = wanted
		if wanted {
			out = append(out, event{now: rec})
		}
		return true, nil
	})
	slices.SortStableFunc(out, func(a, b event) int { return int(min(max(a.now.rev-b.now.rev, -1), 1)) })
	return out, err
}
