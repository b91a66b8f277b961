package embedded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// record is one version of one key: its state from revision rev on. A tombstone has deleted set and neither value nor lease.
// Records are never changed after they were made: readers share them.
type record struct {
	key                  []byte
	rev, create, version int64
	lease                int64
	deleted              bool
	value                []byte
}

func (r *record) kv() *mvccpb.KeyValue {
	if r.deleted {
		return &mvccpb.KeyValue{Key: r.key, ModRevision: r.rev}
	}
	return &mvccpb.KeyValue{
		Key: r.key, Value: r.value, CreateRevision: r.create, ModRevision: r.rev, Version: r.version, Lease: r.lease,
	}
}

// event is one change: what a key became and what it was before (nil if it did not exist).
type event struct {
	now, prev *record
}

func (e event) size() int {
	n := len(e.now.key) + len(e.now.value) + 128
	if e.prev != nil {
		n += len(e.prev.value)
	}
	return n
}

// On disk a version lives under key, a zero byte, and the revision inverted, so that the versions of a key lie together, newest first,
// and keys keep their order. Keys hold no zero byte.
const revLen = 8

var errZeroByte = errors.New("a key may not contain a zero byte")

func diskKey(key []byte, rev int64) []byte {
	dk := make([]byte, 0, len(key)+1+revLen)
	dk = append(dk, key...)
	dk = append(dk, 0)
	return binary.BigEndian.AppendUint64(dk, ^uint64(rev))
}

func splitDiskKey(dk []byte) (key []byte, rev int64, err error) {
	n := len(dk) - revLen - 1
	if n < 1 || dk[n] != 0 {
		return nil, 0, fmt.Errorf("bad key %q on disk", dk)
	}
	return dk[:n], int64(^binary.BigEndian.Uint64(dk[n+1:])), nil
}

// diskBound turns a bound of a range of keys into one of a range of disk keys. A bound with a zero byte in it (the client's way to say
// "after this key") becomes the first disk key behind all versions of that key.
func diskBound(bound []byte) []byte {
	if i := bytes.IndexByte(bound, 0); i >= 0 {
		return append(bytes.Clone(bound[:i]), 1)
	}
	return bound
}

const tombstoneFlag = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode gives the bytes on disk: a CRC-32C of all the rest and the disk key, flags, three varints, the value.
func (r *record) encode(dk []byte) []byte {
	out := make([]byte, 5, 5+3*binary.MaxVarintLen64+len(r.value))
	if r.deleted {
		out[4] = tombstoneFlag
	}
	out = binary.AppendUvarint(out, uint64(r.create))
	out = binary.AppendUvarint(out, uint64(r.version))
	out = binary.AppendUvarint(out, uint64(r.lease))
	out = append(out, r.value...)
	binary.BigEndian.PutUint32(out, checksum(dk, out[4:]))
	return out
}

func checksum(dk, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(dk, castagnoli), castagnoli, body)
}

// decode copies what it keeps: dk and data may lie in the mapped file.
func decode(dk, data []byte) (*record, error) {
	key, rev, err := splitDiskKey(dk)
	if err != nil {
		return nil, err
	}
	if len(data) < 5 || binary.BigEndian.Uint32(data) != checksum(dk, data[4:]) {
		return nil, fmt.Errorf("the record of %q at revision %d does not match its checksum", key, rev)
	}
	r := &record{key: bytes.Clone(key), rev: rev, deleted: data[4]&tombstoneFlag != 0}
	rest := data[5:]
	for _, field := range []*int64{&r.create, &r.version, &r.lease} {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			return nil, fmt.Errorf("the record of %q at revision %d is cut short", key, rev)
		}
		*field, rest = int64(v), rest[n:]
	}
	if !r.deleted {
		r.value = append(make([]byte, 0, len(rest)), rest...)
	}
	return r, nil
}

// isTombstone reads only the flag of a record on disk.
func isTombstone(data []byte) bool { return len(data) >= 5 && data[4]&tombstoneFlag != 0 }
