package login

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	testclock "k8s.io/utils/clock/testing"
)

func write(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// who lists users, or tokens, with the server each is for.
func who(t *testing.T, k *Keyring, image string) []string {
	t.Helper()
	list, err := k.For(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, a := range list {
		out = append(out, a.Username+a.IdentityToken+a.RegistryToken+"/"+a.Password+"@"+a.ServerAddress)
	}
	return out
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	k, err := New(Config{File: filepath.Join(dir, "config.json")})
	if err != nil {
		t.Fatal(err)
	}
	if got := who(t, k, "nginx"); got != nil {
		t.Errorf("without a file: %v", got)
	}
	if got := who(t, nil, "nginx"); got != nil {
		t.Errorf("without a keyring: %v", got)
	}
	write(t, k.cfg.File, `{"auths":{
		"https://index.docker.io/v1/":{"auth":"aHViOnB3"},
		"reg.io":{"username":"all","password":"1"}, "reg.io/team":{"username":"team","password":"2"}, "reg.io/team/deep":{"identitytoken":"deep"},
		"*.example.com:5000":{"registrytoken":"tok"}, "empty.io":{}}}`, 0o600)
	for image, want := range map[string][]string{
		"nginx": {"hub/pw@docker.io"}, "docker.io/a/b:1": {"hub/pw@docker.io"}, "reg.io/x": {"all/1@reg.io"},
		"reg.io/team/x": {"team/2@reg.io", "all/1@reg.io"}, "reg.io/teamwork/x": {"all/1@reg.io"}, "reg.io/team/deep/x@sha256:" + strings.Repeat("0", 64): {"deep/@reg.io", "team/2@reg.io", "all/1@reg.io"},
		"a.example.com:5000/x": {"tok/@a.example.com:5000"}, "a.example.com/x": nil, "a.b.example.com:5000/x": nil, "empty.io/x": nil, "Bad Name": nil,
	} {
		if d := cmp.Diff(want, who(t, k, image)); d != "" {
			t.Errorf("%s: %s", image, d)
		}
	}
	for _, bad := range []string{"{", `{"auths":{"x":{"auth":"%"}}}`, `{"auths":{"x":{"auth":"bm9jb2xvbg=="}}}`, `{"auths":[]}`} {
		write(t, k.cfg.File, bad, 0o600)
		if _, err := k.For(t.Context(), "x/y"); err == nil {
			t.Errorf("%s was understood", bad)
		}
	}
}

func TestHelper(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	write(t, filepath.Join(dir, "docker-credential-good"), "#!/bin/sh\nread s; echo \"{\\\"Username\\\":\\\"u\\\",\\\"Secret\\\":\\\"$s\\\"}\"\n", 0o755)
	write(t, filepath.Join(dir, "docker-credential-token"), "#!/bin/sh\necho '{\"Username\":\"<token>\",\"Secret\":\"t\"}'\n", 0o755)
	write(t, filepath.Join(dir, "docker-credential-none"), "#!/bin/sh\necho 'credentials not found in native keychain'; exit 1\n", 0o755)
	write(t, filepath.Join(dir, "docker-credential-noise"), "#!/bin/sh\nhead -c 3000000 /dev/zero\n", 0o755)
	k, err := New(Config{File: filepath.Join(dir, "config.json")})
	if err != nil {
		t.Fatal(err)
	}
	write(t, k.cfg.File, `{"credsStore":"good","credHelpers":{"token.io":"token","none.io":"none","noise.io":"noise","evil.io":"../../bin/sh","missing.io":"missing"},
		"auths":{"none.io":{"username":"own","password":"p"}}}`, 0o600)
	for image, want := range map[string][]string{
		"nginx": {"u/https://index.docker.io/v1/@docker.io"}, "any.io:1/x": {"u/any.io:1@any.io:1"}, "token.io/x": {"t/@token.io"},
		"none.io/x": {"own/p@none.io"}, "noise.io/x": nil, "evil.io/x": nil, "missing.io/x": nil,
	} {
		if d := cmp.Diff(want, who(t, k, image)); d != "" {
			t.Errorf("%s: %s", image, d)
		}
	}
}

const providers = `
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: cloud
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: ["*.cloud.io", "reg.io/team"]
  defaultCacheDuration: 10m
  args: [get]
  env: [{name: WHO, value: me}]
`

func TestProvider(t *testing.T) {
	dir := t.TempDir()
	calls := filepath.Join(dir, "calls")
	program := func(kind, duration string) {
		write(t, filepath.Join(dir, "cloud"), fmt.Sprintf(`#!/bin/sh
cat >>%s; echo >>%s
echo '{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderResponse","cacheKeyType":"%s"%s,"auth":{"*.cloud.io":{"username":"'$WHO$1'","password":"p"}}}'
`, calls, calls, kind, duration), 0o755)
	}
	asked := func() int {
		data, _ := os.ReadFile(calls)
		os.Remove(calls)
		return strings.Count(string(data), `"kind":"CredentialProviderRequest"`)
	}
	for _, c := range []struct {
		kind, duration string
		images         []string
		step           time.Duration
		want           int
	}{
		{"Registry", "", []string{"a.cloud.io/x", "a.cloud.io/y"}, 0, 1},
		{"Registry", "", []string{"a.cloud.io/x", "b.cloud.io/y"}, 0, 2},
		{"Image", "", []string{"a.cloud.io/x", "a.cloud.io/y", "a.cloud.io/x"}, 0, 2},
		{"Global", "", []string{"a.cloud.io/x", "b.cloud.io/y"}, 0, 1},
		{"Registry", "", []string{"a.cloud.io/x", "a.cloud.io/y"}, 11 * time.Minute, 2},
		{"Registry", `,"cacheDuration":"1h"`, []string{"a.cloud.io/x", "a.cloud.io/y"}, 11 * time.Minute, 1},
		{"Registry", `,"cacheDuration":"0s"`, []string{"a.cloud.io/x", "a.cloud.io/y"}, 0, 2},
	} {
		program(c.kind, c.duration)
		clock := testclock.NewFakeClock(time.Unix(1e9, 0))
		k, err := New(Config{ProviderConfig: write(t, filepath.Join(dir, "providers.yaml"), providers, 0o600), ProviderDir: dir, Clock: clock})
		if err != nil {
			t.Fatal(err)
		}
		for _, image := range c.images {
			host, _ := split(image)
			if d := cmp.Diff([]string{"meget/p@" + host}, who(t, k, image)); d != "" {
				t.Error(d)
			}
			clock.Step(c.step)
		}
		if got := asked(); got != c.want {
			t.Errorf("%+v: asked %d times", c, got)
		}
		if got := who(t, k, "other.io/x"); got != nil || asked() != 0 {
			t.Errorf("asked for an image of others: %v", got)
		}
		if got := who(t, k, "reg.io/team/x"); got != nil {
			t.Errorf("a login for another registry was given: %v", got)
		}
		os.Remove(calls)
	}
	// One that fails does not stop the pull.
	write(t, filepath.Join(dir, "cloud"), "#!/bin/sh\nexit 3\n", 0o755)
	k, err := New(Config{ProviderConfig: filepath.Join(dir, "providers.yaml"), ProviderDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if got := who(t, k, "a.cloud.io/x"); got != nil {
		t.Error(got)
	}
}

func TestProviderConfig(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"name: cloud", "name: ../cloud", "providers[0]: name"},
		{"name: cloud", "name: ..", "providers[0]: name"},
		{"defaultCacheDuration: 10m", "defaultCacheDuration: soon", "providers[0]: defaultCacheDuration"},
		{"args: [get]", "argz: [get]", "argz"},
		{`matchImages: ["*.cloud.io", "reg.io/team"]`, "matchImages: []", "providers[0]: matchImages"},
		{"credentialprovider.kubelet.k8s.io/v1", "other/v1", "providers[0]: apiVersion"},
		{"args: [get]", "tokenAttributes: {serviceAccountTokenAudience: x}", "providers[0]: tokenAttributes: not supported"},
		{"kind: CredentialProviderConfig", "kind: Other", "want kubelet.config.k8s.io/v1 CredentialProviderConfig"},
		{"- name: cloud", "- null\n- name: cloud", "providers[0]: empty"},
	} {
		if _, err := parseProviders([]byte(strings.Replace(providers, c.from, c.to, 1)), "/bin"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.to, err)
		}
	}
	if _, err := parseProviders([]byte(providers), "bin"); err == nil {
		t.Error("a relative folder was accepted")
	}
}
