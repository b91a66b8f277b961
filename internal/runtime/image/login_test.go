package image

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/runtime/image/login"
	"carob.dev/carob/test/registry/serve"
)

// Most registries hand out tokens for a password.
func TestPullWithToken(t *testing.T) {
	w := newWeb(t, nil)
	w.add(t, simple(t), "docker.io/library/app:latest")
	w.hook = func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			if u, p, _ := r.BasicAuth(); u != "u" || p != "p" || r.URL.Query().Get("scope") != "repository:library/app:pull" {
				rw.WriteHeader(http.StatusUnauthorized)
				return true
			}
			fmt.Fprint(rw, `{"token":"t1"}`)
			return true
		}
		if r.Header.Get("Authorization") == "Bearer t1" {
			return false
		}
		rw.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"`, w.URL))
		rw.WriteHeader(http.StatusUnauthorized)
		return true
	}
	s := w.store(t)
	if _, err := s.Pull(t.Context(), "app", PullOptions{}); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("without password: %v", err)
	}
	if _, err := s.Pull(t.Context(), "app", PullOptions{Auth: &runtimeapi.AuthConfig{Username: "u", Password: "p"}}); err != nil {
		t.Error(err)
	}
	if _, err := s.Pull(t.Context(), "app", PullOptions{Auth: &runtimeapi.AuthConfig{RegistryToken: "t1"}}); err != nil {
		t.Error(err)
	}
}

// A private certificate authority has to be named, or checking be turned off; https never falls back to http.
func TestPullTLS(t *testing.T) {
	requireRoot(t)
	reg, err := serve.Start("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reg.Stop(t.Context()) }()
	web := httptest.NewTLSServer(reg)
	defer web.Close()
	f := simple(t)
	if err := reg.Add(bytes.NewReader(f.archive(t, "docker.io/library/app:latest"))); err != nil {
		t.Fatal(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	for _, c := range []struct {
		name, text string
		want       error
	}{
		{"unknown authority", fmt.Sprintf("server = %q\n", web.URL), ErrUnavailable},
		{"named authority", fmt.Sprintf("server = %q\nca = \"ca.pem\"\n", web.URL), nil},
		{"authority in the folder", "", nil},
		{"unchecked", fmt.Sprintf("server = %q\nskip_verify = true\n", web.URL), nil},
		{"https to a plain server", fmt.Sprintf("server = \"https://%s\"\n", reg.Addr), ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			hosts := t.TempDir()
			ref, files := "example.com/library/app", map[string][]byte{"hosts.toml": []byte(c.text), "ca.pem": ca}
			folder := "example.com"
			if c.text == "" { // as Docker has it, for a registry at its own address
				folder = strings.TrimPrefix(web.URL, "https://")
				ref, files = folder+"/library/app", map[string][]byte{"ca.crt": ca}
			}
			for name, data := range files {
				if err := os.MkdirAll(filepath.Join(hosts, folder), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(hosts, folder, name), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s := open(t, Config{Dir: t.TempDir(), RegistryConfigDir: hosts, RetryDelay: time.Millisecond})
			img, err := s.Pull(t.Context(), ref, PullOptions{})
			if !errors.Is(err, c.want) || err == nil && img.ID != f.manifest.Config.Digest.String() {
				t.Errorf("%v, %v", img, err)
			}
			t.Log(err)
		})
	}
}

// A pull that brings no login has the node's; one that brings a login has that alone.
func TestPullAsNode(t *testing.T) {
	w := newWeb(t, map[string]serve.Login{"secret": {User: "u", Password: "p"}})
	w.add(t, simple(t), "docker.io/library/secret:1")
	s := w.store(t)
	file := filepath.Join(t.TempDir(), "config.json")
	var err error
	if s.cfg.Login, err = login.New(login.Config{File: file}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		file string
		auth *runtimeapi.AuthConfig
		want error
	}{
		{`{"auths":{"docker.io":{"username":"u","password":"wrong"}}}`, nil, ErrUnauthorized},
		{`{`, nil, ErrInvalid},
		{`{"auths":{"docker.io/library":{"username":"u","password":"wrong"},"docker.io":{"username":"u","password":"p"}}}`, &runtimeapi.AuthConfig{Username: "u", Password: "x"}, ErrUnauthorized},
		{`{"auths":{"docker.io/library":{"username":"u","password":"wrong"},"docker.io":{"username":"u","password":"p"}}}`, &runtimeapi.AuthConfig{}, nil},
	} {
		if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.PullImage(t.Context(), &runtimeapi.ImageSpec{Image: "secret:1"}, c.auth, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.file, err)
		}
	}
}

// What kubelet looks for stands first, and the code is still there.
func TestUnavailableRegistry(t *testing.T) {
	w := newWeb(t, nil)
	w.hook = func(rw http.ResponseWriter, _ *http.Request) bool { rw.WriteHeader(http.StatusBadGateway); return true }
	_, err := w.store(t).PullImage(t.Context(), &runtimeapi.ImageSpec{Image: "x"}, nil, nil)
	if err == nil || !strings.HasPrefix(status.Convert(err).Message(), "RegistryUnavailable: failed to pull image") || status.Code(err) != codes.Unavailable {
		t.Errorf("%v, %v", status.Code(err), err)
	}
}
