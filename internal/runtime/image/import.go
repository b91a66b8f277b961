package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"carob.dev/carob/internal/runtime/image/unpack"
)

// containerdName is the annotation with which Docker and containerd write a full reference into an archive's index.
const containerdName = "io.containerd.image.name"

// Import reads images from an archive, in OCI's layout or as `docker save` writes it, plain or packed with gzip or zstd. It
// returns, for each image, its normalised names, or its ID where the archive gives it none. Progress may be nil.
func (s *Store) Import(ctx context.Context, r io.Reader, progress func(Progress)) ([]string, error) {
	defer s.beginIngest()()
	// Blobs of other platforms, and what an archive that failed left, go with the next sweep.
	s.stale.Store(true)
	names, err := s.importArchive(ctx, r, progress)
	return names, s.wrap("import", "archive", err)
}

func (s *Store) importArchive(ctx context.Context, r io.Reader, progress func(Progress)) ([]string, error) {
	plain, err := unpack.Decompress(readFunc(func(b []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(b)
	}))
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	a, err := s.readArchive(plain)
	if err != nil {
		return nil, content(err)
	}
	images, err := a.images(s)
	if err != nil {
		return nil, err
	}
	if len(images) == 0 {
		return nil, fmt.Errorf("%w archive: no images in it", ErrInvalid)
	}
	var names []string
	for _, img := range images {
		m := &meter{tell: progress, clock: s.cfg.Clock, p: Progress{Ref: strings.Join(img.tags, " ")}}
		rec, err := s.ingest(ctx, stored{}, img.desc, img.tags, img.digests, m)
		if errors.Is(err, ErrPlatform) && len(images) > 1 {
			s.log.Warn("image in the archive is for another platform", "names", img.tags, "err", err)
			continue
		}
		if err != nil {
			return names, err
		}
		if len(img.tags) == 0 {
			names = append(names, rec.ID)
		}
		names = append(names, img.tags...)
		s.log.Info("imported image", "names", img.tags, "id", rec.ID, "size", rec.Size)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: none of the archive's images is for this node", ErrPlatform)
	}
	return names, nil
}

// content tells errors in an archive from those of this machine.
func content(err error) error {
	var sys syscall.Errno
	if errors.As(err, &sys) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrCorrupt) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

// stored is the source of content that must be in the store already.
type stored struct{}

func (stored) hosts() int { return 1 }

func (stored) open(_ context.Context, _ int, desc ocispec.Descriptor, _ int64) (io.ReadCloser, int64, error) {
	return nil, 0, fmt.Errorf("%w in the archive", ErrNotFound)
}

// contents is what an archive holds, by path. Everything in it became a blob.
type contents struct {
	files map[string]ocispec.Descriptor
	links map[string]string
}

// archived is an image of an archive with the names it gives itself.
type archived struct {
	desc          ocispec.Descriptor
	tags, digests []string
}

// maxLinks bounds links to links in an archive.
const maxLinks = 8

func (s *Store) readArchive(r io.Reader) (*contents, error) {
	a := &contents{files: map[string]ocispec.Descriptor{}, links: map[string]string{}}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read archive: %w", err)
		}
		name := path.Clean("/" + h.Name)[1:]
		switch h.Typeflag {
		case tar.TypeReg:
			var want digest.Digest
			if dir, hex := path.Split(name); strings.HasPrefix(dir, "blobs/") {
				want = digest.NewDigestFromEncoded(digest.Algorithm(strings.Trim(strings.TrimPrefix(dir, "blobs/"), "/")), hex)
			}
			if a.files[name], err = s.addBlob(tr, want); err != nil {
				return nil, fmt.Errorf("read archive: %s: %w", name, err)
			}
		case tar.TypeSymlink: // docker save of old: a layer that another image has too
			a.links[name] = path.Clean("/" + path.Join(path.Dir(name), h.Linkname))[1:]
		case tar.TypeLink:
			a.links[name] = path.Clean("/" + h.Linkname)[1:]
		case tar.TypeDir, tar.TypeXGlobalHeader:
		default:
			return nil, fmt.Errorf("%w archive: %s is neither file nor folder", ErrInvalid, name)
		}
	}
}

