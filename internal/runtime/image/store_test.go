package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var noConfig ocispec.ImageConfig

func small(t testing.TB, text string) *fixture {
	return newImage(t, noConfig, layerTar(t, entry{name: "base", text: "base"}), layerTar(t, entry{name: "own", text: text}))
}

func load(t testing.TB, s *Store, archive []byte) []string {
	t.Helper()
	names, err := s.Import(context.Background(), bytes.NewReader(archive), nil)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// consistent checks that the store holds exactly what its state names, and that all of it is whole.
func consistent(t testing.TB, s *Store) { t.Helper(); whole(t, s, false) }

// whole is consistent, but may let downloads wait to be gone on with.
func whole(t testing.TB, s *Store, downloads bool) {
	t.Helper()
	s.pulls.runs.Wait()
	s.background.Wait()
	st := s.current.Load()
	for _, r := range st.Images {
		for _, b := range r.needs() {
			data, err := os.ReadFile(s.blobPath(b))
			if d := digest.Digest(b); err != nil || d.Algorithm().FromBytes(data) != d {
				t.Errorf("blob %s of %s: %v", b, r.ID, err)
			}
		}
		if _, err := s.Resolve(context.Background(), r.ID); err != nil {
			t.Error(err)
		}
	}
	var want, got []string
	for b := range st.Blobs {
		want = append(want, strings.TrimPrefix(s.blobPath(b), s.dir+"/"))
	}
	for _, l := range st.Layers {
		want = append(want, "layers/"+l.Dir)
	}
	for _, pattern := range []string{"tmp/*", "partial/*", "trash/*", "layers/*", "blobs/*/*", ".state*"} {
		files, _ := filepath.Glob(s.path(pattern))
		for _, f := range files {
			if downloads && filepath.Base(filepath.Dir(f)) == "partial" {
				continue
			}
			got = append(got, strings.TrimPrefix(f, s.dir+"/"))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the folder holds (+) and should hold (-):\n%s", d)
	}
}

func TestImportForms(t *testing.T) {
	requireRoot(t)
	f := small(t, "x")
	oci := f.archive(t, "docker.io/library/x:1", "example.com/y:2")
	cfg, _ := json.Marshal(f.config)
	docker := layerTar(t,
		entry{name: "abc/layer.tar", text: string(layerTar(t, entry{name: "base", text: "base"}))},
		entry{name: "def/layer.tar", text: string(layerTar(t, entry{name: "own", text: "x"}))},
		entry{name: "ghi/layer.tar", kind: '2', link: "../abc/layer.tar"},
		entry{name: "cfg.json", text: string(cfg)},
		entry{name: "manifest.json", text: `[{"Config":"cfg.json","RepoTags":["x:1","example.com/y:2"],"Layers":["ghi/layer.tar","def/layer.tar"]}]`})
	id := f.manifest.Config.Digest.String()
	both := []string{"docker.io/library/x:1", "example.com/y:2"}
	for _, c := range []struct {
		name    string
		archive []byte
		want    []string
		digests int
	}{
		{"oci", oci, both, 2},
		{"oci in gzip", gzipped0(t, oci), both, 2},
		{"oci in zstd", zstded(t, oci), both, 2},
		{"oci without names", f.archive(t), []string{id}, 0},
		{"docker", docker, both, 0},
		{"docker in gzip", gzipped0(t, docker), both, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, Config{Dir: t.TempDir()})
			if d := cmp.Diff(c.want, load(t, s, c.archive)); d != "" {
				t.Error(d)
			}
			img, err := s.Resolve(context.Background(), id)
			if err != nil {
				t.Fatal(err)
			}
			if len(img.RepoDigests) != c.digests {
				t.Errorf("digests %v", img.RepoDigests)
			}
			if d := cmp.Diff([]string{"base=base", "own=x"}, list(t, mountOverlay(t, img.Layers))); d != "" {
				t.Error(d)
			}
			consistent(t, s)
		})
	}
}

