package image

import (
	"context"
	"errors"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/failpoint"
)

// maxIndexDepth bounds indexes inside indexes.
const maxIndexDepth = 3

// chosen is this platform's part of an image.
type chosen struct {
	desc     ocispec.Descriptor // of the manifest
	manifest *document
	config   *ocispec.Image
	indexes  []string // that led to it
}

// choose follows indexes to the manifest for the store's platform, and reads it and its config.
func (s *Store) choose(ctx context.Context, src source, desc ocispec.Descriptor, depth int) (*chosen, error) {
	data, err := s.read(ctx, src, desc, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	doc, err := parseDocument(data, desc.MediaType)
	if err != nil {
		return nil, err
	}
	if !doc.isIndex() {
		data, err := s.read(ctx, src, doc.Config, maxConfig)
		if err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
		cfg, err := parseConfig(data, doc)
		if err != nil {
			return nil, err
		}
		if _, ok := match(cfg.Platform, s.cfg.Platform); !ok && cfg.OS+cfg.Architecture != "" {
			return nil, fmt.Errorf("%w: it is for %s, this node is %s", ErrPlatform, platformName(cfg.Platform), platformName(s.cfg.Platform))
		}
		desc.MediaType = doc.MediaType
		return &chosen{desc: desc, manifest: doc, config: cfg}, nil
	}
	if depth == maxIndexDepth {
		return nil, fmt.Errorf("%w: indexes are nested more than %d deep", ErrCorrupt, maxIndexDepth)
	}
	var first error
	for _, child := range candidates(doc.Manifests, s.cfg.Platform) {
		c, err := s.choose(ctx, src, child, depth+1)
		if err == nil {
			c.indexes = append(c.indexes, desc.Digest.String())
			return c, nil
		}
		if first == nil || errors.Is(first, ErrPlatform) {
			first = err
		}
		if !errors.Is(err, ErrPlatform) && !errors.Is(err, ErrNotFound) {
			break
		}
	}
	if first == nil {
		first = fmt.Errorf("%w: the index has nothing for %s", ErrPlatform, platformName(s.cfg.Platform))
	}
	return nil, first
}

func platformName(p ocispec.Platform) string {
	n := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		n += "/" + p.Variant
	}
	return n
}

// ingest brings an image in: manifest, config, layers, unpacked; then it gets its names. The caller keeps the gate.
func (s *Store) ingest(ctx context.Context, src source, target ocispec.Descriptor, tags, digests []string, m *meter) (*record, error) {
	c, err := s.choose(ctx, src, target, 0)
	if err != nil {
		return nil, err
	}
	layers, blobs, err := s.layers(ctx, src, c, m)
	if err != nil {
		return nil, err
	}
	// All of it must be on disk before the state says so.
	if err := unix.Syncfs(int(s.lock.Fd())); err != nil {
		return nil, fmt.Errorf("sync %s: %w", s.dir, err)
	}
	failpoint.Hit("image/ingest/synced")
	r := &record{
		ID: c.manifest.Config.Digest.String(), Manifest: c.desc.Digest.String(), MediaType: c.desc.MediaType, Indexes: c.indexes,
		Chains: chainIDs(c.config.RootFS.DiffIDs), User: c.config.Config.User, Since: s.cfg.Clock.Now().UTC(),
	}
	sizes := map[string]int64{r.ID: c.manifest.Config.Size, r.Manifest: c.desc.Size}
	for i, b := range blobs {
		r.Blobs = append(r.Blobs, b.Digest.String())
		sizes[b.Digest.String()] = b.Size
		r.Size += layers[i].Size
	}
	for _, n := range sizes {
		r.Size += n
	}
	err = s.update(ctx, func(st *state) error {
		for i, l := range layers {
			if st.Layers[r.Chains[i]] == nil {
				st.Layers[r.Chains[i]] = l
			}
		}
		for d, n := range sizes {
			st.Blobs[d] = n
		}
		for _, d := range c.indexes {
			n, err := s.blobSize(d)
			if err != nil {
				return err
			}
			st.Blobs[d] = n
		}
		st.put(r, tags, digests)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.dropPartials(r.needs())
	return r, nil
}
