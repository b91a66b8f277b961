package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"carob.dev/carob/internal/failpoint"
	"carob.dev/carob/internal/runtime/image/unpack"
)

// known finds a layer that is unpacked already.
func (s *Store) known(chain string) (*layer, bool) {
	if l, ok := s.current.Load().Layers[chain]; ok {
		return l, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.fresh[chain]
	return l, ok
}

// stack is the work on one image's layers, lowest first. What belongs to a layer may be read once its channel is closed.
type stack struct {
	store  *Store
	src    source
	descs  []ocispec.Descriptor
	diffs  []digest.Digest
	chains []string
	meter  *meter

	begun   []chan *partial      // a download under way, if there is one, to read along with
	fetched []chan struct{}      // closed when the blob is there
	blobs   []ocispec.Descriptor // what is kept: for a layer that was there already, the blob it once came from
	done    []chan struct{}      // closed when the layer is there
	layers  []*layer
}

// layers downloads what is missing, several at once, and unpacks each layer while it arrives. It returns the layers and the blobs that are kept.
func (s *Store) layers(ctx context.Context, src source, c *chosen, m *meter) ([]*layer, []ocispec.Descriptor, error) {
	n := len(c.manifest.Layers)
	st := &stack{
		store: s, src: src, descs: c.manifest.Layers, diffs: c.config.RootFS.DiffIDs, chains: chainIDs(c.config.RootFS.DiffIDs), meter: m,
		begun: make([]chan *partial, n), fetched: make([]chan struct{}, n), blobs: make([]ocispec.Descriptor, n),
		done: make([]chan struct{}, n), layers: make([]*layer, n),
	}
	m.expect(st.descs)
	g, ctx := errgroup.WithContext(ctx)
	for i, d := range st.descs {
		st.begun[i], st.fetched[i], st.done[i] = make(chan *partial, 1), make(chan struct{}), make(chan struct{})
		st.blobs[i] = d
		if l, ok := s.known(st.chains[i]); ok && !s.hasBlob(d) {
			if size, err := s.blobSize(l.Blob); err == nil {
				st.blobs[i].Digest, st.blobs[i].Size = digest.Digest(l.Blob), size
				m.add(d.Size)
				close(st.fetched[i])
			}
		}
	}
	for i := range st.descs {
		g.Go(func() error { return st.fetch(ctx, i) })
		g.Go(func() error { return st.unpack(ctx, i) })
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	return st.layers, st.blobs, nil
}

func (st *stack) fetch(ctx context.Context, i int) error {
	select {
	case <-st.fetched[i]:
		return nil
	default:
	}
	if err := st.store.fetch(ctx, st.src, st.descs[i], st.meter, func(p *partial) { st.begun[i] <- p }); err != nil {
		return err
	}
	close(st.fetched[i])
	return nil
}

// unpack makes the folder of one layer, unless it is there. A layer is found by its chain ID: the same layer on other ones is another,
// because folders that it only passes through take owner, mode and attributes from below.
func (st *stack) unpack(ctx context.Context, i int) error {
	unlock, err := st.store.busy.lock(ctx, "layer "+st.chains[i])
	if err != nil {
		return err
	}
	defer unlock()
	l, ok := st.store.known(st.chains[i])
	if !ok {
		if l, err = st.make(ctx, i); err != nil {
			return err
		}
	}
	if err := wait(ctx, st.fetched[i]); err != nil {
		return err
	}
	st.layers[i] = l
	close(st.done[i])
	st.meter.unpacked()
	return nil
}

func (st *stack) make(ctx context.Context, i int) (_ *layer, err error) {
	s := st.store
	tmp, u, err := st.extract(ctx, i)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("unpack layer %s: %w", st.descs[i].Digest, err), os.RemoveAll(tmp))
		}
	}()
	// Only bytes that have proved to be what the manifest says may become a layer.
	if err := wait(ctx, st.fetched[i]); err != nil {
		return nil, err
	}
	if len(u.Passed) > 0 {
		var below []string
		for j := i - 1; j >= 0; j-- {
			if err := wait(ctx, st.done[j]); err != nil {
				return nil, err
			}
			below = append(below, s.layerDir(st.layers[j]))
			if st.layers[j].Opaque {
				break
			}
		}
		if err := unpack.Inherit(tmp, u.Passed, below); err != nil {
			return nil, err
		}
	}
	failpoint.Hit("image/layer/unpacked")
	l := &layer{DiffID: st.diffs[i].String(), Blob: st.blobs[i].Digest.String(), Size: u.Bytes, Inodes: u.Inodes, Opaque: u.Opaque}
	s.mu.Lock()
	s.serial++
	l.Dir = strconv.Itoa(s.serial)
	s.mu.Unlock()
	if err := os.Rename(tmp, s.layerDir(l)); err != nil {
		return nil, err
	}
	failpoint.Hit("image/layer/named")
	s.mu.Lock()
	s.fresh[st.chains[i]] = l
	s.mu.Unlock()
	return l, nil
}

// extract unpacks a layer into a folder of its own, while it is downloaded if it is. What goes wrong then may be the download's fault: it
// counts only if it goes wrong again with the blob that was checked.
func (st *stack) extract(ctx context.Context, i int) (dir string, u unpack.Layer, err error) {
	select {
	case p := <-st.begun[i]:
		if f, err := p.follow(ctx); err == nil {
			dir, u, err = st.store.extract(ctx, f, st.diffs[i])
			f.Close()
			if err == nil || ctx.Err() != nil {
				return dir, u, err
			}
		}
	case <-st.fetched[i]:
	case <-ctx.Done(): // the group keeps the error that ended it
		return "", u, ctx.Err()
	}
	if err := wait(ctx, st.fetched[i]); err != nil {
		return "", u, err
	}
	// Those that wait for the network wait for nobody else; of those that need a processor there are no more than help.
	select {
	case st.store.unpacks <- struct{}{}:
		defer func() { <-st.store.unpacks }()
	case <-ctx.Done():
		return "", u, ctx.Err()
	}
	f, err := os.Open(st.store.blobPath(st.blobs[i].Digest.String()))
	if err != nil {
		return "", u, err
	}
	defer f.Close()
	dir, u, err = st.store.extract(ctx, f, st.diffs[i])
	if err != nil {
		err = fmt.Errorf("unpack layer %s: %w", st.blobs[i].Digest, err)
	}
	return dir, u, err
}

// extract unpacks a blob into a folder under tmp/, which is gone again if that fails.
func (s *Store) extract(ctx context.Context, blob io.Reader, diffID digest.Digest) (string, unpack.Layer, error) {
	tmp, err := os.MkdirTemp(s.path("tmp"), "layer-")
	if err != nil {
		return "", unpack.Layer{}, err
	}
	failpoint.Hit("image/layer/folder-made")
	if err = os.Chmod(tmp, 0o755); err == nil {
		var u unpack.Layer
		if u, err = unpack.Apply(ctx, tmp, blob, diffID); err == nil {
			return tmp, u, nil
		}
	}
	return "", unpack.Layer{}, errors.Join(err, os.RemoveAll(tmp))
}

func wait(ctx context.Context, ch <-chan struct{}) error {
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