func TestImportBad(t *testing.T) {
	requireRoot(t)
	f := small(t, "x")
	other := small(t, "x")
	other.config.Architecture = "sparc"
	other.seal(t)
	lacking := small(t, "x")
	delete(lacking.blobs, lacking.manifest.Layers[1].Digest)
	artifact := small(t, "x")
	artifact.manifest.Config.MediaType = "application/vnd.cncf.helm.config.v1+json"
	artifact.desc = artifact.object(t, artifact.manifest.MediaType, artifact.manifest)
	oci := f.archive(t, "x:1")
	for _, c := range []struct {
		name    string
		archive []byte
		want    error
	}{
		{"nothing", nil, ErrInvalid},
		{"text", []byte(strings.Repeat("hello", 1000)), ErrCorrupt},
		{"cut short", oci[:len(oci)/2|256], ErrCorrupt},
		{"no index", layerTar(t, entry{name: "a", text: "a"}), ErrInvalid},
		{"bad index", layerTar(t, entry{name: "index.json", text: "{"}), ErrCorrupt},
		{"empty index", layerTar(t, entry{name: "index.json", text: "{}"}), ErrInvalid},
		{"lying blob", layerTar(t, entry{name: "blobs/sha256/" + f.desc.Digest.Encoded(), text: "x"}), ErrCorrupt},
		{"odd blob name", layerTar(t, entry{name: "blobs/sha256/../../../x", text: "x"}, entry{name: "blobs/md5/00", text: "x"}), ErrCorrupt},
		{"other platform", other.archive(t, "x:1"), ErrPlatform},
		{"missing layer", lacking.archive(t, "x:1"), ErrNotFound},
		{"not an image", artifact.archive(t, "x:1"), ErrInvalid},
		{"bad name", f.archive(t, "docker.io/UPPER:1"), ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, Config{Dir: t.TempDir()})
			if _, err := s.Import(context.Background(), bytes.NewReader(c.archive), nil); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			consistent(t, s)
		})
	}
}

func TestRemove(t *testing.T) {
	requireRoot(t)
	ctx := context.Background()
	used := map[string]bool{}
	s := open(t, Config{Dir: t.TempDir(), InUse: func(id string) bool { return used[id] }, Pinned: []string{"b"}})
	a, b := small(t, "a"), small(t, "b")
	load(t, s, a.archive(t, "a:1", "a:2"))
	load(t, s, b.archive(t, "b:latest"))
	rm := func(ref string) {
		t.Helper()
		if err := s.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: ref}); err != nil {
			t.Fatal(err)
		}
		consistent(t, s)
	}
	names := func(id string) []string {
		img, err := s.Resolve(ctx, id)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		return append(append([]string{}, img.RepoTags...), img.RepoDigests...)
	}
	aid, bid := a.manifest.Config.Digest.String(), b.manifest.Config.Digest.String()
	rm("not-there")
	rm("a:1")
	if d := cmp.Diff([]string{"docker.io/library/a:2", "docker.io/library/a@" + a.desc.Digest.String()}, names(aid)); d != "" {
		t.Error(d)
	}
	used[aid] = true
	rm("a:2")
	if d := cmp.Diff([]string{}, names(aid)); d != "" {
		t.Errorf("an image in use lost more than its names: %s", d)
	}
	rm(aid)
	used[aid] = false
	_, release, err := s.Hold(ctx, aid)
	if err != nil {
		t.Fatal(err)
	}
	rm(aid)
	if names(aid) == nil {
		t.Error("an image that is held went away")
	}
	release()
	rm(aid)
	if names(aid) != nil {
		t.Error("the image is still there")
	}
	imgs, err := s.ListImages(ctx, nil)
	if err != nil || len(imgs) != 1 || imgs[0].Id != bid || !imgs[0].Pinned {
		t.Errorf("images %v %v", imgs, err)
	}
	if imgs, _ := s.ListImages(ctx, &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{Image: "a"}}); len(imgs) != 0 {
		t.Errorf("filtered: %v", imgs)
	}
	rm(bid)
	info, err := s.ImageFsInfo(ctx)
	if err != nil || info.ImageFilesystems[0].UsedBytes.Value != 0 || info.ImageFilesystems[0].FsId.Mountpoint != s.dir {
		t.Errorf("file system info %v %v", info, err)
	}
}

