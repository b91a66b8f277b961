package embedded

import (
	"bytes"
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Limits, as etcd has them by default.
const (
	maxTxnOps       = 128
	maxRequestBytes = 1536 << 10
)

func unsupported(what string) error {
	return status.Error(codes.Unimplemented, "the embedded store does not support "+what)
}

func header(rev int64) *pb.ResponseHeader { return &pb.ResponseHeader{Revision: rev} }

// checkTxn refuses what apply cannot do, before anything is done.
func checkTxn(t *pb.TxnRequest) error {
	size := 0
	for _, c := range t.Compare {
		if len(c.Key) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
		if len(c.RangeEnd) != 0 {
			return unsupported("comparisons of ranges")
		}
		switch c.Target {
		case pb.Compare_VERSION, pb.Compare_CREATE, pb.Compare_MOD, pb.Compare_VALUE, pb.Compare_LEASE:
		default:
			return unsupported(fmt.Sprintf("comparisons of %v", c.Target))
		}
	}
	for _, ops := range [][]*pb.RequestOp{t.Success, t.Failure} {
		if len(ops) > maxTxnOps || len(t.Compare) > maxTxnOps {
			return rpctypes.ErrGRPCTooManyOps
		}
		written := map[string]bool{}
		ranges := false
		for _, op := range ops {
			var key []byte
			switch r := op.Request.(type) {
			case *pb.RequestOp_RequestRange:
				if err := checkRange(r.RequestRange); err != nil {
					return err
				}
				continue
			case *pb.RequestOp_RequestPut:
				key = r.RequestPut.Key
				size += len(key) + len(r.RequestPut.Value)
				if err := checkPut(r.RequestPut); err != nil {
					return err
				}
			case *pb.RequestOp_RequestDeleteRange:
				key = r.RequestDeleteRange.Key
				ranges = ranges || len(r.RequestDeleteRange.RangeEnd) != 0
				if len(key) == 0 {
					return rpctypes.ErrGRPCEmptyKey
				}
			default:
				return unsupported(fmt.Sprintf("%T in a transaction", op.Request))
			}
			if written[string(key)] {
				return rpctypes.ErrGRPCDuplicateKey
			}
			written[string(key)] = true
		}
		if ranges && len(written) > 1 {
			return unsupported("a deletion of a range beside other writes in one transaction")
		}
	}
	if size > maxRequestBytes {
		return rpctypes.ErrGRPCRequestTooLarge
	}
	return nil
}

func checkPut(r *pb.PutRequest) error {
	switch {
	case len(r.Key) == 0:
		return rpctypes.ErrGRPCEmptyKey
	case bytes.IndexByte(r.Key, 0) >= 0:
		return status.Error(codes.InvalidArgument, errZeroByte.Error())
	case r.IgnoreValue || r.IgnoreLease:
		return unsupported("puts that keep the value or the lease")
	}
	return nil
}

// txn runs a transaction: all its writes get the same revision, and the state is either that before it or that after it.
func (db *DB) txn(ctx context.Context, t *pb.TxnRequest) (*pb.TxnResponse, error) {
	if err := checkTxn(t); err != nil {
		return nil, err
	}
	var resp *pb.TxnResponse
	err := db.do(ctx, db.allVolatile(t), func(b *batch) (err error) {
		resp, err = b.apply(t)
		return err
	})
	if err != nil {
		return nil, err // resp may still be written to
	}
	return resp, nil
}

// allVolatile says whether the transaction may do without the disk: it only puts volatile keys.
func (db *DB) allVolatile(t *pb.TxnRequest) bool {
	for _, op := range t.Success {
		if put := op.GetRequestPut(); put == nil || !db.cfg.Volatile(put.Key) {
			return false
		}
	}
	for _, op := range t.Failure {
		if op.GetRequestRange() == nil {
			return false
		}
	}
	return len(t.Success) > 0
}

func (b *batch) apply(t *pb.TxnRequest) (*pb.TxnResponse, error) {
	v := newView(b.tx, b.mem)
	holds := true
	for _, c := range t.Compare {
		rec, err := v.get(c.Key, b.rev)
		if err != nil {
			return nil, diskError{err}
		}
		if holds = compare(c, rec); !holds {
			break
		}
	}
	ops := t.Success
	if !holds {
		ops = t.Failure
	}
	if err := b.checkLeases(ops); err != nil {
		return nil, err
	}
	resp := &pb.TxnResponse{Succeeded: holds}
	rev := b.rev + 1 // of the writes
	for _, op := range ops {
		var out *pb.ResponseOp
		var err error
		switch r := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			var got *pb.RangeResponse
			got, err = newView(b.tx, b.mem).rangeAt(r.RequestRange, b.rev, b.db.compacted)
			out = &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: got}}
		case *pb.RequestOp_RequestPut:
			var got *pb.PutResponse
			got, err = b.put(r.RequestPut, rev)
			out = &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: got}}
		case *pb.RequestOp_RequestDeleteRange:
			var got *pb.DeleteRangeResponse
			got, err = b.deleteRange(r.RequestDeleteRange, rev)
			out = &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: got}}
		}
		if err != nil {
			return nil, err
		}
		resp.Responses = append(resp.Responses, out)
	}
	resp.Header = header(b.rev)
	return resp, nil
}

