package embedded

import (
	"context"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// kv is the server's side of clientv3's KV, called directly.
type kv struct{ db *DB }

var _ pb.KVClient = kv{}

// The bounds of one chunk of a streamed range.
const (
	chunkKeys  = 1000
	chunkBytes = 1 << 20
)

// rangeEnd turns etcd's "\x00", everything from the key on, into no bound.
func rangeEnd(end []byte) []byte {
	if len(end) == 1 && end[0] == 0 {
		return nil
	}
	return end
}

func checkRange(r *pb.RangeRequest) error {
	switch {
	case len(r.Key) == 0:
		return rpctypes.ErrGRPCEmptyKey
	case r.SortOrder != pb.RangeRequest_NONE && (r.SortTarget != pb.RangeRequest_KEY || r.SortOrder == pb.RangeRequest_DESCEND):
		return unsupported("sorting")
	case r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0:
		return unsupported("filters by revision")
	}
	return nil
}

// rangeAt answers a range at its own revision, or at the latest, rev.
func (v view) rangeAt(r *pb.RangeRequest, rev, compacted int64) (*pb.RangeResponse, error) {
	at := rev
	if r.Revision > 0 {
		at = r.Revision
	}
	switch {
	case at > rev:
		return nil, rpctypes.ErrGRPCFutureRev
	case at < compacted:
		return nil, rpctypes.ErrGRPCCompacted
	}
	resp := &pb.RangeResponse{Header: header(rev)}
	add := func(rec *record) {
		kv := rec.kv()
		if r.KeysOnly {
			kv.Value = nil
		}
		resp.Kvs = append(resp.Kvs, kv)
	}
	if len(r.RangeEnd) == 0 {
		rec, err := v.get(r.Key, at)
		if err != nil {
			return nil, diskError{err}
		}
		if rec != nil && !rec.deleted {
			resp.Count = 1
			if !r.CountOnly {
				add(rec)
			}
		}
		return resp, nil
	}
	err := v.scan(r.Key, rangeEnd(r.RangeEnd), at, func(load func() (*record, error)) (bool, error) {
		resp.Count++
		if r.CountOnly || (r.Limit > 0 && resp.Count > r.Limit) {
			return true, nil // the rest is only counted
		}
		rec, err := load()
		if err != nil {
			return false, err
		}
		add(rec)
		return true, nil
	})
	if err != nil {
		return nil, diskError{err}
	}
	resp.More = !r.CountOnly && r.Limit > 0 && resp.Count > r.Limit
	return resp, nil
}

// Range reads the latest state, or that at a revision.
func (s kv) Range(ctx context.Context, r *pb.RangeRequest, _ ...grpc.CallOption) (resp *pb.RangeResponse, err error) {
	if err := checkRange(r); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = s.db.read(func(v view, rev, compacted int64) error {
		resp, err = v.rangeAt(r, rev, compacted)
		return err
	})
	if err == nil && len(r.RangeEnd) == 0 && resp.Count == 0 {
		s.db.nudge(r.Key)
	}
	return resp, err
}

// rangeStream hands out a range in chunks, all at one revision; header, count and more come with the last.
type rangeStream struct {
	grpc.ClientStream
	ctx   context.Context
	db    *DB
	next  *pb.RangeRequest
	rev   int64 // of the latest state, in the header
	sent  int64
	limit int64
	done  bool
}

// RangeStream reads a range in chunks.
func (s kv) RangeStream(ctx context.Context, r *pb.RangeRequest, _ ...grpc.CallOption,
) (grpc.ServerStreamingClient[pb.RangeStreamResponse], error) {
	if err := checkRange(r); err != nil {
		return nil, err
	}
	next := &pb.RangeRequest{
		Key: r.Key, RangeEnd: r.RangeEnd, Revision: r.Revision, KeysOnly: r.KeysOnly, CountOnly: r.CountOnly,
	}
	return &rangeStream{ctx: ctx, db: s.db, next: next, limit: r.Limit}, nil
}

// Recv gives the next chunk; io.EOF after the last.
func (s *rangeStream) Recv() (*pb.RangeStreamResponse, error) {
	if s.done {
		return nil, io.EOF
	}
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	resp := &pb.RangeResponse{}
	err := s.db.read(func(v view, rev, compacted int64) error {
		if len(s.next.RangeEnd) == 0 || s.next.CountOnly {
			got, err := v.rangeAt(s.next, rev, compacted)
			resp, s.done = got, true
			return err
		}
		if s.next.Revision == 0 {
			s.next.Revision = rev
		}
		if s.rev == 0 {
			s.rev = rev
		}
		return s.chunk(v, rev, compacted, resp)
	})
	if err != nil {
		s.done = true
		return nil, err
	}
	return &pb.RangeStreamResponse{RangeResponse: resp}, nil
}

func (s *rangeStream) chunk(v view, rev, compacted int64, resp *pb.RangeResponse) error {
	at := s.next.Revision
	switch {
	case at > rev:
		return rpctypes.ErrGRPCFutureRev
	case at < compacted:
		return rpctypes.ErrGRPCCompacted
	}
	var last []byte
	bytes, full := 0, false
	counted := s.sent
	err := v.scan(s.next.Key, rangeEnd(s.next.RangeEnd), at, func(load func() (*record, error)) (bool, error) {
		if s.limit > 0 && s.sent == s.limit {
			counted++ // the rest is only counted
			return true, nil
		}
		if len(resp.Kvs) == chunkKeys || bytes > chunkBytes {
			full = true
			return false, nil
		}
		rec, err := load()
		if err != nil {
			return false, err
		}
		kv := rec.kv()
		if s.next.KeysOnly {
			kv.Value = nil
		}
		resp.Kvs = append(resp.Kvs, kv)
		bytes += len(kv.Key) + len(kv.Value)
		last = rec.key
		s.sent++
		counted++
		return true, nil
	})
	if err != nil {
		return diskError{err}
	}
	if full {
		s.next.Key = append(append(make([]byte, 0, len(last)+1), last...), 0)
		return nil
	}
	s.done = true
	resp.Header, resp.Count, resp.More = header(s.rev), counted, counted > s.sent
	return nil
}

// Put writes one key.
func (s kv) Put(ctx context.Context, r *pb.PutRequest, _ ...grpc.CallOption) (*pb.PutResponse, error) {
	resp, err := s.db.txn(ctx, &pb.TxnRequest{
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: r}}},
	})
	if err != nil {
		return nil, err
	}
	return resp.Responses[0].GetResponsePut(), nil
}

// DeleteRange deletes one key or a range, under one revision.
func (s kv) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest, _ ...grpc.CallOption) (*pb.DeleteRangeResponse, error) {
	resp, err := s.db.txn(ctx, &pb.TxnRequest{
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}},
	})
	if err != nil {
		return nil, err
	}
	return resp.Responses[0].GetResponseDeleteRange(), nil
}

// Txn compares and writes as one.
func (s kv) Txn(ctx context.Context, r *pb.TxnRequest, _ ...grpc.CallOption) (*pb.TxnResponse, error) {
	return s.db.txn(ctx, r)
}

// Compact forgets all versions that were superseded at the given revision.
func (s kv) Compact(ctx context.Context, r *pb.CompactionRequest, _ ...grpc.CallOption) (*pb.CompactionResponse, error) {
	if err := s.db.compact(ctx, r.Revision); err != nil {
		return nil, err
	}
	return &pb.CompactionResponse{Header: header(s.db.Revision())}, nil
}
