package image

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestCandidates(t *testing.T) {
	p := func(s ...string) *ocispec.Platform {
		return &ocispec.Platform{OS: s[0], Architecture: s[1], Variant: append(s, "", "")[2]}
	}
	index := []ocispec.Descriptor{
		{Platform: p("linux", "arm", "v6")}, {Platform: p("linux", "arm", "v7")}, {Platform: p("linux", "arm64", "v8")}, {Platform: p("linux", "amd64")},
		{Platform: p("linux", "amd64", "v3")}, {Platform: p("windows", "amd64")}, {Platform: p("unknown", "unknown")}, {},
		{MediaType: "application/vnd.other", Platform: p("linux", "amd64")},
	}
	for i := range index {
		index[i].Size = int64(i)
	}
	for _, c := range []struct {
		name string
		want *ocispec.Platform
		idx  []int64
	}{
		{"amd64", p("linux", "amd64"), []int64{3, 7}},
		{"amd64 v3", p("linux", "amd64", "v3"), []int64{4, 3, 7}},
		{"amd64 v2", p("linux", "amd64", "v2"), []int64{3, 7}},
		{"arm64", p("linux", "arm64"), []int64{2, 7}},
		{"arm v7", p("linux", "arm", "v7"), []int64{1, 0, 7}},
		{"arm v6", p("linux", "arm", "v6"), []int64{0, 7}},
		{"arm", p("linux", "arm"), []int64{1, 0, 7}},
		{"riscv64", p("linux", "riscv64"), []int64{7}},
	} {
		var got []int64
		for _, d := range candidates(index, *c.want) {
			got = append(got, d.Size)
		}
		if d := cmp.Diff(c.idx, got); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

func TestParseDocument(t *testing.T) {
	config := `"config":{"mediaType":"application/vnd.oci.image.config.v1+json"}`
	for _, c := range []struct {
		name, text, declared string
		want                 error
		kind                 string
	}{
		{"oci", `{"schemaVersion":2,` + config + `}`, "", nil, ocispec.MediaTypeImageManifest},
		{"oci index", `{"schemaVersion":2,"manifests":[]}`, "", nil, ocispec.MediaTypeImageIndex},
		{"docker", `{"schemaVersion":2,"mediaType":"` + dockerManifest + `","config":{"mediaType":"` + dockerConfig + `"},"layers":[{"mediaType":"` + dockerLayer + `diff.tar.gzip"}]}`, "", nil, dockerManifest},
		{"docker list by header", `{"schemaVersion":2,"manifests":[]}`, dockerIndex, nil, dockerIndex},
		{"old", `{"schemaVersion":1,"name":"x"}`, "", ErrInvalid, ""},
		{"no version", `{}`, "", ErrCorrupt, ""},
		{"text", `hello`, "", ErrCorrupt, ""},
		{"both", `{"schemaVersion":2,"manifests":[{}],` + config + `}`, ocispec.MediaTypeImageManifest, ErrCorrupt, ""},
		{"both, as index", `{"schemaVersion":2,"manifests":[{}],"layers":[{}]}`, "", ErrCorrupt, ""},
		{"artifact", `{"schemaVersion":2,"config":{"mediaType":"application/vnd.x"}}`, "", ErrInvalid, ""},
		{"encrypted", `{"schemaVersion":2,` + config + `,"layers":[{"mediaType":"` + ociLayer + `v1.tar+gzip+encrypted"}]}`, "", ErrInvalid, ""},
		{"odd layer", `{"schemaVersion":2,` + config + `,"layers":[{"mediaType":"text/plain"}]}`, "", ErrInvalid, ""},
	} {
		d, err := parseDocument([]byte(c.text), c.declared)
		if !errors.Is(err, c.want) || err == nil && d.MediaType != c.kind {
			t.Errorf("%s: %+v, %v", c.name, d, err)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:x"},"layers":[{"size":-1}]}`), []byte(`{"rootfs":{"diff_ids":["sha256:y"]}}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"platform":{"os":"linux","architecture":"arm","variant":""}}]}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, manifest, config []byte) {
		d, err := parseDocument(manifest, "")
		if err != nil {
			return
		}
		for _, want := range []ocispec.Platform{{OS: "linux", Architecture: "arm", Variant: "v7"}, {OS: "linux", Architecture: "amd64", Variant: "v2"}} {
			candidates(d.Manifests, want)
		}
		if cfg, err := parseConfig(config, d); err == nil && len(chainIDs(cfg.RootFS.DiffIDs)) != len(d.Layers) {
			t.Error("chain IDs and layers differ in number")
		}
	})
}

// An index on the registry leads to this platform's image; the index's digest is the one in RepoDigests.
func TestPullIndex(t *testing.T) {
	f := small(t, "mine")
	foreign := small(t, "foreign")
	foreign.config.Architecture = "sparc"
	foreign.seal(t)
	a := f.desc
	a.Platform = &ocispec.Platform{OS: "linux", Architecture: f.config.Architecture}
	b := foreign.desc
	b.Platform = &ocispec.Platform{OS: "linux", Architecture: "sparc"}
	for d, data := range foreign.blobs {
		f.blobs[d] = data
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{b, a}}
	index.SchemaVersion = 2
	f.desc = f.object(t, index.MediaType, index)
	w := newWeb(t, nil)
	w.add(t, f, "docker.io/library/x:1")
	archived := open(t, Config{Dir: t.TempDir()})
	load(t, archived, f.archive(t, "x:1"))
	pulled := w.store(t)
	if _, err := pulled.Pull(t.Context(), "x:1", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	w.Close() // found without the registry from here on
	byIndex := "docker.io/library/x@" + f.desc.Digest.String()
	for _, s := range []*Store{archived, pulled} {
		for _, ref := range []string{"x:1", byIndex, "x:1@" + f.desc.Digest.String(), "x:other@" + f.desc.Digest.String(), "x@" + a.Digest.String()} {
			img, err := s.Resolve(t.Context(), ref)
			if err != nil || img.ID != f.manifest.Config.Digest.String() {
				t.Errorf("%s: %v %v", ref, img, err)
				continue
			}
			if d := cmp.Diff([]string{byIndex}, img.RepoDigests); d != "" {
				t.Error(d)
			}
		}
		for _, ref := range []string{"x@" + b.Digest.String(), "y@" + a.Digest.String(), "y@" + f.desc.Digest.String()} {
			if img, err := s.Resolve(t.Context(), ref); err == nil {
				t.Errorf("%s: found %s", ref, img.ID)
			}
		}
		// What is removed by a digest is gone by all that its repository calls it.
		removeNamed("x@"+a.Digest.String())(t, s, "")
		if img, err := s.Resolve(t.Context(), byIndex); err == nil {
			t.Errorf("%s is still there", img.ID)
		}
		consistent(t, s)
	}
}

func TestHosts(t *testing.T) {
	type where struct {
		Host, Path           string
		Plain, Pull, Resolve bool
		Dial                 time.Duration
	}
	for _, c := range []struct {
		name, registry, text string
		want                 []where
		err                  string
	}{
		{"none of its own", "docker.io", "", []where{{Host: "registry-1.docker.io", Path: "/v2", Pull: true, Resolve: true}}, ""},
		{"loopback", "localhost:5000", "", []where{{Host: "localhost:5000", Path: "/v2", Plain: true, Pull: true, Resolve: true}}, ""},
		{"order", "docker.io", "server = \"https://s\"\n[host.\"http://z\"]\ncapabilities=[\"pull\"]\n[host.\"a:1/x\"]\ndial_timeout=\"2s\"\n[host.\"https://b/y/v2\"]\n[host.\"https://c/api\"]\noverride_path=true\n",
			[]where{
				{Host: "z", Path: "/v2", Plain: true, Pull: true}, {Host: "a:1", Path: "/x/v2", Pull: true, Resolve: true, Dial: 2 * time.Second},
				{Host: "b", Path: "/y/v2", Pull: true, Resolve: true}, {Host: "c", Path: "/api", Pull: true, Resolve: true}, {Host: "s", Path: "/v2", Pull: true, Resolve: true},
			}, ""},
		{"unknown key", "x.io", "sever = \"a\"", nil, "unknown key"},
		{"unknown capability", "x.io", "capabilities = [\"fly\"]", nil, "capability"},
		{"bad url", "x.io", "server = \"ftp://a\"", nil, "URL"},
		{"credentials in url", "x.io", "server = \"https://u:p@a\"", nil, "URL"},
		{"bad time", "x.io", "dial_timeout = \"fast\"", nil, "dial_timeout"},
		{"ca missing", "x.io", "ca = \"nope.pem\"", nil, "no such file"},
		{"header of the wrong kind", "x.io", "[header]\nx = 1", nil, "header"},
		{"not toml", "x.io", "[[", nil, "invalid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			eps, err := parseHosts([]byte(c.text), t.TempDir(), c.registry)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("error %v", err)
			}
			var got []where
			for _, e := range eps {
				got = append(got, where{e.host, e.path, e.plain, e.pull, e.resolve, e.dial})
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// A folder with certificates alone is Docker's way to say the same.
func TestDockerCerts(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []string
		ok    bool
		err   string
	}{
		{"none", nil, false, ""},
		{"others", []string{"README"}, false, ""},
		{"bad authority", []string{"a.crt"}, false, "no certificate in it"},
		{"certificate without key", []string{"a.cert"}, false, "no key beside it"},
		{"bad pair", []string{"a.cert", "a.key"}, false, "client"},
	} {
		dir := t.TempDir()
		for _, f := range c.files {
			if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, ok, err := dockerCerts(dir, "example.com")
		if err == nil && ok != c.ok || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v %v", c.name, ok, err)
		}
	}
}

// Docker's own media types, through a list of manifests, from a registry and into an archive and back.
func TestDockerImage(t *testing.T) {
	requireRoot(t)
	f := newImage(t, noConfig)
	for i, text := range []string{"base", "own"} {
		l := layerTar(t, entry{name: text, text: text})
		packed := [][]byte{gzipped0(t, l), zstded(t, l)}[i]
		f.config.RootFS.DiffIDs = append(f.config.RootFS.DiffIDs, digest.FromBytes(l))
		f.manifest.Layers = append(f.manifest.Layers, f.blob(dockerLayer+[]string{"diff.tar.gzip", "diff.tar.zstd"}[i], packed))
	}
	f.manifest.MediaType = dockerManifest
	f.manifest.Config = f.object(t, dockerConfig, f.config)
	f.desc = f.object(t, dockerManifest, f.manifest)
	f.desc.Platform = &ocispec.Platform{OS: "linux", Architecture: f.config.Architecture}
	index := indexOf(ocispec.Descriptor{MediaType: dockerManifest, Digest: digest.FromString("x"), Size: 1, Platform: &ocispec.Platform{OS: "windows", Architecture: f.config.Architecture}}, f.desc)
	index.MediaType = dockerIndex
	f.desc = f.object(t, dockerIndex, index)
	w := newWeb(t, nil)
	w.hook = f.serve
	s := w.store(t)
	img, err := s.Pull(t.Context(), "x:1", PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := s.Export(t.Context(), &archive, "x:1"); err != nil {
		t.Fatal(err)
	}
	other := open(t, Config{Dir: t.TempDir()})
	load(t, other, archive.Bytes())
	again, err := other.Resolve(t.Context(), "x:1")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []*Image{img, again} {
		if d := cmp.Diff([]string{"base=base", "own=own"}, list(t, mountOverlay(t, i.Layers))); d != "" || i.ID != f.manifest.Config.Digest.String() {
			t.Errorf("%s: %s", i.ID, d)
		}
	}
}
