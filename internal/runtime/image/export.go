package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"carob.dev/carob/internal/runtime/image/unpack"
)

// Export writes images as one OCI archive that `docker load` understands too. An image given by ID goes with all its tags,
// one given by name with that name only.
func (s *Store) Export(ctx context.Context, w io.Writer, refs ...string) error {
	if len(refs) == 0 {
		return s.wrap("export", "", fmt.Errorf("%w request: no image named", ErrInvalid))
	}
	defer s.beginIngest()() // nothing of them may go meanwhile
	st := s.current.Load()
	e := &exporter{store: s, tar: tar.NewWriter(w), done: map[digest.Digest]bool{}}
	for _, ref := range refs {
		r, ok := st.lookup(ref)
		if !ok {
			return s.wrap("export", ref, ErrNotFound)
		}
		names := r.Tags
		if n, err := parse(ref); err == nil && !strings.HasPrefix(r.ID, "sha256:"+strings.TrimPrefix(ref, "sha256:")) && tagOf(n) != "" {
			names = []string{n.String()}
		}
		if err := e.add(ctx, st, r, names); err != nil {
			return s.wrap("export", ref, err)
		}
	}
	return s.wrap("export", strings.Join(refs, " "), e.finish())
}

type exporter struct {
	store  *Store
	tar    *tar.Writer
	done   map[digest.Digest]bool
	index  []ocispec.Descriptor
	docker []dockerImage
}

func (e *exporter) add(ctx context.Context, st *state, r *record, names []string) error {
	data, err := os.ReadFile(e.store.blobPath(r.Manifest))
	if err != nil {
		return err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("%w: manifest %s: %w", ErrCorrupt, r.Manifest, err)
	}
	changed := false
	d := dockerImage{Config: blobName(m.Config.Digest), RepoTags: names}
	for i, b := range r.Blobs {
		// The same layer may have come packed otherwise before; then that is what there is.
		if l := &m.Layers[i]; l.Digest.String() != b {
			changed = true
			*l = ocispec.Descriptor{MediaType: e.layerType(b), Digest: digest.Digest(b), Size: st.Blobs[b]}
			m.MediaType, m.Config.MediaType = ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig
		}
		d.Layers = append(d.Layers, blobName(digest.Digest(b)))
		if err := e.blob(ctx, digest.Digest(b)); err != nil {
			return err
		}
	}
	if err := e.blob(ctx, m.Config.Digest); err != nil {
		return err
	}
	desc := ocispec.Descriptor{MediaType: r.MediaType, Digest: digest.Digest(r.Manifest), Size: int64(len(data))}
	if changed {
		if data, err = json.Marshal(m); err != nil {
			return err
		}
		desc = ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	}
	if err := e.file(blobName(desc.Digest), int64(len(data)), bytes.NewReader(data)); err != nil {
		return err
	}
	if len(names) == 0 {
		e.index = append(e.index, desc)
	}
	for _, n := range names {
		desc.Annotations = map[string]string{containerdName: n, ocispec.AnnotationRefName: n[len(repository(n))+1:]}
		e.index = append(e.index, desc)
	}
	e.docker = append(e.docker, d)
	return nil
}

func (e *exporter) layerType(blob string) string {
	f, err := os.Open(e.store.blobPath(blob))
	if err != nil {
		return ocispec.MediaTypeImageLayer
	}
	defer f.Close()
	head := make([]byte, unpack.HeadBytes)
	n, _ := io.ReadFull(f, head)
	switch unpack.PackingOf(head[:n]) {
	case unpack.Gzip:
		return ocispec.MediaTypeImageLayerGzip
	case unpack.Zstd:
		return ocispec.MediaTypeImageLayerZstd
	}
	return ocispec.MediaTypeImageLayer
}

func blobName(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

func (e *exporter) blob(ctx context.Context, d digest.Digest) error {
	if e.done[d] {
		return nil
	}
	f, err := os.Open(e.store.blobPath(d.String()))
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	return e.file(blobName(d), fi.Size(), readFunc(func(b []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return f.Read(b)
	}))
}

// file writes one entry, unless it is there already.
func (e *exporter) file(name string, size int64, r io.Reader) error {
	if d := digest.Digest(strings.Replace(strings.TrimPrefix(name, "blobs/"), "/", ":", 1)); d.Validate() == nil {
		if e.done[d] {
			return nil
		}
		e.done[d] = true
	}
	if err := e.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644}); err != nil {
		return err
	}
	_, err := io.Copy(e.tar, r)
	return err
}

func (e *exporter) finish() error {
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: e.index}
	index.SchemaVersion = 2
	for _, f := range []struct {
		name string
		v    any
	}{
		{ocispec.ImageIndexFile, index},
		{"manifest.json", e.docker},
		{ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}},
	} {
		data, err := json.Marshal(f.v)
		if err != nil {
			return err
		}
		if err := e.file(f.name, int64(len(data)), bytes.NewReader(data)); err != nil {
			return err
		}
	}
	return e.tar.Close()
}