// A tag that moves leaves the old image with its digest.
func TestRetag(t *testing.T) {
	requireRoot(t)
	s := open(t, Config{Dir: t.TempDir()})
	a, b := small(t, "a"), small(t, "b")
	load(t, s, a.archive(t, "x:1"))
	load(t, s, b.archive(t, "x:1"))
	load(t, s, b.archive(t, "x:1"))
	img, err := s.Resolve(context.Background(), "x:1")
	if err != nil || img.ID != b.manifest.Config.Digest.String() {
		t.Errorf("%v %v", img, err)
	}
	old, err := s.Resolve(context.Background(), "x@"+a.desc.Digest.String())
	if err != nil || len(old.RepoTags) != 0 || len(old.RepoDigests) != 1 {
		t.Errorf("%v %v", old, err)
	}
	consistent(t, s)
}

func TestExport(t *testing.T) {
	requireRoot(t)
	ctx := context.Background()
	s := open(t, Config{Dir: t.TempDir()})
	a, b := small(t, "a"), small(t, "b")
	load(t, s, a.archive(t, "a:1", "a:2"))
	load(t, s, b.archive(t, "b:latest"))
	var buf bytes.Buffer
	if err := s.Export(ctx, &buf, a.manifest.Config.Digest.String(), "b"); err != nil {
		t.Fatal(err)
	}
	s2 := open(t, Config{Dir: t.TempDir()})
	if d := cmp.Diff([]string{"docker.io/library/a:1", "docker.io/library/a:2", "docker.io/library/b:latest"}, load(t, s2, buf.Bytes())); d != "" {
		t.Error(d)
	}
	for _, ref := range []string{"a:1", "a:2", "b"} {
		x, err1 := s.Resolve(ctx, ref)
		y, err2 := s2.Resolve(ctx, ref)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(x.ID, y.ID) + cmp.Diff(x.RepoDigests, y.RepoDigests); d != "" {
			t.Error(d)
		}
	}
	if err := s.Export(ctx, &buf, "nope"); !errors.Is(err, ErrNotFound) {
		t.Errorf("error %v", err)
	}
}