// compare says whether rec (nil or a tombstone if the key does not exist: all zero) passes.
func compare(c *pb.Compare, rec *record) bool {
	if rec == nil || rec.deleted {
		if c.Target == pb.Compare_VALUE {
			return false // as in etcd
		}
		rec = &record{}
	}
	order := 0
	integer := func(have, want int64) {
		switch {
		case have < want:
			order = -1
		case have > want:
			order = 1
		}
	}
	switch c.Target {
	case pb.Compare_VALUE:
		order = bytes.Compare(rec.value, c.GetValue())
	case pb.Compare_VERSION:
		integer(rec.version, c.GetVersion())
	case pb.Compare_CREATE:
		integer(rec.create, c.GetCreateRevision())
	case pb.Compare_MOD:
		integer(rec.rev, c.GetModRevision())
	case pb.Compare_LEASE:
		integer(rec.lease, c.GetLease())
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return order == 0
	case pb.Compare_NOT_EQUAL:
		return order != 0
	case pb.Compare_GREATER:
		return order > 0
	case pb.Compare_LESS:
		return order < 0
	}
	return false
}

func (b *batch) put(r *pb.PutRequest, rev int64) (*pb.PutResponse, error) {
	prev, err := newView(b.tx, b.mem).get(r.Key, rev)
	if err != nil {
		return nil, diskError{err}
	}
	now := &record{key: bytes.Clone(r.Key), rev: rev, create: rev, version: 1, lease: r.Lease, value: bytes.Clone(r.Value)}
	if prev != nil && !prev.deleted {
		now.create, now.version = prev.create, prev.version+1
	}
	if err := b.write(now, prev); err != nil {
		return nil, err
	}
	b.rev = rev
	resp := &pb.PutResponse{Header: header(rev)}
	if r.PrevKv && prev != nil && !prev.deleted {
		resp.PrevKv = prev.kv()
	}
	return resp, nil
}

func (b *batch) deleteRange(r *pb.DeleteRangeRequest, rev int64) (*pb.DeleteRangeResponse, error) {
	var gone []*record
	v := newView(b.tx, b.mem)
	if len(r.RangeEnd) == 0 {
		rec, err := v.get(r.Key, rev)
		if err != nil {
			return nil, diskError{err}
		}
		if rec != nil && !rec.deleted {
			gone = append(gone, rec)
		}
	} else {
		if err := v.scan(r.Key, rangeEnd(r.RangeEnd), rev, func(load func() (*record, error)) (bool, error) {
			rec, err := load()
			gone = append(gone, rec)
			return true, err
		}); err != nil {
			return nil, diskError{err}
		}
	}
	resp := &pb.DeleteRangeResponse{Deleted: int64(len(gone))}
	for _, prev := range gone {
		if err := b.write(&record{key: prev.key, rev: rev, deleted: true}, prev); err != nil {
			return nil, err
		}
		b.rev = rev
		if r.PrevKv {
			resp.PrevKvs = append(resp.PrevKvs, prev.kv())
		}
	}
	resp.Header = header(b.rev)
	return resp, nil
}
