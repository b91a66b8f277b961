package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"carob.dev/carob/internal/runtime/image/unpack"
)

// entry is a line of a layer's tar.
type entry struct {
	name  string
	kind  byte // 0: by its other fields
	mode  int64
	uid   int
	text  string
	link  string
	xattr map[string]string
}

func layerTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: e.mode, Uid: e.uid, Linkname: e.link, Size: int64(len(e.text)), ModTime: time.Unix(1e9, 0)}
		switch {
		case e.kind != 0:
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag = tar.TypeDir
		default:
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		for k, v := range e.xattr {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(e.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipped0(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zstded(t testing.TB, data []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return z.EncodeAll(data, nil)
}

// extract unpacks one layer on top of parents, topmost first.
func extract(ctx context.Context, dir string, blob io.Reader, parents []string, diffID digest.Digest) (unpack.Layer, error) {
	l, err := unpack.Apply(ctx, dir, blob, diffID)
	if err != nil {
		return l, err
	}
	return l, unpack.Inherit(dir, l.Passed, parents)
}

// fixture is an image in memory: its blobs by digest.
type fixture struct {
	blobs    map[digest.Digest][]byte
	config   ocispec.Image
	manifest ocispec.Manifest
	desc     ocispec.Descriptor
}

func (f *fixture) blob(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	f.blobs[d.Digest] = data
	return d
}

func (f *fixture) object(t testing.TB, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return f.blob(mediaType, data)
}

// newImage makes an image of layers, the first plain, the second gzip, the third zstd, and so on.
func newImage(t testing.TB, cfg ocispec.ImageConfig, layers ...[]byte) *fixture {
	t.Helper()
	f := &fixture{blobs: map[digest.Digest][]byte{}}
	f.config = ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}, Config: cfg, RootFS: ocispec.RootFS{Type: "layers"}}
	f.manifest = ocispec.Manifest{Versioned: ocispecs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for i, l := range layers {
		f.config.RootFS.DiffIDs = append(f.config.RootFS.DiffIDs, digest.FromBytes(l))
		switch i % 3 {
		case 0:
			f.manifest.Layers = append(f.manifest.Layers, f.blob(ocispec.MediaTypeImageLayer, l))
		case 1:
			f.manifest.Layers = append(f.manifest.Layers, f.blob(ocispec.MediaTypeImageLayerGzip, gzipped0(t, l)))
		case 2:
			f.manifest.Layers = append(f.manifest.Layers, f.blob(ocispec.MediaTypeImageLayerZstd, zstded(t, l)))
		}
	}
	f.seal(t)
	return f
}

// seal writes config and manifest as they are now.
func (f *fixture) seal(t testing.TB) {
	t.Helper()
	f.manifest.Config = f.object(t, ocispec.MediaTypeImageConfig, f.config)
	f.desc = f.object(t, f.manifest.MediaType, f.manifest)
}

// archive is the image as an OCI archive under the given names.
func (f *fixture) archive(t testing.TB, names ...string) []byte {
	t.Helper()
	index := ocispec.Index{Versioned: ocispecs.Versioned{SchemaVersion: 2}}
	for _, n := range names {
		d := f.desc
		d.Annotations = map[string]string{containerdName: n}
		index.Manifests = append(index.Manifests, d)
	}
	if len(names) == 0 {
		index.Manifests = append(index.Manifests, f.desc)
	}
	data, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	entries := []entry{{name: "index.json", text: string(data)}, {name: "oci-layout", text: `{"imageLayoutVersion":"1.0.0"}`}}
	for d, b := range f.blobs {
		entries = append(entries, entry{name: blobName(d), text: string(b)})
	}
	return layerTar(t, entries...)
}

// serve answers as a registry that looks at nothing: the image has every tag.
func (f *fixture) serve(w http.ResponseWriter, r *http.Request) bool {
	what := digest.Digest(path.Base(r.URL.Path))
	if r.URL.Path == "/v2/" {
		return true
	}
	if _, ok := f.blobs[what]; !ok && strings.Contains(r.URL.Path, "/manifests/") && what.Validate() != nil {
		what = f.desc.Digest
		w.Header().Set("Content-Type", f.desc.MediaType)
	}
	data, ok := f.blobs[what]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return true
	}
	_, _ = w.Write(data)
	return true
}
