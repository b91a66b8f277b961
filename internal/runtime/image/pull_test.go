package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/test/registry/serve"
)

// web stands in for a registry and can be told to misbehave: hook may answer a request itself.
type web struct {
	*httptest.Server
	registry *serve.Registry
	hook     func(w http.ResponseWriter, r *http.Request) (handled bool)
	requests atomic.Int64
}

func newWeb(t *testing.T, private map[string]serve.Login) *web {
	t.Helper()
	reg, err := serve.Start("127.0.0.1:0", private)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reg.Stop(context.Background()) })
	w := &web{registry: reg}
	w.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.requests.Add(1)
		if w.hook == nil || !w.hook(rw, r) {
			reg.ServeHTTP(rw, r)
		}
	}))
	t.Cleanup(w.Server.Close)
	return w
}

func (w *web) add(t *testing.T, f *fixture, names ...string) {
	t.Helper()
	if err := w.registry.Add(bytes.NewReader(f.archive(t, names...))); err != nil {
		t.Fatal(err)
	}
}

// store is a store that finds docker.io at w.
func (w *web) store(t *testing.T) *Store {
	t.Helper()
	requireRoot(t)
	hosts := t.TempDir()
	w.hosts(t, hosts, "docker.io", fmt.Sprintf("server = %q\n", w.URL))
	return open(t, Config{Dir: t.TempDir(), RegistryConfigDir: hosts, RetryDelay: time.Millisecond, StallTimeout: 5 * time.Second})
}

func (w *web) hosts(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name, "hosts.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func simple(t *testing.T) *fixture {
	return newImage(t, ocispec.ImageConfig{User: "33:33", Cmd: []string{"a"}},
		layerTar(t, entry{name: "etc/", mode: 0o711, uid: 5}, entry{name: "etc/a", text: "a"}),
		layerTar(t, entry{name: "etc/b", text: strings.Repeat("b", 100_000)}),
		layerTar(t, entry{name: "c", text: "c"}))
}

func TestPull(t *testing.T) {
	w := newWeb(t, nil)
	f := simple(t)
	w.add(t, f, "docker.io/library/app:latest")
	s := w.store(t)
	ctx := context.Background()
	var last Progress
	var mu sync.Mutex
	img, err := s.Pull(ctx, "app", PullOptions{Progress: func(p Progress) { mu.Lock(); last = p; mu.Unlock() }})
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if last.Unpacked != 3 || last.Layers != 3 || last.Ref != "docker.io/library/app:latest" {
		t.Errorf("last progress %+v", last)
	}
	id := f.manifest.Config.Digest.String()
	if img.ID != id {
		t.Errorf("ID %s, want %s", img.ID, id)
	}
	byDigest := "docker.io/library/app@" + f.desc.Digest.String()
	if d := cmp.Diff([]string{"docker.io/library/app:latest"}, img.RepoTags) + cmp.Diff([]string{byDigest}, img.RepoDigests); d != "" {
		t.Error(d)
	}
	root := mountOverlay(t, img.Layers)
	for name, want := range map[string]string{"etc/a": "a", "etc/b": strings.Repeat("b", 100_000), "c": "c"} {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The second layer passes through etc without an entry for it: it keeps what it was.
	if fi, err := os.Stat(filepath.Join(root, "etc")); err != nil || fi.Mode().Perm() != 0o711 {
		t.Errorf("etc: %v %v", fi.Mode(), err)
	}

	w.Server.Close() // from here on offline
	for _, ref := range []string{id, id[7:], id[7:20], "app", "app:latest", "library/app", "docker.io/app", byDigest, "app:latest@" + f.desc.Digest.String(), "index.docker.io/library/app"} {
		r, err := s.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: ref}, true)
		if err != nil || r.GetImage().GetId() != id || !strings.Contains(r.Info["info"], "chainID") {
			t.Errorf("status of %q: %v %v", ref, r, err)
		} else if r.Image.GetUid().GetValue() != 33 || r.Image.Username != "" || r.Image.Size < 100_000 {
			t.Errorf("status of %q: %v", ref, r)
		}
	}
	for _, ref := range []string{"other", "app:1", id[7:12], "app@" + id} {
		if r, err := s.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: ref}, false); err != nil || r.Image != nil {
			t.Errorf("status of %q: %v %v", ref, r, err)
		}
	}
}