func (a *contents) find(name string) (ocispec.Descriptor, bool) {
	name = path.Clean("/" + name)[1:]
	for range maxLinks {
		if d, ok := a.files[name]; ok {
			return d, true
		}
		to, ok := a.links[name]
		if !ok {
			break
		}
		name = to
	}
	return ocispec.Descriptor{}, false
}

func (a *contents) json(s *Store, name string, into any) (bool, error) {
	d, ok := a.find(name)
	if !ok {
		return false, nil
	}
	if d.Size > maxManifest {
		return true, fmt.Errorf("%w: %s is %d bytes long", ErrCorrupt, name, d.Size)
	}
	data, err := os.ReadFile(s.blobPath(d.Digest.String()))
	if err != nil {
		return true, err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return true, fmt.Errorf("%w: %s: %w", ErrCorrupt, name, err)
	}
	return true, nil
}

// images lists what the archive's index or, failing that, docker's manifest.json names.
func (a *contents) images(s *Store) ([]archived, error) {
	var index ocispec.Index
	if ok, err := a.json(s, "index.json", &index); err != nil {
		return nil, err
	} else if ok {
		return ociImages(index)
	}
	var list []dockerImage
	if ok, err := a.json(s, "manifest.json", &list); err != nil {
		return nil, err
	} else if !ok {
		return nil, fmt.Errorf("%w archive: neither index.json nor manifest.json in it", ErrInvalid)
	}
	var out []archived
	for _, d := range list {
		img, err := a.docker(s, d)
		if err != nil {
			return nil, err
		}
		out = append(out, img)
	}
	return out, nil
}

// ociImages groups the index's entries by manifest: one image may stand there once for each of its names.
func ociImages(index ocispec.Index) ([]archived, error) {
	var out []archived
	at := map[digest.Digest]int{}
	for _, d := range index.Manifests {
		i, seen := at[d.Digest]
		if !seen {
			i = len(out)
			at[d.Digest] = i
			out = append(out, archived{desc: d})
		}
		ref := annotatedName(d.Annotations)
		if ref == "" {
			continue
		}
		n, err := parse(ref)
		if err != nil {
			return nil, err
		}
		if tagOf(n) != "" {
			out[i].tags = union(out[i].tags, []string{n.String()})
		}
		out[i].digests = union(out[i].digests, []string{n.Name() + "@" + d.Digest.String()})
	}
	return out, nil
}

// annotatedName is the full name in an index entry's annotations. A bare word under ref.name is a tag of a repository that
// the archive does not tell, and so no name.
func annotatedName(a map[string]string) string {
	if n := a[containerdName]; n != "" {
		return n
	}
	n := a[ocispec.AnnotationRefName]
	if !strings.ContainsAny(n, "/:@") {
		return ""
	}
	return n
}

// dockerImage is an entry of the manifest.json that `docker save` writes.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// docker makes the manifest that such archives lack. Its digest is of our making, so no digest becomes a name.
func (a *contents) docker(s *Store, d dockerImage) (archived, error) {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	cfg, ok := a.find(d.Config)
	if !ok {
		return archived{}, fmt.Errorf("%w archive: %q is missing", ErrInvalid, d.Config)
	}
	m.Config = cfg
	m.Config.MediaType = ocispec.MediaTypeImageConfig
	for _, l := range d.Layers {
		desc, ok := a.find(l)
		if !ok {
			return archived{}, fmt.Errorf("%w archive: %q is missing", ErrInvalid, l)
		}
		desc.MediaType = ocispec.MediaTypeImageLayer
		m.Layers = append(m.Layers, desc)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return archived{}, err
	}
	desc, err := s.addBlob(bytes.NewReader(data), "")
	if err != nil {
		return archived{}, err
	}
	desc.MediaType = m.MediaType
	img := archived{desc: desc}
	for _, t := range d.RepoTags {
		n, err := Normalize(t)
		if err != nil {
			return archived{}, err
		}
		img.tags = union(img.tags, []string{n})
	}
	return img, nil
}
