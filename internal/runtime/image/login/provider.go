package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"
)

const (
	configGroup  = "kubelet.config.k8s.io/"
	requestGroup = "credentialprovider.kubelet.k8s.io/"
)

// provider is an entry of kubelet's CredentialProviderConfig, with what it has said.
type provider struct {
	Name                 string   `json:"name"`
	MatchImages          []string `json:"matchImages"`
	DefaultCacheDuration string   `json:"defaultCacheDuration"`
	APIVersion           string   `json:"apiVersion"`
	Args                 []string `json:"args"`
	Env                  []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	} `json:"env"`
	// TokenAttributes would have the plugin be given a Pod's token, which is not supported.
	TokenAttributes any `json:"tokenAttributes"`

	program string
	keep    time.Duration

	mu    sync.Mutex // guards cache, and has one question asked at a time
	cache map[string]answer
}

// answer is what a provider said, and until when that holds.
type answer struct {
	logins []Login
	until  time.Time
}

// parseProviders reads a CredentialProviderConfig; the programs are in dir. Unknown fields are errors.
func parseProviders(data []byte, dir string) ([]*provider, error) {
	var f struct {
		APIVersion string      `json:"apiVersion"`
		Kind       string      `json:"kind"`
		Providers  []*provider `json:"providers"`
	}
	if err := yaml.UnmarshalStrict(data, &f); err != nil {
		return nil, err
	}
	switch {
	case f.Kind != "CredentialProviderConfig" || !strings.HasPrefix(f.APIVersion, configGroup):
		return nil, fmt.Errorf("it is %s %s, want %sv1 CredentialProviderConfig", f.APIVersion, f.Kind, configGroup)
	case !filepath.IsAbs(dir):
		return nil, fmt.Errorf("image-credential-provider-bin-dir %q: want an absolute path", dir)
	}
	seen := map[string]bool{}
	for i, p := range f.Providers {
		if p == nil {
			return nil, fmt.Errorf("providers[%d]: empty", i)
		}
		if err := p.check(); err != nil {
			return nil, fmt.Errorf("providers[%d]: %w", i, err)
		}
		if seen[p.Name] {
			return nil, fmt.Errorf("providers[%d].name: %s is there twice", i, p.Name)
		}
		seen[p.Name] = true
		p.program, p.cache = filepath.Join(dir, p.Name), map[string]answer{}
	}
	return f.Providers, nil
}

func (p *provider) check() (err error) {
	switch {
	case !helperName.MatchString(p.Name) || strings.Trim(p.Name, ".") == "":
		return fmt.Errorf("name: %q is not a program's name", p.Name)
	case len(p.MatchImages) == 0:
		return errors.New("matchImages: missing")
	case !strings.HasPrefix(p.APIVersion, requestGroup):
		return fmt.Errorf("apiVersion: %q, want %sv1", p.APIVersion, requestGroup)
	case p.TokenAttributes != nil:
		return errors.New("tokenAttributes: not supported")
	}
	if p.keep, err = time.ParseDuration(p.DefaultCacheDuration); err != nil || p.keep < 0 {
		return fmt.Errorf("defaultCacheDuration: %q is not a duration", p.DefaultCacheDuration)
	}
	return nil
}

// logins asks the program, unless what it said before still holds.
func (p *provider) logins(ctx context.Context, image string, now time.Time) ([]Login, error) {
	host, repository := split(image)
	if !slices.ContainsFunc(p.MatchImages, func(m string) bool {
		h, path := place(m)
		return Login{host: h, path: path}.matches(host, repository)
	}) {
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range []string{image, host, ""} {
		if a, ok := p.cache[key]; ok && now.Before(a.until) {
			return a.logins, nil
		}
	}
	request, err := json.Marshal(map[string]string{"apiVersion": p.APIVersion, "kind": "CredentialProviderRequest", "image": image})
	if err != nil {
		return nil, err
	}
	var env []string
	for _, e := range p.Env {
		env = append(env, e.Name+"="+e.Value)
	}
	out, err := run(ctx, p.program, p.Args, env, request)
	if err != nil {
		return nil, err
	}
	kind, keep, logins, err := p.parseAnswer(out)
	if err != nil {
		return nil, fmt.Errorf("its answer: %w", err)
	}
	for key, a := range p.cache {
		if !now.Before(a.until) {
			delete(p.cache, key)
		}
	}
	if keep > 0 {
		key := map[string]string{"Image": image, "Registry": host, "Global": ""}[kind]
		p.cache[key] = answer{logins: logins, until: now.Add(keep)}
	}
	return logins, nil
}

func (p *provider) parseAnswer(data []byte) (kind string, keep time.Duration, logins []Login, err error) {
	var r struct {
		APIVersion    string  `json:"apiVersion"`
		Kind          string  `json:"kind"`
		CacheKeyType  string  `json:"cacheKeyType"`
		CacheDuration *string `json:"cacheDuration"`
		Auth          map[string]struct {
			Username string `json:"username"`
			Password string `json:"password"`
		} `json:"auth"`
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return "", 0, nil, err
	}
	if r.Kind != "CredentialProviderResponse" || r.APIVersion != p.APIVersion {
		return "", 0, nil, fmt.Errorf("it is %s %s, want %s CredentialProviderResponse", r.APIVersion, r.Kind, p.APIVersion)
	}
	if !slices.Contains([]string{"Image", "Registry", "Global"}, r.CacheKeyType) {
		return "", 0, nil, fmt.Errorf("cacheKeyType: %q", r.CacheKeyType)
	}
	keep = p.keep
	if r.CacheDuration != nil {
		if keep, err = time.ParseDuration(*r.CacheDuration); err != nil {
			return "", 0, nil, fmt.Errorf("cacheDuration: %w", err)
		}
	}
	for where, a := range r.Auth {
		host, path := place(where)
		logins = append(logins, Login{host: host, path: path, auth: &runtimeapi.AuthConfig{Username: a.Username, Password: a.Password}})
	}
	return r.CacheKeyType, keep, logins, nil
}