func TestOpen(t *testing.T) {
	requireRoot(t)
	ctx := context.Background()
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	load(t, s, small(t, "a").archive(t, "a:1"))
	if _, err := Open(ctx, Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("opened twice: %v", err)
	}
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	// What a crash may leave.
	for _, p := range []string{"layers/999/x", "layers/junk", "tmp/layer-1/y", "blobs/sha256/" + strings.Repeat("0", 64) + "/z"} {
		if err := os.MkdirAll(filepath.Join(dir, p), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, ".state.json.tmp-1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, Config{Dir: dir})
	consistent(t, s)
	if _, err := s.Resolve(ctx, "a:1"); err != nil {
		t.Error(err)
	}
	s.Close(ctx)
	for _, text := range []string{"{", `{"version":99}`, `{"version":1,"images":{"sha256:x":{"chains":["c"]}}}`} {
		if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(ctx, Config{Dir: dir}); err == nil {
			t.Errorf("opened with state %s", text)
		}
	}
	if layers, _ := filepath.Glob(filepath.Join(dir, "layers", "*")); len(layers) != 2 {
		t.Errorf("a store that cannot be read lost its layers: %v", layers)
	}
	if _, err := Open(ctx, Config{Dir: "relative"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("error %v", err)
	}
}

// TestKilled imports and removes images in another process, which is killed again and again; each time the store opens whole.
func TestKilled(t *testing.T) {
	requireRoot(t)
	archive := filepath.Join(os.Getenv("CAROB_TEST_DIR"), "archive")
	if dir := os.Getenv("CAROB_TEST_DIR"); dir != "" {
		child(t, dir, archive)
		return
	}
	top := t.TempDir()
	archive = filepath.Join(top, "archive")
	var entries []entry
	for i := range 300 {
		entries = append(entries, entry{name: fmt.Sprint("f", i), text: strings.Repeat("x", 3000)})
	}
	f := newImage(t, noConfig, layerTar(t, entries...), layerTar(t, entries[:100]...), layerTar(t, entries[100:]...))
	if err := os.WriteFile(archive, f.archive(t, "x:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	for i := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "CAROB_TEST_DIR="+top)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+17*i) * time.Millisecond)
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		s, err := Open(context.Background(), Config{Dir: filepath.Join(top, "store")})
		if err != nil {
			t.Fatal(err)
		}
		consistent(t, s)
		s.Close(context.Background())
	}
}

func child(t *testing.T, dir, archive string) {
	s := open(t, Config{Dir: filepath.Join(dir, "store")})
	data, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	for {
		load(t, s, data)
		if err := s.RemoveImage(context.Background(), &runtimeapi.ImageSpec{Image: "x:1"}); err != nil {
			t.Fatal(err)
		}
	}
}

// On a full disk the error says so, nothing stays behind, and what was there works on.
func TestDiskFull(t *testing.T) {
	requireRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s := open(t, Config{Dir: dir + "/store"})
	load(t, s, small(t, "a").archive(t, "a:1"))
	var entries []entry
	for i := range 40 {
		entries = append(entries, entry{name: fmt.Sprint("f", i), text: strings.Repeat("x", 50_000)})
	}
	big := newImage(t, noConfig, layerTar(t, entry{name: "base", text: "base"}), layerTar(t, entries...))
	_, err := s.Import(context.Background(), bytes.NewReader(big.archive(t, "big:1")), nil)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "DiskFull: no space left for images") {
		t.Errorf("error %v", err)
	}
	consistent(t, s)
	// Nor does a download stay that there is no room for.
	w := newWeb(t, nil)
	w.add(t, big, "docker.io/library/big:1")
	s.cfg.RegistryConfigDir = w.store(t).cfg.RegistryConfigDir
	if _, err := s.Pull(context.Background(), "big:1", PullOptions{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v", err)
	}
	consistent(t, s)
	if _, err := s.Resolve(context.Background(), "a:1"); err != nil {
		t.Error(err)
	}
	s.Close(context.Background())
}

// 127 layers, the most there may be, fit into a mount's options when it is made from their parent folder.
func TestDeepImage(t *testing.T) {
	requireRoot(t)
	var layers [][]byte
	for i := range 127 {
		layers = append(layers, layerTar(t, entry{name: fmt.Sprint("f", i), text: "x"}))
	}
	s := open(t, Config{Dir: t.TempDir()})
	load(t, s, newImage(t, noConfig, layers...).archive(t, "deep:1"))
	load(t, s, newImage(t, noConfig).archive(t, "scratch:1"))
	img, err := s.Resolve(t.Context(), "deep:1")
	if err != nil {
		t.Fatal(err)
	}
	options := 0
	for _, l := range img.Layers {
		options += len(filepath.Base(l)) + 1
	}
	if len(img.Layers) != 127 || options > 2048 {
		t.Errorf("%d layers, %d bytes of options", len(img.Layers), options)
	}
	if img, err := s.Resolve(t.Context(), "scratch:1"); err != nil || len(img.Layers) != 1 {
		t.Errorf("image without layers: %v %v", img, err)
	}
	consistent(t, s)
}

// What is told to be an image's own is what the store shrinks by when it goes.
func TestUnique(t *testing.T) {
	requireRoot(t)
	s := open(t, Config{Dir: t.TempDir()})
	load(t, s, small(t, "a").archive(t, "a:1"))
	load(t, s, small(t, strings.Repeat("b", 10_000)).archive(t, "b:1"))
	load(t, s, newImage(t, noConfig).archive(t, "scratch:1"))
	for _, name := range []string{"b:1", "a:1", "scratch:1"} {
		images, err := s.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		before, _ := s.current.Load().usage()
		for _, img := range images {
			if img.RepoTags[0] != "docker.io/library/"+name {
				continue
			}
			removeNamed(name)(t, s, "")
			if after, _ := s.current.Load().usage(); before-after != img.Unique || img.Unique > img.Size {
				t.Errorf("%s of %d bytes has %d of its own, and frees %d", name, img.Size, img.Unique, before-after)
			}
		}
	}
	if left, _ := s.current.Load().usage(); left != 0 {
		t.Errorf("%d bytes are left", left)
	}
}
