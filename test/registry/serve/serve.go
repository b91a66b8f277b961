// Package serve is a registry on loopback for tests and the demo: it serves the images of OCI archives as if it were
// docker.io, some of them only to those with a password, and writes the hosts.toml that leads there.
//
// It stands in for registries on the network and keeps its content in memory.
package serve

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Login is what a private repository wants.
type Login struct{ User, Password string }

// Registry is a running registry.
type Registry struct {
	// Addr is host:port.
	Addr string
	// Images are the references it serves, without the registry: library/nginx:1.8.
	Images []string

	handler http.Handler
	private map[string]Login
	server  *http.Server
	done    chan error
}

// Start serves on addr (host:port, port 0 for any). private names repositories ("library/nginx", or "nginx" for the same)
// that want a login.
func Start(addr string, private map[string]Login) (*Registry, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	r := &Registry{
		Addr: l.Addr().String(), private: map[string]Login{}, done: make(chan error, 1),
		handler: registry.New(registry.Logger(log.New(io.Discard, "", 0))),
	}
	for name, login := range private {
		if !strings.Contains(name, "/") {
			name = "library/" + name
		}
		r.private[name] = login
	}
	r.server = &http.Server{Handler: r}
	go func() { r.done <- r.server.Serve(l) }()
	return r, nil
}

// Stop ends it.
func (r *Registry) Stop(ctx context.Context) error {
	err := r.server.Shutdown(ctx)
	if e := <-r.done; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// ServeHTTP implements http.Handler. With any private repository, all must at least try to log in where it is asked for:
// that is how clients learn that the registry takes passwords.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	user, password, given := req.BasicAuth()
	got := Login{user, password}
	if req.URL.Path == "/v2/" && len(r.private) > 0 && !given {
		deny(w)
		return
	}
	for name, want := range r.private {
		if strings.HasPrefix(req.URL.Path, "/v2/"+name+"/") && got != want {
			deny(w)
			return
		}
	}
	r.handler.ServeHTTP(w, req)
}

func deny(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", `Basic realm="test registry"`)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
}

// AddFolder serves all OCI archives (*.tar) of a folder.
func (r *Registry) AddFolder(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := r.AddFile(f); err != nil {
			return err
		}
	}
	return nil
}

// AddFile serves the images of an OCI archive.
func (r *Registry) AddFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := r.Add(f); err != nil {
		return fmt.Errorf("serve %s: %w", path, err)
	}
	return nil
}

// Add serves the images of an OCI archive under the names it gives them, less the registry in them.
func (r *Registry) Add(archive io.Reader) error {
	blobs := map[digest.Digest][]byte{}
	var index ocispec.Index
	for tr := tar.NewReader(archive); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return err
		}
		if hex, ok := strings.CutPrefix(h.Name, "blobs/sha256/"); ok {
			blobs[digest.NewDigestFromEncoded(digest.SHA256, hex)] = data
		} else if h.Name == "index.json" {
			if err := json.Unmarshal(data, &index); err != nil {
				return err
			}
		}
	}
	for _, d := range index.Manifests {
		ref := d.Annotations["io.containerd.image.name"]
		_, name, ok := strings.Cut(ref, "/")
		i := strings.LastIndexByte(name, ':')
		if !ok || i < 0 {
			return fmt.Errorf("image %s has no full name", d.Digest)
		}
		if err := r.put(name[:i], name[i+1:], d, blobs); err != nil {
			return fmt.Errorf("image %s: %w", ref, err)
		}
		r.Images = append(r.Images, name)
	}
	return nil
}

func (r *Registry) put(repository, tag string, d ocispec.Descriptor, blobs map[digest.Digest][]byte) error {
	var m struct {
		ocispec.Manifest
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(blobs[d.Digest], &m); err != nil {
		return err
	}
	for _, child := range m.Manifests {
		if err := r.put(repository, child.Digest.String(), child, blobs); err != nil {
			return err
		}
	}
	parts := m.Layers
	if m.Manifests == nil {
		parts = append(parts, m.Config)
	}
	for _, b := range parts {
		if err := r.send(http.MethodPost, "/v2/"+repository+"/blobs/uploads/?digest="+b.Digest.String(), "", blobs[b.Digest]); err != nil {
			return err
		}
	}
	return r.send(http.MethodPut, "/v2/"+repository+"/manifests/"+tag, d.MediaType, blobs[d.Digest])
}

// send talks to the registry's handler directly, past the passwords.
func (r *Registry) send(method, url, contentType string, body []byte) error {
	req, err := http.NewRequest(method, "http://"+r.Addr+url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	w := &answer{header: http.Header{}, status: http.StatusOK}
	r.handler.ServeHTTP(w, req)
	if w.status >= 300 {
		return fmt.Errorf("%s %s: %d %s", method, url, w.status, w.body.String())
	}
	return nil
}

type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) { a.status = status }

func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// WriteHosts writes <dir>/<name>/hosts.toml, so that who asks for images of the registry called name comes here and nowhere else.
func (r *Registry) WriteHosts(dir, name string) error {
	folder := filepath.Join(dir, name)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf("server = \"http://%s\"\n\n[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", r.Addr, r.Addr)
	return os.WriteFile(filepath.Join(folder, "hosts.toml"), []byte(text), 0o644)
}
