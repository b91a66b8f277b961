package embedded

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// lease is a time to live that keys hang on. It reaches the disk with the first key that does.
type lease struct {
	id, ttl int64 // ttl in seconds
	expires time.Time
	saved   bool
	keys    map[string]struct{}
}

const maxTTL = 9_000_000_000 // seconds, as in etcd

func leaseKey(id int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

func (db *DB) loadLeases(tx *bolt.Tx) error {
	err := tx.Bucket(bucketLeases).ForEach(func(k, v []byte) error {
		if len(k) != 8 || len(v) != 16 {
			return fmt.Errorf("bad lease %x on disk", k)
		}
		l := &lease{
			id: int64(binary.BigEndian.Uint64(k)), ttl: int64(binary.BigEndian.Uint64(v)), saved: true,
			expires: time.Unix(int64(binary.BigEndian.Uint64(v[8:])), 0), keys: map[string]struct{}{},
		}
		db.leases[l.id] = l
		return nil
	})
	if err != nil || len(db.leases) == 0 {
		return err
	}
	return newView(tx, nil).scan(nil, nil, db.rev, func(load func() (*record, error)) (bool, error) {
		rec, err := load()
		if err == nil {
			db.attach(rec)
		}
		return true, err
	})
}

// attach follows which key hangs on which lease. Only the committer calls it.
func (db *DB) attach(now *record) {
	key := string(now.key)
	if old, ok := db.attached[key]; ok && old != now.lease {
		delete(db.attached, key)
		if l := db.leases[old]; l != nil {
			delete(l.keys, key)
		}
	}
	if l := db.leases[now.lease]; l != nil && !now.deleted {
		l.keys[key] = struct{}{}
		db.attached[key] = now.lease
	}
}

func (b *batch) checkLeases(ops []*pb.RequestOp) error {
	for _, op := range ops {
		if put := op.GetRequestPut(); put != nil && put.Lease != 0 && b.db.leases[put.Lease] == nil {
			return rpctypes.ErrGRPCLeaseNotFound
		}
	}
	return nil
}

// saveLease writes the lease of a key that is being written, the first time.
func (b *batch) saveLease(id int64) error {
	l := b.db.leases[id]
	if l == nil || l.saved {
		return nil
	}
	v := binary.BigEndian.AppendUint64(nil, uint64(l.ttl))
	v = binary.BigEndian.AppendUint64(v, uint64(l.expires.Unix()+1))
	if err := b.tx.Bucket(bucketLeases).Put(leaseKey(id), v); err != nil {
		return diskError{fmt.Errorf("put lease: %w", err)}
	}
	b.onCommit = append(b.onCommit, func() { l.saved = true })
	return nil
}

// expired makes requests that end the leases whose time has come.
func (db *DB) expired() []*request {
	var out []*request
	now := db.clock.Now()
	for id, l := range db.leases {
		if !now.Before(l.expires) {
			out = append(out, &request{
				ctx: context.Background(), volatile: l.volatile(), done: make(chan error, 1), run: func(b *batch) error { return b.revoke(id) },
			})
		}
	}
	return out
}

// volatile says whether the lease can end without the disk: it never reached it.
func (l *lease) volatile() bool { return !l.saved && len(l.keys) == 0 }

// revoke ends a lease and deletes its keys, all under one revision.
func (b *batch) revoke(id int64) error {
	l := b.db.leases[id]
	if l == nil {
		return rpctypes.ErrGRPCLeaseNotFound
	}
	keys := make([]string, 0, len(l.keys))
	for k := range l.keys {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	rev := b.rev + 1
	for _, k := range keys {
		prev, err := newView(b.tx, b.mem).get([]byte(k), rev)
		if err != nil {
			return diskError{err}
		}
		if prev == nil || prev.deleted || prev.lease != id {
			continue // the batch moved or deleted it before us
		}
		if err := b.write(&record{key: prev.key, rev: rev, deleted: true}, prev); err != nil {
			return err
		}
		b.rev = rev
	}
	if l.saved {
		if !b.durable {
			return errNeedDisk
		}
		b.changed = true
		if err := b.tx.Bucket(bucketLeases).Delete(leaseKey(id)); err != nil {
			return diskError{fmt.Errorf("delete lease: %w", err)}
		}
	}
	b.onCommit = append(b.onCommit, func() { delete(b.db.leases, id) })
	return nil
}

// leaser is clientv3's Lease.
type leaser struct{ db *DB }

var _ clientv3.Lease = leaser{}

// Grant makes a lease of ttl seconds.
func (s leaser) Grant(ctx context.Context, ttl int64) (*clientv3.LeaseGrantResponse, error) {
	if ttl < 1 || ttl > maxTTL {
		return nil, rpctypes.ErrLeaseTTLTooLarge
	}
	var resp *clientv3.LeaseGrantResponse
	l := &lease{ttl: ttl, expires: s.db.clock.Now().Add(time.Duration(ttl) * time.Second), keys: map[string]struct{}{}}
	err := s.db.do(ctx, true, func(b *batch) error {
		for l.id == 0 || (s.db.leases[l.id] != nil && s.db.leases[l.id] != l) {
			l.id = rand.Int64()
		}
		// It is there at once, so that puts of the same batch find it; a batch that fails leaves an empty lease that expires.
		s.db.leases[l.id] = l
		resp = &clientv3.LeaseGrantResponse{ResponseHeader: header(b.rev), ID: clientv3.LeaseID(l.id), TTL: ttl}
		return nil
	})
	if err != nil {
		return nil, clientv3.ContextError(ctx, err)
	}
	return resp, nil
}

// Revoke ends a lease and deletes its keys.
func (s leaser) Revoke(ctx context.Context, id clientv3.LeaseID) (*clientv3.LeaseRevokeResponse, error) {
	var resp *clientv3.LeaseRevokeResponse
	err := s.db.do(ctx, false, func(b *batch) error {
		err := b.revoke(int64(id))
		resp = &clientv3.LeaseRevokeResponse{Header: header(b.rev)}
		return err
	})
	if err != nil {
		return nil, clientv3.ContextError(ctx, err)
	}
	return resp, nil
}

// TimeToLive tells how long a lease has left, and its keys; -1 if there is none.
func (s leaser) TimeToLive(ctx context.Context, id clientv3.LeaseID, _ ...clientv3.LeaseOption) (*clientv3.LeaseTimeToLiveResponse, error) {
	resp := &clientv3.LeaseTimeToLiveResponse{ID: id, TTL: -1}
	err := s.db.do(ctx, true, func(b *batch) error {
		resp.ResponseHeader = header(b.rev)
		if l := s.db.leases[int64(id)]; l != nil {
			resp.TTL, resp.GrantedTTL = int64(l.expires.Sub(s.db.clock.Now())/time.Second), l.ttl
			resp.Keys = nil
			for k := range l.keys {
				resp.Keys = append(resp.Keys, []byte(k))
			}
			slices.SortFunc(resp.Keys, bytes.Compare)
		}
		return nil
	})
	if err != nil {
		return nil, clientv3.ContextError(ctx, err)
	}
	return resp, nil
}

// Leases lists the leases.
func (s leaser) Leases(ctx context.Context) (*clientv3.LeaseLeasesResponse, error) {
	resp := &clientv3.LeaseLeasesResponse{}
	err := s.db.do(ctx, true, func(b *batch) error {
		resp.ResponseHeader, resp.Leases = header(b.rev), nil
		for id := range s.db.leases {
			resp.Leases = append(resp.Leases, clientv3.LeaseStatus{ID: clientv3.LeaseID(id)})
		}
		return nil
	})
	if err != nil {
		return nil, clientv3.ContextError(ctx, err)
	}
	return resp, nil
}

// KeepAlive is not needed by the API server.
func (leaser) KeepAlive(context.Context, clientv3.LeaseID) (<-chan *clientv3.LeaseKeepAliveResponse, error) {
	return nil, unsupported("keeping leases alive")
}

// KeepAliveOnce is not needed by the API server.
func (leaser) KeepAliveOnce(context.Context, clientv3.LeaseID) (*clientv3.LeaseKeepAliveResponse, error) {
	return nil, unsupported("keeping leases alive")
}

// Close does nothing: the store belongs to its DB.
func (leaser) Close() error { return nil }
