package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/runtime/image/unpack"
)

// rawHeader is a tar header block that archive/tar would not write, with a right checksum.
func rawHeader(name string, kind byte, size []byte) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:136], size)
	copy(b[136:], "00000000000\x00")
	copy(b[148:], "        ")
	b[156] = kind
	copy(b[257:], "ustar  \x00")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// Layers that make no sense are refused for what they are, and quickly; odd ones that do are unpacked.
func TestOddLayers(t *testing.T) {
	requireRoot(t)
	end := make([]byte, 1024)
	exbibytes := append([]byte{0x80, 0, 0, 0, 0x7f}, bytes.Repeat([]byte{0xff}, 7)...)
	var many []entry
	for i := range 20_000 {
		many = append(many, entry{name: fmt.Sprint("f", i)})
	}
	header := func(h tar.Header) []byte {
		var buf bytes.Buffer
		tw := tar.NewWriter(&buf)
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		return append(buf.Bytes(), end...)
	}
	sparse := bytes.Join([][]byte{rawHeader("huge", tar.TypeGNUSparse, []byte("00000000000\x00")), end}, nil)
	copy(sparse[483:], exbibytes) // its real size
	fixChecksum(sparse)
	for _, c := range []struct {
		name  string
		layer []byte
		want  error
		files []string
	}{
		{"claims exbibytes", append(rawHeader("huge", tar.TypeReg, exbibytes), end...), unpack.ErrCorrupt, nil},
		{"claims exbibytes of nothing", sparse, unpack.ErrCorrupt, nil},
		{"negative size", append(rawHeader("huge", tar.TypeReg, bytes.Repeat([]byte{0xff}, 12)), end...), unpack.ErrCorrupt, nil},
		{"many files", layerTar(t, many...), nil, nil},
		{"not UTF-8", layerTar(t, entry{name: "a\xff\xfe", text: "x"}, entry{name: "b\x01", text: "y"}), nil, []string{"a\xff\xfe=x", "b\x01=y"}},
		{"long name", layerTar(t, entry{name: strings.Repeat("x", 256)}), unpack.ErrCorrupt, nil},
		{"long path", layerTar(t, entry{name: strings.Repeat("x/", 3000) + "f"}), unpack.ErrCorrupt, nil},
		{"deep path", layerTar(t, entry{name: strings.Repeat("x/", 1000) + "f"}), nil, nil},
		{"link to nothing", layerTar(t, entry{name: "l", kind: tar.TypeLink, link: "nothing"}), unpack.ErrCorrupt, nil},
		{"link to a folder", layerTar(t, entry{name: "d/"}, entry{name: "l", kind: tar.TypeLink, link: "d"}), unpack.ErrCorrupt, nil},
		{"link to outside", layerTar(t, entry{name: "l", kind: tar.TypeLink, link: "../../../../etc/passwd"}), unpack.ErrCorrupt, nil},
		{"empty symlink", layerTar(t, entry{name: "l", kind: tar.TypeSymlink}), unpack.ErrCorrupt, nil},
		{"links in a circle", layerTar(t, entry{name: "a", kind: tar.TypeSymlink, link: "b"}, entry{name: "b", kind: tar.TypeSymlink, link: "a"}, entry{name: "a/f"}), unpack.ErrCorrupt, nil},
		{"below a file", layerTar(t, entry{name: "f"}, entry{name: "f/g"}), unpack.ErrCorrupt, nil},
		{"below a device", layerTar(t, entry{name: "f", kind: tar.TypeFifo}, entry{name: "f/g"}), unpack.ErrCorrupt, nil},
		{"into a device by a link", layerTar(t, entry{name: "l", kind: tar.TypeSymlink, link: "/dev/null"}, entry{name: "l", text: "x"}), nil, []string{"l=x"}},
		{"below a whiteout's mark", layerTar(t, entry{name: ".wh.d/f"}), unpack.ErrCorrupt, nil},
		{"owner out of range", header(tar.Header{Typeflag: tar.TypeReg, Name: "f", Uid: 1<<32 - 1, Format: tar.FormatGNU}), unpack.ErrCorrupt, nil},
		{"device out of range", header(tar.Header{Typeflag: tar.TypeChar, Name: "f", Devmajor: 1 << 12}), unpack.ErrCorrupt, nil},
		{"unknown type", append(rawHeader("f", 'Q', []byte("00000000000\x00")), end...), unpack.ErrCorrupt, nil},
		{"twice", layerTar(t, entry{name: "f", text: "1"}, entry{name: "f", text: "2"}, entry{name: "d/"}, entry{name: "d/x"}, entry{name: "d", text: "file"},
			entry{name: "g", text: "g"}, entry{name: "g/"}, entry{name: "g/y", text: "y"}), nil, []string{"d=file", "f=2", "g/", "g/y=y"}},
		{"the folder itself", layerTar(t, entry{name: "./"}, entry{name: "/"}, entry{name: "../"}, entry{name: "f"}), nil, []string{"f="}},
		{"times beyond the file system's", header(tar.Header{Typeflag: tar.TypeReg, Name: "f", ModTime: time.Unix(1<<50, 0), Format: tar.FormatPAX}), nil, []string{"f="}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			began := time.Now()
			_, err := extract(t.Context(), dir, bytes.NewReader(c.layer), nil, digest.FromBytes(c.layer))
			if !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %s", took)
			}
			if c.files != nil {
				if d := cmp.Diff(c.files, list(t, dir)); d != "" {
					t.Error(d)
				}
			}
		})
	}
}

