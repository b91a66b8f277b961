package image

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	testclock "k8s.io/utils/clock/testing"
)

// half serves the first half of a blob and breaks off.
func half(w http.ResponseWriter, data []byte) {
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	_, _ = w.Write(data[:len(data)/2])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// A download that ended with its process is gone on with by the next one, and begun anew if what there is turns out to be spoiled.
func TestPullGoesOnAfterRestart(t *testing.T) {
	f := simple(t)
	big := f.manifest.Layers[1].Digest
	for _, c := range []struct {
		name   string
		spoil  func(t *testing.T, path string)
		ranges []string
	}{
		{"as it was", func(*testing.T, string) {}, []string{fmt.Sprintf("bytes=%d-%d", len(f.blobs[big])/2, len(f.blobs[big])-1)}},
		{"spoiled", func(t *testing.T, path string) {
			if err := os.WriteFile(path, make([]byte, 50), 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{fmt.Sprintf("bytes=50-%d", len(f.blobs[big])-1), ""}},
		{"too long", func(t *testing.T, path string) {
			if err := os.WriteFile(path, make([]byte, len(f.blobs[big])+1), 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{""}},
		{"whole", func(t *testing.T, path string) {
			if err := os.WriteFile(path, f.blobs[big], 0o600); err != nil {
				t.Fatal(err)
			}
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWeb(t, nil)
			w.add(t, f, "docker.io/library/app:latest")
			var broken atomic.Bool
			broken.Store(true)
			var mu sync.Mutex
			var ranges []string
			w.hook = func(rw http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, big.String()) {
					return false
				}
				if broken.Load() {
					half(rw, f.blobs[big])
				}
				mu.Lock()
				defer mu.Unlock()
				ranges = append(ranges, r.Header.Get("Range"))
				return false
			}
			s := w.store(t)
			s.cfg.Attempts = 1
			if _, err := s.Pull(t.Context(), "app", PullOptions{}); err == nil {
				t.Fatal("the pull succeeded")
			}
			cfg := s.cfg
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.spoil(t, s.partialPath(big))
			broken.Store(false)
			s = open(t, cfg)
			if _, err := s.Pull(t.Context(), "app", PullOptions{}); err != nil {
				t.Fatal(err)
			}
			consistent(t, s)
			mu.Lock()
			defer mu.Unlock()
			if d := cmp.Diff(c.ranges, ranges); d != "" {
				t.Errorf("asked for: %s", d)
			}
		})
	}
}

// What nobody has gone on with for a day goes, at the next start or removal.
func TestPartialsAge(t *testing.T) {
	requireRoot(t)
	clock := testclock.NewFakeClock(time.Now())
	cfg := Config{Dir: t.TempDir(), Clock: clock}
	s := open(t, cfg)
	path := s.partialPath(digest.FromString("x"))
	if err := os.WriteFile(path, []byte("y"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		after time.Duration
		there bool
	}{{0, true}, {partialAge - time.Hour, true}, {2 * time.Hour, false}} {
		clock.Step(c.after)
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		s = open(t, cfg)
		if _, err := os.Stat(path); (err == nil) != c.there {
			t.Errorf("after %s: %v", c.after, err)
		}
	}
}

// A layer is unpacked while it is downloaded, but becomes a layer only when all of it has proved to be right.
func TestUnpackAlong(t *testing.T) {
	l := layerTar(t, entry{name: "a", text: strings.Repeat("a", 300_000)}, entry{name: "b", text: strings.Repeat("b", 700_000)})
	f := newImage(t, noConfig, l)
	for _, lie := range []bool{false, true} {
		t.Run(fmt.Sprint("lie ", lie), func(t *testing.T) {
			w := newWeb(t, nil)
			w.add(t, f, "docker.io/library/app:latest")
			s := w.store(t)
			w.hook = func(rw http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, f.manifest.Layers[0].Digest.String()) {
					return false
				}
				rw.Header().Set("Content-Length", fmt.Sprint(len(l)))
				_, _ = rw.Write(l[:700_000])
				rw.(http.Flusher).Flush()
				for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
					if found, _ := filepath.Glob(s.path("tmp", "layer-*", "b")); len(found) > 0 {
						break
					}
					if time.Now().After(end) {
						t.Error("nothing was unpacked while the download went on")
						break
					}
				}
				rest := append([]byte{}, l[700_000:]...)
				if lie {
					rest[0] = 'x'
				}
				_, _ = rw.Write(rest)
				return true
			}
			_, err := s.Pull(t.Context(), "app", PullOptions{})
			if (err != nil) != lie || lie && !strings.Contains(err.Error(), "blob "+f.manifest.Layers[0].Digest.String()+": image content is corrupt: its digest is") {
				t.Errorf("error %v", err)
			}
			if left, _ := filepath.Glob(s.path("tmp", "*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if got, _ := filepath.Glob(s.path("layers", "*")); (len(got) == 1) == lie {
				t.Errorf("layers %v", got)
			}
		})
	}
}

// Images that are pulled at the same time share what they have in common.
func TestPullsShareLayers(t *testing.T) {
	w := newWeb(t, nil)
	common := layerTar(t, entry{name: "common", text: strings.Repeat("c", 100_000)})
	var blobs atomic.Int64
	gate := make(chan struct{})
	w.hook = func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, digest.FromBytes(common).String()) {
			blobs.Add(1)
			<-gate
		}
		return false
	}
	for i := range 5 {
		w.add(t, newImage(t, noConfig, common, layerTar(t, entry{name: "own", text: fmt.Sprint(i)})), fmt.Sprintf("docker.io/library/app:%d", i))
	}
	s := w.store(t)
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			if _, err := s.Pull(t.Context(), fmt.Sprintf("app:%d", i), PullOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	close(gate)
	wg.Wait()
	consistent(t, s)
	if layers, _ := filepath.Glob(s.path("layers", "*")); blobs.Load() != 1 || len(layers) != 6 {
		t.Errorf("the common layer was downloaded %d times, there are %d layers", blobs.Load(), len(layers))
	}
}
