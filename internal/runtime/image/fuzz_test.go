package image

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What a config says can be read, listed and told, whatever it says.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"architecture":"amd64","os":"linux","config":{"User":"1:2","Env":["A"],"Volumes":{"/v":{}},"ExposedPorts":{"80/tcp":{}},"StopSignal":"9"},"rootfs":{"type":"layers","diff_ids":["sha256:0000000000000000000000000000000000000000000000000000000000000000"]}}`), 1)
	f.Add([]byte(`{"created":"9999-12-31T23:59:59Z","config":null,"rootfs":{"diff_ids":["md5:1"]}}`), 1)
	f.Add([]byte(`{"config":{"User":"9223372036854775808"},"history":[{"empty_layer":true}]}`), 0)
	f.Fuzz(func(t *testing.T, data []byte, layers int) {
		cfg, err := parseConfig(data, &document{Layers: make([]ocispec.Descriptor, min(max(layers, 0), 10))})
		if err != nil {
			return
		}
		for _, d := range cfg.RootFS.DiffIDs {
			if strings.ContainsAny(d.Encoded(), "/.") {
				t.Errorf("diffID %q", d)
			}
		}
		if uid, name := user(cfg.Config.User); uid != nil && name != "" {
			t.Errorf("user %q is both a number and a name", cfg.Config.User)
		}
		if _, err := json.Marshal(cfg); err != nil {
			t.Error(err)
		}
	})
}

// A name in full means the same when it is read again, and no name is a path out of a folder.
func FuzzReference(f *testing.F) {
	for _, ref := range []string{"nginx", "docker.io/library/nginx:1.9", "localhost:5000/a/b@sha256:" + strings.Repeat("0", 64), "a:b@sha256:" + strings.Repeat("f", 64),
		"../../etc", "a/../b", "A", "sha256:" + strings.Repeat("0", 64), "[::1]:5000/x", strings.Repeat("a/", 200) + "b", "\xff", ""} {
		f.Add(ref)
	}
	st := newState()
	st.Images["sha256:"+strings.Repeat("0", 64)] = &record{ID: "sha256:" + strings.Repeat("0", 64), Tags: []string{"docker.io/library/nginx:latest"},
		Manifest: digest.FromString("m").String()}
	f.Fuzz(func(t *testing.T, ref string) {
		st.find(ref)
		n, err := Normalize(ref)
		if err != nil {
			return
		}
		if again, err := Normalize(n); err != nil || again != n {
			t.Errorf("%q is %q, and that is %q, %v", ref, n, again, err)
		}
		if strings.Contains(n, "..") || strings.HasPrefix(n, "/") || len(repository(n)) == 0 {
			t.Errorf("%q is %q", ref, n)
		}
		named, err := parse(ref)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := newRemote("", named, nil); err != nil {
			t.Error(err)
		}
	})
}

// Plain http is used only where the file, or the address of this machine itself, says so.
func FuzzHosts(f *testing.F) {
	for _, text := range []string{
		"server = \"https://a\"\n[host.\"http://b:1/x\"]\ncapabilities = [\"pull\"]\noverride_path = true\nskip_verify = true\n[host.\"http://b:1/x\".header]\nx = [\"1\", \"2\"]\n",
		"ca = [\"a\", \"b\"]\nclient = [[\"a\", \"b\"], \"c\"]\ndial_timeout = \"1s\"\n", "[host]\n", "[host.\"\"]\n", "[host.a.b]\n", "[[host]]\n", "host = 1\n", "server = \"\"\n",
		"[host.\"https://x?y\"]\n", "server = \"localhost:1\"\n",
	} {
		f.Add(text)
	}
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("no certificate"), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		eps, err := parseHosts([]byte(text), dir, "example.com")
		if err != nil {
			return
		}
		if len(eps) == 0 {
			t.Error("nowhere to ask")
		}
		for _, ep := range eps {
			if ep.host == "" || ep.path != "" && !strings.HasPrefix(ep.path, "/") {
				t.Errorf("%+v", ep)
			}
			if ep.plain && !isLoopback(ep.host) && !strings.Contains(text, "http") {
				t.Errorf("plain http to %s", ep.host)
			}
		}
	})
}