func fixChecksum(header []byte) {
	copy(header[148:], "        ")
	sum := 0
	for _, c := range header[:512] {
		sum += int(c)
	}
	copy(header[148:], fmt.Sprintf("%06o\x00 ", sum))
}

// A file of zeros takes no room, wherever the zeros stand; what is read is what was packed.
func TestHoles(t *testing.T) {
	requireRoot(t)
	text := strings.Repeat("\x00", 64<<20) + "middle" + strings.Repeat("\x00", 64<<20)
	l := layerTar(t, entry{name: "holes", text: text}, entry{name: "end", text: text + "."}, entry{name: "zeros", text: strings.Repeat("\x00", 5000)})
	dir := t.TempDir()
	u, err := extract(t.Context(), dir, bytes.NewReader(gzipped0(t, l)), nil, digest.FromBytes(l))
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "holes"), &st); err != nil || st.Size != int64(len(text)) || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes take %d: %v", st.Size, st.Blocks*512, err)
	}
	if u.Bytes > 2<<20 {
		t.Errorf("it is said to take %d bytes", u.Bytes)
	}
	for name, want := range map[string]string{"holes": text, "end": text + ".", "zeros": strings.Repeat("\x00", 5000)} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// Folders that a layer passes through are as they are below, also through links and with attributes; those it describes are as it says.
func TestInherit(t *testing.T) {
	requireRoot(t)
	dirs := apply(t,
		layerTar(t, entry{name: "a/", mode: 0o700, uid: 7, xattr: map[string]string{"user.x": "y"}}, entry{name: "a/b/", mode: 0o1777}, entry{name: "usr/", mode: 0o711}, entry{name: "usr/lib/", mode: 0o750}, entry{name: "d/", mode: 0o700}),
		layerTar(t, entry{name: "lib", kind: tar.TypeSymlink, link: "/usr/lib"}, entry{name: "lib/x"}, entry{name: "a/b/c/f"}, entry{name: "d/f"}, entry{name: "d/", mode: 0o770}, entry{name: ".wh.e"}, entry{name: "e/f"}))
	for name, want := range map[string]string{"a": "700 7", "a/b": "1777 0", "a/b/c": "755 0", "usr": "711 0", "usr/lib": "750 0", "d": "770 0", "e": "755 0"} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dirs[0], name), &st); err != nil || fmt.Sprintf("%o %d", st.Mode&0o7777, st.Uid) != want {
			t.Errorf("%s: %o %d %v, want %s", name, st.Mode&0o7777, st.Uid, err, want)
		}
	}
	b := make([]byte, 10)
	if n, err := unix.Getxattr(filepath.Join(dirs[0], "a"), "user.x", b); err != nil || string(b[:n]) != "y" {
		t.Errorf("attribute of a: %v", err)
	}
	if n, err := unix.Getxattr(filepath.Join(dirs[0], "e"), "trusted.overlay.opaque", b); err != nil || string(b[:n]) != "y" {
		t.Errorf("a folder that was deleted and made anew is not opaque: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dirs[0], "usr", "lib", "x")); err != nil {
		t.Error(err)
	}
}

