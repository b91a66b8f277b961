// Package etcd runs the storage suites on real etcd, through the same store.Open that a Carob with --datastore-endpoint uses. It is a
// module of its own so that the etcd server is no dependency of Carob.
package etcd

import (
	"context"
	"net"
	"net/url"
	"os"
	"testing"
	"time"

	"carob.dev/carob/internal/store"
	"carob.dev/carob/internal/store/storetest"
	"go.etcd.io/etcd/server/v3/embed"
)

// serve starts an etcd server for one test.
func serve(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := embed.NewConfig()
	cfg.Dir = dir
	cfg.UnsafeNoFsync = true
	cfg.LogLevel = "error"
	cfg.WatchProgressNotifyInterval = time.Second
	client, peer := address(t), address(t)
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(30 * time.Second):
		t.Fatal("etcd does not start")
	}
	return client.String()
}

// address is a free port of the loopback interface.
func address(t testing.TB) url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return url.URL{Scheme: "http", Host: l.Addr().String()}
}

func TestSuite(t *testing.T) {
	storetest.Run(t, func(t testing.TB) *store.Store {
		s, err := store.Open(context.Background(), store.Config{Endpoints: []string{serve(t)}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	})
}
