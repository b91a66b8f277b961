package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/failpoint"
	"carob.dev/carob/internal/runtime/image/login"
)

// Config says where a Store lives and how it behaves.
type Config struct {
	// Dir holds all of the store. One Store at a time may have it open.
	Dir string
	// RegistryConfigDir holds <host>/hosts.toml and _default/hosts.toml, as containerd's certs.d does. Empty: no mirrors.
	RegistryConfigDir string
	// Login has the node's own credentials, for pulls that bring none. Nil: none.
	Login *login.Keyring
	// InUse says whether a container uses the image with this ID. Such an image can lose its names, never its layers.
	InUse func(id string) bool
	// Pinned are references that garbage collection should spare.
	Pinned []string
	// Platform to choose from indexes. Zero: the node's own.
	Platform ocispec.Platform
	// Parallel is how many blobs are downloaded at once, over all pulls. Zero: 6.
	Parallel int
	// Attempts is how often a request that fails for a passing reason is made. Zero: 4.
	Attempts int
	// RetryDelay is the pause before the second attempt; it doubles each time. Zero: half a second.
	RetryDelay time.Duration
	// StallTimeout ends a download that brings no byte for so long (it is then tried again). Zero: one minute.
	StallTimeout time.Duration
	// Log and Clock; nil means none and the real one.
	Log   *slog.Logger
	Clock clock.WithDelayedExecution
}

// Store keeps images. All methods may be called at the same time.
type Store struct {
	cfg Config
	dir string
	log *slog.Logger

	lock *os.File // flock on Dir
	// current is what was saved last; replaced by update, never changed.
	current atomic.Pointer[state]
	// writer has one slot: who fills it may change the state, in memory and on disk, and the holds.
	writer chan struct{}
	// ingests is a gate, not a guard of fields: pulls and imports share it, a sweep has it alone.
	ingests sync.RWMutex
	// stale says that a sweep is due as soon as nobody ingests, short that it shall spare no unfinished download.
	stale, short atomic.Bool
	// slots bounds parallel downloads, unpacks the layers that are unpacked at once from blobs that are there.
	slots, unpacks chan struct{}
	// busy makes work on one blob or layer happen once.
	busy keyed
	// pulls are the pulls under way, shared by callers.
	pulls flights

	mu     sync.Mutex
	holds  map[string]int    // image ID to users that are not containers yet
	fresh  map[string]*layer // layers unpacked since the last sweep, by chain ID, perhaps not in the state yet
	serial int               // last folder number used under layers/

	background sync.WaitGroup // deletions
}

// Image is what a container needs to know of an image.
type Image struct {
	// ID is the digest of the image's config: sha256:…
	ID string
	// RepoTags and RepoDigests are its names, normalised.
	RepoTags, RepoDigests []string
	// Config has entrypoint, environment, user and so on.
	Config ocispec.ImageConfig
	// Layers are the folders to mount, topmost first, as overlay's lowerdir wants them; at least one. They are siblings with
	// short names: a mount from their parent folder fits 127 of them into a page of options.
	Layers []string
	// Size in bytes on disk. Unique is the part of it that no other image has too; List sets it.
	Size, Unique int64
	// Created is when the image was built, zero if it does not say.
	Created time.Time
	// Pinned images are spared by garbage collection.
	Pinned bool
}

