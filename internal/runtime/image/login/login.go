// Package login knows who to log in as at a registry: from Docker's configuration file, from credential helpers as Docker runs them, and
// from kubelet's credential provider plugins.
//
// The files and what the programs say are read when they are needed, so that nothing has to be restarted when a password changes. It
// imports nothing of this project.
package login

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

// patience is how long a helper or plugin may take.
const patience = time.Minute

// Config says where logins come from. All of it is optional.
type Config struct {
	// File is a Docker configuration file (config.json). One that is not there has no logins.
	File string
	// ProviderConfig is a CredentialProviderConfig of kubelet's, ProviderDir the folder of the programs that it names.
	ProviderConfig, ProviderDir string
	Log                         *slog.Logger
	Clock                       clock.PassiveClock
}

// Keyring finds logins. A nil one has none.
type Keyring struct {
	cfg       Config
	providers []*provider
}

// New returns a Keyring. The error names what is wrong with the providers' configuration.
func New(cfg Config) (*Keyring, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	k := &Keyring{cfg: cfg}
	if cfg.ProviderConfig == "" {
		return k, nil
	}
	data, err := os.ReadFile(cfg.ProviderConfig)
	if err != nil {
		return nil, fmt.Errorf("credential providers: %w", err)
	}
	if k.providers, err = parseProviders(data, cfg.ProviderDir); err != nil {
		return nil, fmt.Errorf("credential providers %s: %w", cfg.ProviderConfig, err)
	}
	return k, nil
}

// For returns the logins that may be for an image, the most fitting first. A helper or plugin that fails is logged and has none: the
// image may need none.
func (k *Keyring) For(ctx context.Context, image string) ([]*runtimeapi.AuthConfig, error) {
	if k == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var found []Login
	for _, p := range k.providers {
		logins, err := p.logins(ctx, image, k.cfg.Clock.Now())
		if err != nil {
			k.cfg.Log.Warn("a credential provider has failed", "provider", p.Name, "image", image, "err", err)
		}
		found = append(found, logins...)
	}
	logins, err := k.fromFile(ctx, image)
	if err != nil {
		return nil, err
	}
	return Fitting(append(found, logins...), image), nil
}

// file is Docker's config.json, as far as it is about logins.
type file struct {
	Auths   map[string]entry  `json:"auths"`
	Store   string            `json:"credsStore"`
	Helpers map[string]string `json:"credHelpers"`
}

// entry is one registry's.
type entry struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

func (k *Keyring) fromFile(ctx context.Context, image string) ([]Login, error) {
	if k.cfg.File == "" {
		return nil, nil
	}
	data, err := os.ReadFile(k.cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("registry logins: %w", err)
	}
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("registry logins %s: %w", k.cfg.File, err)
	}
	host, _ := split(image)
	server := host
	if server == hub {
		server = "https://index.docker.io/v1/" // Docker's name for it
	}
	helper := f.Store
	for name, h := range f.Helpers {
		if canonical(name) == host {
			helper, server = h, name
		}
	}
	var logins []Login
	if helper != "" {
		l, err := ask(ctx, helper, server)
		if err != nil {
			k.cfg.Log.Warn("a credential helper has failed", "helper", helper, "server", server, "err", err)
		}
		logins = l
	}
	own, err := parse(f.Auths)
	if err != nil {
		return nil, fmt.Errorf("registry logins %s: %w", k.cfg.File, err)
	}
	return append(logins, own...), nil
}

// Login is what to say to a registry, or to a part of it.
type Login struct {
	host, path string // host may be a pattern
	auth       *runtimeapi.AuthConfig
}

// ParseFile reads the logins of a Docker config.json, as secrets of type kubernetes.io/dockerconfigjson have them. Helpers are not run.
func ParseFile(data []byte) ([]Login, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	return parse(f.Auths)
}

// ParseOldFile reads Docker's older file, .dockercfg, which is the entries alone.
func ParseOldFile(data []byte) ([]Login, error) {
	var entries map[string]entry
	if err := json.Unmarshal(data, &entries); err != nil {
		return nil, err
	}
	return parse(entries)
}

func parse(entries map[string]entry) ([]Login, error) {
	var list []Login
	for registry, e := range entries {
		l, err := e.login(registry)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", registry, err)
		}
		if l.auth.String() != "" { // "auths":{"host":{}} says that a helper has it
			list = append(list, l)
		}
	}
	return list, nil
}

func (e entry) login(registry string) (Login, error) {
	auth := &runtimeapi.AuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	if e.Auth != "" {
		raw, err := base64.StdEncoding.DecodeString(e.Auth)
		if err != nil {
			if raw, err = base64.RawStdEncoding.DecodeString(e.Auth); err != nil {
				return Login{}, fmt.Errorf("decode auth: %w", err)
			}
		}
		user, password, ok := strings.Cut(strings.TrimRight(string(raw), "\x00"), ":")
		if !ok {
			return Login{}, errors.New("auth is not user:password")
		}
		auth.Username, auth.Password = user, password
	}
	host, p := place(registry)
	return Login{host: host, path: p, auth: auth}, nil
}

// place is the registry and the part of it that an entry is for.
func place(registry string) (host, p string) {
	if _, after, ok := strings.Cut(registry, "://"); ok {
		registry = after
	}
	host, p, _ = strings.Cut(registry, "/")
	p = strings.Trim(p, "/")
	if p == "v1" || p == "v2" {
		p = ""
	}
	return canonical(host), p
}

// Fitting are the logins for an image: those of the longest path first, then in their order, each once, and each for the image's own
// registry alone.
func Fitting(logins []Login, image string) []*runtimeapi.AuthConfig {
	host, repository := split(image)
	fit := slices.DeleteFunc(slices.Clone(logins), func(l Login) bool { return !l.matches(host, repository) })
	slices.SortStableFunc(fit, func(a, b Login) int { return len(b.path) - len(a.path) })
	var out []*runtimeapi.AuthConfig
	for _, l := range fit {
		a := &runtimeapi.AuthConfig{Username: l.auth.Username, Password: l.auth.Password, IdentityToken: l.auth.IdentityToken,
			RegistryToken: l.auth.RegistryToken, ServerAddress: host}
		if !slices.ContainsFunc(out, func(o *runtimeapi.AuthConfig) bool { return o.String() == a.String() }) {
			out = append(out, a)
		}
	}
	return out
}

// matches says whether the login is for the image. Each part of a host name may be a pattern, as *.example.com.
func (l Login) matches(host, repository string) bool {
	if !hostMatches(l.host, host) {
		return false
	}
	return l.path == "" || repository == l.path || strings.HasPrefix(repository, l.path+"/")
}

func hostMatches(pattern, host string) bool {
	patternName, patternPort, _ := strings.Cut(pattern, ":")
	name, port, _ := strings.Cut(host, ":")
	if patternPort != port {
		return false
	}
	want, have := strings.Split(patternName, "."), strings.Split(name, ".")
	if len(want) != len(have) {
		return false
	}
	for i := range want {
		if ok, err := path.Match(want[i], have[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

// hub is Docker's registry, which has many names.
const hub = "docker.io"

func canonical(host string) string {
	if _, after, ok := strings.Cut(host, "://"); ok {
		host = after
	}
	host, _, _ = strings.Cut(host, "/")
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return hub
	}
	return host
}

// split takes an image's name apart into its registry and its repository.
func split(image string) (host, repository string) {
	n, err := reference.ParseDockerRef(image)
	if err != nil {
		return "", ""
	}
	return reference.Domain(n), reference.Path(n)
}
