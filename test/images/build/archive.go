package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"runtime"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// image is one image of an archive.
type image struct {
	name, tag string
	config    ocispec.ImageConfig
	layers    []*blob
}

// blob is a layer, packed.
type blob struct {
	data   []byte
	diffID digest.Digest
}

func pack(t tree) (*blob, error) {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	sum := digest.Canonical.Digester()
	if err := t.tarball(io.MultiWriter(z, sum.Hash())); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return &blob{data: buf.Bytes(), diffID: sum.Digest()}, nil
}

// writeArchive writes images as one OCI archive.
func writeArchive(path string, images []image) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	a := &archive{tar: tar.NewWriter(f), done: map[digest.Digest]bool{}}
	index := ocispec.Index{Versioned: ocispecs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, img := range images {
		desc, err := a.image(img)
		if err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, desc)
	}
	if err := a.json(ocispec.ImageIndexFile, index); err != nil {
		return err
	}
	if err := a.json(ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}); err != nil {
		return err
	}
	return a.tar.Close()
}

type archive struct {
	tar  *tar.Writer
	done map[digest.Digest]bool
}

func (a *archive) image(img image) (ocispec.Descriptor, error) {
	platform := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	cfg := ocispec.Image{Created: &epoch, Platform: platform, Config: img.config, RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: ocispecs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, l := range img.layers {
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, l.diffID)
		cfg.History = append(cfg.History, ocispec.History{Created: &epoch, CreatedBy: "test/images/build"})
		desc, err := a.blob(ocispec.MediaTypeImageLayerGzip, l.data)
		if err != nil {
			return desc, err
		}
		m.Layers = append(m.Layers, desc)
	}
	var err error
	if m.Config, err = a.object(ocispec.MediaTypeImageConfig, cfg); err != nil {
		return m.Config, err
	}
	desc, err := a.object(m.MediaType, m)
	desc.Platform = &platform
	desc.Annotations = map[string]string{
		ocispec.AnnotationRefName:  img.tag,
		"io.containerd.image.name": "docker.io/library/" + img.name + ":" + img.tag,
	}
	return desc, err
}

func (a *archive) object(mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return a.blob(mediaType, data)
}

func (a *archive) blob(mediaType string, data []byte) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if a.done[desc.Digest] {
		return desc, nil
	}
	a.done[desc.Digest] = true
	return desc, a.file("blobs/sha256/"+desc.Digest.Encoded(), data)
}

func (a *archive) json(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return a.file(name, data)
}

func (a *archive) file(name string, data []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644, ModTime: epoch}
	if err := a.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := a.tar.Write(data)
	return err
}