func TestPullErrors(t *testing.T) {
	w := newWeb(t, map[string]serve.Login{"secret": {User: "u", Password: "p"}})
	f := simple(t)
	w.add(t, f, "docker.io/library/secret:1", "docker.io/library/open:1")
	s := w.store(t)
	b64 := base64.StdEncoding.EncodeToString([]byte("u:p"))
	for _, c := range []struct {
		name, ref string
		auth      *runtimeapi.AuthConfig
		want      error
		text      string
	}{
		{name: "missing", ref: "nope", want: ErrNotFound, text: `failed to pull image "docker.io/library/nope:latest": not found`},
		{name: "missing tag", ref: "open:2", want: ErrNotFound},
		{name: "no login", ref: "secret:1", want: ErrUnauthorized, text: "pull access denied, repository does not exist or may require authorization"},
		{name: "wrong login", ref: "secret:1", auth: &runtimeapi.AuthConfig{Username: "u", Password: "x"}, want: ErrUnauthorized},
		{name: "login of another server", ref: "secret:1", auth: &runtimeapi.AuthConfig{Auth: b64, ServerAddress: "quay.io"}, want: ErrUnauthorized},
		{name: "broken login", ref: "secret:1", auth: &runtimeapi.AuthConfig{Auth: "%%"}, want: ErrInvalid},
		{name: "login", ref: "secret:1", auth: &runtimeapi.AuthConfig{Username: "u", Password: "p"}},
		{name: "login as in docker's file", ref: "secret:1", auth: &runtimeapi.AuthConfig{Auth: b64, ServerAddress: "https://index.docker.io/v1/"}},
		{name: "open one beside it", ref: "open:1"},
		{name: "no reference", ref: "UPPER", want: ErrInvalid},
		{name: "empty", ref: "", want: ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			_, err := s.PullImage(ctx, &runtimeapi.ImageSpec{Image: c.ref}, c.auth, nil)
			if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	if _, err := s.Pull(context.Background(), dead+"/x/y", PullOptions{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("nobody listening: %v", err)
	}
}

// A registry that breaks off, lies or is overloaded.
func TestPullFromBadRegistry(t *testing.T) {
	f := simple(t)
	big := f.manifest.Layers[1]
	isBlob := func(r *http.Request, d digest.Digest) bool {
		return strings.HasSuffix(r.URL.Path, "/blobs/"+d.String())
	}
	first := func() func() bool { var n atomic.Int64; return func() bool { return n.Add(1) == 1 } }
	for _, c := range []struct {
		name string
		hook func(once func() bool) func(http.ResponseWriter, *http.Request) bool
		want error
	}{
		{"breaks off once, goes on from there", func(once func() bool) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if !isBlob(r, big.Digest) || !once() {
					return false
				}
				w.Header().Set("Content-Length", fmt.Sprint(big.Size))
				_, _ = w.Write(f.blobs[big.Digest][:100])
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
		}, nil},
		{"always breaks off", func(func() bool) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if !isBlob(r, big.Digest) {
					return false
				}
				w.Header().Set("Content-Length", fmt.Sprint(big.Size))
				_, _ = w.Write(f.blobs[big.Digest][:100])
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
		}, ErrUnavailable},
		{"other bytes", func(func() bool) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if !isBlob(r, big.Digest) {
					return false
				}
				_, _ = w.Write(bytes.Repeat([]byte{1}, int(big.Size)))
				return true
			}
		}, ErrCorrupt},
		{"too short", func(func() bool) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if !isBlob(r, big.Digest) {
					return false
				}
				_, _ = w.Write(f.blobs[big.Digest][:10])
				return true
			}
		}, ErrCorrupt},
		{"too long, length not told", func(func() bool) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if !isBlob(r, big.Digest) {
					return false
				}
				_, _ = w.Write(f.blobs[big.Digest])
				w.(http.Flusher).Flush()
				_, _ = w.Write([]byte("more"))
				return true
			}
		}, ErrCorrupt},
		{"manifest's digest is another", func(func() bool) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/manifests/latest") {
					return false
				}
				w.Header().Set("Docker-Content-Digest", big.Digest.String())
				w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
				_, _ = w.Write(f.blobs[f.desc.Digest])
				return true
			}
		}, ErrCorrupt},
		{"overloaded at first", func(once func() bool) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/manifests/") || !once() {
					return false
				}
				w.WriteHeader(http.StatusTooManyRequests)
				return true
			}
		}, nil},
		{"always broken", func(func() bool) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true }
		}, ErrUnavailable},
		{"blob gone", func(func() bool) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if !isBlob(r, big.Digest) {
					return false
				}
				w.WriteHeader(http.StatusNotFound)
				return true
			}
		}, ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWeb(t, nil)
			w.Config.ErrorLog = nil
			w.add(t, f, "docker.io/library/app:latest")
			w.hook = c.hook(first())
			s := w.store(t)
			_, err := s.Pull(context.Background(), "app", PullOptions{})
			if !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if c.want != nil {
				if imgs, _ := s.List(context.Background()); len(imgs) != 0 {
					t.Errorf("images after failure: %v", imgs)
				}
			}
		})
	}
}

