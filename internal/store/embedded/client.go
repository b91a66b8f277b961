package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
)

// Version is the version of etcd whose behaviour the store has: requested watch progress works.
const Version = "3.6.0"

// Client is the store as the etcd client that Kubernetes' etcd3 storage takes. It has no endpoints and no connection. Closing it does not
// close the store.
func (db *DB) Client(ctx context.Context) *kubernetes.Client {
	c := clientv3.NewCtxClient(ctx)
	c.KV = clientv3.NewKVFromKVClient(kv{db}, nil)
	c.Lease = leaser{db}
	c.Watcher = watcher{db}
	c.Maintenance = maintenance{db: db}
	k := &kubernetes.Client{Client: c}
	k.Kubernetes = k
	return k
}

// maintenance is clientv3's Maintenance, as far as one file has need of it.
type maintenance struct {
	clientv3.Maintenance // nil: what is not below must not be called
	db                   *DB
}

// Status tells the version, the size and the revision.
func (m maintenance) Status(context.Context, string) (*clientv3.StatusResponse, error) {
	size, err := m.db.Size()
	if err != nil {
		return nil, err
	}
	return &clientv3.StatusResponse{
		Header: header(m.db.Revision()), Version: Version, StorageVersion: Version, DbSize: size, DbSizeInUse: size,
	}, nil
}

// Defragment gives free space back to the file system.
func (m maintenance) Defragment(ctx context.Context, _ string) (*clientv3.DefragmentResponse, error) {
	if err := m.db.Defrag(ctx); err != nil {
		return nil, err
	}
	return &clientv3.DefragmentResponse{Header: header(m.db.Revision())}, nil
}

// Snapshot reads a copy of the file.
func (m maintenance) Snapshot(ctx context.Context) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	m.db.wg.Go(func() {
		_, err := m.db.Backup(w)
		w.CloseWithError(err)
	})
	return r, nil
}

// SnapshotWithVersion reads a copy of the file.
func (m maintenance) SnapshotWithVersion(ctx context.Context) (*clientv3.SnapshotResponse, error) {
	r, err := m.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return &clientv3.SnapshotResponse{Header: header(m.db.Revision()), Snapshot: r, Version: Version}, nil
}

// AlarmList is empty: a full disk is an error of the write that met it.
func (m maintenance) AlarmList(context.Context) (*clientv3.AlarmResponse, error) {
	return (*clientv3.AlarmResponse)(&pb.AlarmResponse{Header: header(m.db.Revision())}), nil
}

var errNoCluster = errors.New("the embedded store is not a cluster")

// AlarmDisarm has nothing to disarm.
func (maintenance) AlarmDisarm(context.Context, *clientv3.AlarmMember) (*clientv3.AlarmResponse, error) {
	return nil, errNoCluster
}

// HashKV compares members of a cluster.
func (maintenance) HashKV(context.Context, string, int64) (*clientv3.HashKVResponse, error) {
	return nil, errNoCluster
}

// MoveLeader is for clusters.
func (maintenance) MoveLeader(context.Context, uint64) (*clientv3.MoveLeaderResponse, error) {
	return nil, errNoCluster
}

// Downgrade is for clusters.
func (maintenance) Downgrade(context.Context, clientv3.DowngradeAction, string) (*clientv3.DowngradeResponse, error) {
	return nil, fmt.Errorf("downgrade: %w", errNoCluster)
}
