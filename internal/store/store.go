// Package store keeps the cluster's objects: Kubernetes' own etcd3 store and watch cache over either the embedded store (package embedded) or
// real etcd servers. Which of the two it is shows nowhere else: one code path, only the client differs.
//
// Allowed imports: config, health, sys, and k8s.io/apiserver's storage packages. Only the API server uses this package.
package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"carob.dev/carob/internal/store/embedded"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.uber.org/zap"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/apiserver/pkg/storage/feature"
	"k8s.io/utils/clock"
)

const (
	// Prefix is the folder that all objects live under, as in every Kubernetes.
	Prefix = "/registry"
	// FileName is the embedded store's file in Config.Dir.
	FileName = "store.db"
	// compactEvery is how long the history of changes is kept, as in kube-apiserver.
	compactEvery = 5 * time.Minute
)

// Config says where the objects are kept.
type Config struct {
	// Dir is the folder of the embedded store. It is made if it is missing.
	Dir string
	// Endpoints are the URLs of etcd servers; with any, the embedded store is not used.
	Endpoints []string
	// CAFile, CertFile and KeyFile are the PEM files for TLS to the endpoints; empty for none.
	CAFile, CertFile, KeyFile string
	// ProgressInterval is how often watchers learn the current revision when nothing happened to their objects; a minute if zero.
	ProgressInterval time.Duration
	// Log must not be nil.
	Log *slog.Logger
}

// Store is an open store.
type Store struct {
	client    *kubernetes.Client
	db        *embedded.DB // nil with endpoints
	lock      *os.File     // likewise
	compactor interface {
		etcd3.Compactor
		Stop()
	}
}

// ErrRemote is what the upkeep of the embedded store gives when etcd servers hold the data: etcdctl is for those.
var ErrRemote = errors.New("the objects are kept by etcd servers; use etcdctl")

// Open opens the embedded store, or connects to etcd. A store that another process has open, and one whose file is damaged, are
// *health.Problem. ctx bounds the opening alone.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{}
	var err error
	if len(cfg.Endpoints) > 0 {
		s.client, err = dial(ctx, cfg)
	} else {
		err = s.openEmbedded(ctx, cfg)
	}
	if err != nil {
		return nil, err
	}
	s.compactor = etcd3.NewCompactor(s.client.Client, compactEvery, clock.RealClock{}, nil)
	return s, nil
}

func (s *Store) openEmbedded(ctx context.Context, cfg Config) (err error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	if s.lock, err = acquire(ctx, filepath.Join(cfg.Dir, "lock")); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.lock.Close()
		}
	}()
	path := filepath.Join(cfg.Dir, FileName)
	if err := embedded.Verify(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return corrupt(path, err)
	}
	s.db, err = embedded.Open(embedded.Config{
		Path: path, Volatile: heartbeat, ProgressInterval: cfg.ProgressInterval, Log: cfg.Log,
	})
	if err != nil {
		return err
	}
	s.client = s.db.Client(context.Background())
	return primeFeatures(ctx)
}

// heartbeat says whether key is a node's lease. Renewals come every few seconds from every node, and losing a minute of them does no harm.
func heartbeat(key []byte) bool {
	return strings.HasPrefix(string(key), Prefix+"/leases/kube-node-lease/")
}

// primeFeatures tells Kubernetes' storage that progress of watches can be asked for; it learns such things by asking an endpoint, and the
// embedded store has none.
func primeFeatures(ctx context.Context) error {
	feature.DefaultFeatureSupportChecker.CheckClient(context.Background(), endpoint{}, storage.RequestWatchProgress)
	for !feature.DefaultFeatureSupportChecker.Supports(storage.RequestWatchProgress) { // it asks in a goroutine
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// endpoint is a server that is asked for nothing but its version.
type endpoint struct{}

func (endpoint) Endpoints() []string { return []string{"embedded"} }

func (endpoint) Status(context.Context, string) (*clientv3.StatusResponse, error) {
	return &clientv3.StatusResponse{Version: embedded.Version}, nil
}

func dial(ctx context.Context, cfg Config) (*kubernetes.Client, error) {
	var tlsConfig *tls.Config
	if cfg.CAFile != "" || cfg.CertFile != "" {
		info := transport.TLSInfo{TrustedCAFile: cfg.CAFile, CertFile: cfg.CertFile, KeyFile: cfg.KeyFile}
		var err error
		if tlsConfig, err = info.ClientConfig(); err != nil {
			return nil, fmt.Errorf("TLS to the etcd servers: %w", err)
		}
	}
	c, err := kubernetes.New(clientv3.Config{
		Endpoints: cfg.Endpoints, TLS: tlsConfig, DialTimeout: 10 * time.Second,
		DialKeepAliveTime: 30 * time.Second, DialKeepAliveTimeout: 10 * time.Second, Logger: zap.NewNop(), // errors are returned as well
	})
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", strings.Join(cfg.Endpoints, ", "), err)
	}
	ask, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := c.Kubernetes.Get(ask, Prefix, kubernetes.GetOptions{}); err != nil {
		c.Close()
		return nil, unreachable(cfg.Endpoints, err)
	}
	return c, nil
}

// Client is the etcd client underneath.
func (s *Store) Client() *kubernetes.Client { return s.client }

// Close ends everything and, with the embedded store, writes what is only in memory. Registries must have been destroyed before.
func (s *Store) Close() error {
	s.compactor.Stop()
	var errs []error
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		errs = append(errs, err)
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// Backup writes a copy of the embedded store while it goes on working: a file that can take the place of the original.
func (s *Store) Backup(w io.Writer) error {
	if s.db == nil {
		return ErrRemote
	}
	_, err := s.db.Backup(w)
	return err
}

// Check looks at every page and every record of the embedded store.
func (s *Store) Check(ctx context.Context) error {
	if s.db == nil {
		return ErrRemote
	}
	return s.db.Check(ctx)
}

// Defrag gives the embedded store's free space back to the file system.
func (s *Store) Defrag(ctx context.Context) error {
	if s.db == nil {
		return ErrRemote
	}
	return s.db.Defrag(ctx)
}