func TestPullWrongDiffID(t *testing.T) {
	w := newWeb(t, nil)
	f := simple(t)
	f.config.RootFS.DiffIDs[1] = digest.FromString("something else")
	f.seal(t)
	w.add(t, f, "docker.io/library/app:latest")
	s := w.store(t)
	if _, err := s.Pull(context.Background(), "app", PullOptions{}); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "the image's config says") {
		t.Errorf("error %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(s.dir, "tmp", "layer-*"))
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Mirrors are tried in the file's order; one that lacks the image, lies or is down does not stop the pull.
func TestMirrors(t *testing.T) {
	empty, lying, good := newWeb(t, nil), newWeb(t, nil), newWeb(t, nil)
	f := simple(t)
	lying.add(t, f, "docker.io/library/app:latest")
	lying.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		_, _ = w.Write([]byte("no"))
		return true
	}
	good.add(t, f, "docker.io/library/app:latest")
	var asked atomic.Value
	good.hook = func(w http.ResponseWriter, r *http.Request) bool {
		asked.Store(r.URL.Query().Get("ns") + " " + r.Header.Get("X-Who"))
		r.URL.Path = strings.Replace(r.URL.Path, "/mirror/v2/", "/v2/", 1)
		return false
	}
	hosts := t.TempDir()
	good.hosts(t, hosts, "_default", fmt.Sprintf("server = %q\n[host.%q]\n[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n[host.%q]\n[host.%q.header]\nx-who = \"me\"\n",
		good.URL, empty.URL, lying.URL, good.URL+"/mirror", good.URL+"/mirror"))
	requireRoot(t)
	s := open(t, Config{Dir: t.TempDir(), RegistryConfigDir: hosts, RetryDelay: time.Millisecond})
	img, err := s.Pull(context.Background(), "app", PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if img.ID != f.manifest.Config.Digest.String() || empty.requests.Load() == 0 || lying.requests.Load() == 0 {
		t.Errorf("image %s, requests %d, %d", img.ID, empty.requests.Load(), lying.requests.Load())
	}
	if got := asked.Load(); got != "docker.io me" {
		t.Errorf("the mirror was asked with %q", got)
	}
}

// Ten callers, one download; and content that is there is not fetched again.
func TestSharedPulls(t *testing.T) {
	w := newWeb(t, nil)
	f := simple(t)
	w.add(t, f, "docker.io/library/app:latest", "docker.io/library/app:2")
	var blobs atomic.Int64
	gate := make(chan struct{})
	w.hook = func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			<-gate
			blobs.Add(1)
		}
		return false
	}
	s := w.store(t)
	var wg sync.WaitGroup
	var begun atomic.Int64
	for range 10 {
		wg.Go(func() {
			begun.Add(1)
			if _, err := s.Pull(context.Background(), "app", PullOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	for begun.Load() < 10 {
		time.Sleep(time.Millisecond)
	}
	close(gate)
	wg.Wait()
	if _, err := s.Pull(context.Background(), "app:2", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := blobs.Load(); got != 4 {
		t.Errorf("%d blobs were downloaded, want config and three layers", got)
	}
	img, err := s.Resolve(context.Background(), "app")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"docker.io/library/app:2", "docker.io/library/app:latest"}, img.RepoTags); d != "" {
		t.Error(d)
	}
}

// A pull whose callers have all gone stops.
func TestPullCancelled(t *testing.T) {
	w := newWeb(t, nil)
	w.add(t, simple(t), "docker.io/library/app:latest")
	reached := make(chan struct{}, 10)
	w.hook = func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			reached <- struct{}{}
			<-r.Context().Done()
			return true
		}
		return false
	}
	s := w.store(t)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-reached; cancel() }()
	if _, err := s.Pull(ctx, "app", PullOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	s.pulls.runs.Wait()
}

// How long a registry wants to be left alone is heeded, up to a minute.
func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "Thu, 01 Jan 2026 00:00:30 GMT": 30 * time.Second, "soon": 0, "-3": -3 * time.Second} {
		if got := (&httpError{retryAt: value}).after(now); got != want {
			t.Errorf("%q: %s", value, got)
		}
	}
	w := newWeb(t, nil)
	w.add(t, simple(t), "docker.io/library/app:latest")
	var times []time.Time
	w.hook = func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		times = append(times, time.Now())
		if len(times) > 1 {
			return false
		}
		rw.Header().Set("Retry-After", "1")
		rw.WriteHeader(http.StatusTooManyRequests)
		return true
	}
	if _, err := w.store(t).Pull(t.Context(), "app", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if len(times) != 2 || times[1].Sub(times[0]) < 900*time.Millisecond {
		t.Errorf("asked at %v", times)
	}
}