// Open opens the store in cfg.Dir, makes it if need be, and clears away what a crash left.
func Open(ctx context.Context, cfg Config) (_ *Store, err error) {
	if cfg.Dir == "" || !filepath.IsAbs(cfg.Dir) {
		return nil, fmt.Errorf("open image store: %w folder %q: want an absolute path", ErrInvalid, cfg.Dir)
	}
	cfg = cfg.withDefaults()
	s := &Store{
		cfg: cfg, dir: filepath.Clean(cfg.Dir), log: cfg.Log,
		writer: make(chan struct{}, 1), slots: make(chan struct{}, cfg.Parallel), unpacks: make(chan struct{}, runtime.NumCPU()),
		holds: map[string]int{}, fresh: map[string]*layer{},
	}
	for _, d := range []string{s.dir, s.path("tmp"), s.path("partial"), s.path("trash"), s.path("layers"), s.path("blobs"), s.path("empty")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	failpoint.Hit("image/open/folders-made")
	// Processes of any user must reach their root file system through these.
	for _, d := range []string{s.dir, s.path("layers"), s.path("empty")} {
		if err := os.Chmod(d, 0o711); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	if s.lock, err = os.Open(s.dir); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	defer func() {
		if err != nil {
			s.lock.Close()
		}
	}()
	if err := lock(ctx, s.lock); err != nil {
		return nil, fmt.Errorf("open image store %s: in use by another process: %w", s.dir, err)
	}
	st, err := loadState(s.path("state.json"))
	if err != nil {
		return nil, err
	}
	for c, l := range st.Layers {
		if fi, err := os.Stat(s.layerDir(l)); err != nil || !fi.IsDir() {
			return nil, fmt.Errorf("open image store %s: %w: folder of layer %s is gone", s.dir, ErrCorrupt, c)
		}
		n, _ := strconv.Atoi(l.Dir)
		s.serial = max(s.serial, n)
	}
	s.current.Store(st)
	if err := s.sweep(); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	return s, nil
}

func (c Config) withDefaults() Config {
	if c.InUse == nil {
		c.InUse = func(string) bool { return false }
	}
	if c.Platform.OS == "" {
		c.Platform = ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	}
	if c.Parallel <= 0 {
		c.Parallel = 6
	}
	if c.Attempts <= 0 {
		c.Attempts = 4
	}
	if c.RetryDelay <= 0 {
		c.RetryDelay = 500 * time.Millisecond
	}
	if c.StallTimeout <= 0 {
		c.StallTimeout = time.Minute
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	return c
}

// Close waits for pulls and for deletions in the background, and gives the folder free. The images stay.
func (s *Store) Close(context.Context) error {
	s.pulls.runs.Wait()
	s.background.Wait()
	return s.lock.Close()
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *Store) layerDir(l *layer) string { return s.path("layers", l.Dir) }

// update changes the state: fn works on a copy, which is saved and then published.
func (s *Store) update(ctx context.Context, fn func(*state) error) error {
	select {
	case s.writer <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.writer }()
	next := s.current.Load().clone()
	if err := fn(next); err != nil {
		return err
	}
	failpoint.Hit("image/state/decided")
	if err := next.save(s.path("state.json")); err != nil {
		return err
	}
	failpoint.Hit("image/state/saved")
	s.current.Store(next)
	return nil
}

// Resolve finds the image that ref means: an ID, or a name in any form. It never asks a registry. The error wraps
// ErrNotFound if it is not on the node.
func (s *Store) Resolve(ctx context.Context, ref string) (*Image, error) {
	st := s.current.Load()
	r, ok := st.find(ref)
	if !ok {
		return nil, s.wrap("find", ref, ErrNotFound)
	}
	img, err := s.image(st, r)
	return img, s.wrap("find", ref, err)
}

// Hold is Resolve, and keeps the image from being removed until release is called: for the time between choosing an image
// and having a container that Config.InUse knows of.
func (s *Store) Hold(ctx context.Context, ref string) (img *Image, release func(), err error) {
	// Removal decides and publishes while it has the writer's slot, so nothing falls between.
	select {
	case s.writer <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	defer func() { <-s.writer }()
	if img, err = s.Resolve(ctx, ref); err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds[img.ID]++
	return img, sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.holds[img.ID]--; s.holds[img.ID] == 0 {
			delete(s.holds, img.ID)
		}
	}), nil
}

// lockPatience is how long a lock may outlive its process: one that was killed while it started another leaves it to that one for a moment.
const lockPatience = time.Second

func lock(ctx context.Context, f *os.File) error {
	deadline := time.Now().Add(lockPatience)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *Store) inUse(id string) bool {
	s.mu.Lock()
	held := s.holds[id] > 0
	s.mu.Unlock()
	return held || s.cfg.InUse(id)
}

// List returns all images, those that came last first.
func (s *Store) List(ctx context.Context) ([]*Image, error) {
	st := s.current.Load()
	records := make([]*record, 0, len(st.Images))
	for _, r := range st.Images {
		records = append(records, r)
	}
	slices.SortFunc(records, func(a, b *record) int {
		if c := b.Since.Compare(a.Since); c != 0 {
			return c
		}
		return compare(a.ID, b.ID)
	})
	unique := st.unique()
	images := make([]*Image, 0, len(records))
	for _, r := range records {
		img, err := s.image(st, r)
		if err != nil {
			return nil, s.wrap("list", r.ID, err)
		}
		img.Unique = unique[r.ID]
		images = append(images, img)
	}
	return images, nil
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (s *Store) image(st *state, r *record) (*Image, error) {
	cfg, err := s.config(r)
	if err != nil {
		return nil, err
	}
	img := &Image{
		ID: r.ID, RepoTags: slices.Clone(r.Tags), RepoDigests: slices.Clone(r.Digests), Config: cfg.Config, Size: r.Size, Pinned: s.pinned(r),
	}
	if cfg.Created != nil {
		img.Created = *cfg.Created
	}
	for _, c := range slices.Backward(r.Chains) {
		l := st.Layers[c]
		img.Layers = append(img.Layers, s.layerDir(l))
		if l.Opaque {
			break
		}
	}
	if len(img.Layers) == 0 {
		img.Layers = []string{s.path("empty")}
	}
	return img, nil
}

// config reads the image's config from its blob.
func (s *Store) config(r *record) (*ocispec.Image, error) {
	data, err := os.ReadFile(s.blobPath(r.ID))
	if err != nil {
		return nil, err
	}
	var cfg ocispec.Image
	if err := json.Unmarshal(data, &cfg); err != nil {
		return nil, fmt.Errorf("%w: config %s: %w", ErrCorrupt, r.ID, err)
	}
	return &cfg, nil
}

func (s *Store) pinned(r *record) bool {
	return slices.ContainsFunc(s.cfg.Pinned, func(ref string) bool {
		n, err := Normalize(ref)
		return ref == r.ID || err == nil && (slices.Contains(r.Tags, n) || slices.Contains(r.Digests, n))
	})
}
