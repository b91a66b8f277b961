package pull

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// credential is what to say to a registry, or to a part of it.
type credential struct {
	host, path string
	auth       *runtimeapi.AuthConfig
}

// entry is one registry's in a Docker configuration file.
type entry struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// credentials reads imagePullSecrets, those of the longest path first. Secrets of other types are an error.
func credentials(secrets []*corev1.Secret) ([]credential, error) {
	var list []credential
	for _, s := range secrets {
		var entries map[string]entry
		switch s.Type {
		case corev1.SecretTypeDockerConfigJson:
			var file struct {
				Auths map[string]entry `json:"auths"`
			}
			if err := json.Unmarshal(s.Data[corev1.DockerConfigJsonKey], &file); err != nil {
				return nil, fmt.Errorf("image pull secret %s: %w", s.Name, err)
			}
			entries = file.Auths
		case corev1.SecretTypeDockercfg:
			if err := json.Unmarshal(s.Data[corev1.DockerConfigKey], &entries); err != nil {
				return nil, fmt.Errorf("image pull secret %s: %w", s.Name, err)
			}
		default:
			return nil, fmt.Errorf("image pull secret %s: type %q holds no registry credentials", s.Name, s.Type)
		}
		for registry, e := range entries {
			c, err := e.credential(registry)
			if err != nil {
				return nil, fmt.Errorf("image pull secret %s: %s: %w", s.Name, registry, err)
			}
			list = append(list, c)
		}
	}
	sort.SliceStable(list, func(i, j int) bool {
		if len(list[i].path) != len(list[j].path) {
			return len(list[i].path) > len(list[j].path)
		}
		return list[i].host+list[i].path < list[j].host+list[j].path
	})
	return list, nil
}

func (e entry) credential(registry string) (credential, error) {
	auth := &runtimeapi.AuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	if e.Auth != "" {
		raw, err := base64.StdEncoding.DecodeString(e.Auth)
		if err != nil {
			if raw, err = base64.RawStdEncoding.DecodeString(e.Auth); err != nil {
				return credential{}, fmt.Errorf("decode auth: %w", err)
			}
		}
		user, password, ok := strings.Cut(string(raw), ":")
		if !ok {
			return credential{}, fmt.Errorf("auth is not user:password")
		}
		auth.Username, auth.Password = user, password
	}
	name := registry
	if _, after, ok := strings.Cut(name, "://"); ok {
		name = after
	}
	host, p, _ := strings.Cut(name, "/")
	p = strings.Trim(p, "/")
	if p == "v1" || p == "v2" {
		p = ""
	}
	auth.ServerAddress = host
	return credential{host: canonicalHost(host), path: p, auth: auth}, nil
}

func canonicalHost(h string) string {
	switch h {
	case "index.docker.io", "registry-1.docker.io", "docker.io":
		return "docker.io"
	}
	return h
}

// matches says whether the credential is for the image. Each part of a host name may be a pattern, as *.example.com.
func (c credential) matches(image string) bool {
	host, repo := split(image)
	if !hostMatches(c.host, host) {
		return false
	}
	return c.path == "" || repo == c.path || strings.HasPrefix(repo, c.path+"/")
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

// split takes an image's name apart into its registry and its repository.
func split(image string) (host, repo string) {
	name, _, _ := strings.Cut(image, "@")
	if slash := strings.LastIndexByte(name, '/'); strings.LastIndexByte(name, ':') > slash {
		name = name[:strings.LastIndexByte(name, ':')]
	}
	first, rest, ok := strings.Cut(name, "/")
	if !ok {
		return "docker.io", "library/" + name
	}
	if !strings.ContainsAny(first, ".:") && first != "localhost" {
		return "docker.io", name
	}
	return canonicalHost(first), rest
}