// Manifests, indexes and configs that make no sense.
func TestHostileDocuments(t *testing.T) {
	requireRoot(t)
	for _, c := range []struct {
		name string
		bend func(f *fixture)
		want error
		text string
	}{
		{"indexes in indexes in indexes", func(f *fixture) {
			for range maxIndexDepth + 1 {
				f.desc = f.object(t, ocispec.MediaTypeImageIndex, indexOf(f.desc))
			}
		}, ErrCorrupt, "nested"},
		{"as deep as may be", func(f *fixture) {
			for range maxIndexDepth - 1 {
				f.desc = f.object(t, ocispec.MediaTypeImageIndex, indexOf(f.desc))
			}
		}, nil, ""},
		{"index of nothing", func(f *fixture) { f.desc = f.object(t, ocispec.MediaTypeImageIndex, indexOf()) }, ErrPlatform, "nothing for linux/"},
		{"index of other platforms", func(f *fixture) {
			f.desc.Platform = &ocispec.Platform{OS: "plan9", Architecture: "mips"}
			f.desc = f.object(t, ocispec.MediaTypeImageIndex, indexOf(f.desc))
		}, ErrPlatform, "nothing for linux/"},
		{"index with a negative size", func(f *fixture) {
			f.desc.Size = -1
			f.desc = f.object(t, ocispec.MediaTypeImageIndex, indexOf(f.desc))
		}, ErrCorrupt, "size -1"},
		{"index with a strange digest", func(f *fixture) {
			f.desc.Digest = "md5:00"
			f.desc = f.object(t, ocispec.MediaTypeImageIndex, indexOf(f.desc))
		}, ErrCorrupt, "md5"},
		{"index with a path for a digest", func(f *fixture) {
			f.desc.Digest = "sha256:../../../../etc/passwd"
			f.desc = f.object(t, ocispec.MediaTypeImageIndex, indexOf(f.desc))
		}, ErrCorrupt, "etc/passwd"},
		{"layer with a negative size", func(f *fixture) { f.manifest.Layers[0].Size = -5; f.seal(t) }, ErrCorrupt, "size -5"},
		{"config with a negative size", func(f *fixture) {
			f.manifest.Config.Size = -5
			f.desc = f.object(t, f.manifest.MediaType, f.manifest)
		}, ErrCorrupt, "size -5"},
		{"too many layers", func(f *fixture) {
			for len(f.manifest.Layers) <= maxLayers {
				f.manifest.Layers = append(f.manifest.Layers, f.manifest.Layers[0])
			}
			f.seal(t)
		}, ErrInvalid, "layers"},
		{"fewer layers than the config has", func(f *fixture) { f.manifest.Layers = f.manifest.Layers[:1]; f.seal(t) }, ErrCorrupt, "config has 2 layers, manifest 1"},
		{"strange diffID", func(f *fixture) { f.config.RootFS.DiffIDs[0] = "x"; f.seal(t) }, ErrCorrupt, "diffID"},
		{"config that is a list", func(f *fixture) {
			f.manifest.Config = f.blob(ocispec.MediaTypeImageConfig, []byte("[]"))
			f.desc = f.object(t, f.manifest.MediaType, f.manifest)
		}, ErrCorrupt, "config"},
		{"config of many megabytes", func(f *fixture) {
			f.config.Author = strings.Repeat("a", maxConfig)
			f.seal(t)
		}, ErrCorrupt, "bytes long, more than"},
		{"manifest of many megabytes", func(f *fixture) {
			f.manifest.Annotations = map[string]string{"a": strings.Repeat("a", maxManifest)}
			f.seal(t)
		}, ErrCorrupt, "bytes"},
		{"wrong media type of the config", func(f *fixture) {
			f.manifest.Config.MediaType = "text/plain"
			f.desc = f.object(t, f.manifest.MediaType, f.manifest)
		}, ErrInvalid, "text/plain"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := small(t, "x")
			c.bend(f)
			for _, from := range []string{"archive", "registry"} {
				s := open(t, Config{Dir: t.TempDir()})
				var err error
				if from == "archive" {
					_, err = s.Import(context.Background(), bytes.NewReader(f.archive(t, "docker.io/library/x:1")), nil)
				} else {
					w := newWeb(t, nil)
					w.hook = f.serve
					s = w.store(t)
					_, err = s.Pull(t.Context(), "x:1", PullOptions{})
				}
				if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.text) {
					t.Errorf("from the %s: error %v, want %v with %q", from, err, c.want, c.text)
				}
				if c.want != nil && len(s.current.Load().Images) > 0 {
					t.Error("it became an image")
				}
				if errors.Is(err, syscall.ENOENT) {
					t.Errorf("a path was taken from it: %v", err)
				}
			}
		})
	}
}

func indexOf(d ...ocispec.Descriptor) ocispec.Index {
	i := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: d}
	i.SchemaVersion = 2
	return i
}
