package config

import (
	"net/url"
	"path/filepath"
)

// Static says where the manifests of Pods are that the node runs by itself.
type Static struct {
	// Manifests is a folder of them, or one, URL where to ask for some. Empty for none.
	Manifests, URL string
}

func staticSettings() []setting {
	return []setting{
		{"pod-manifests", "folder of manifests of Pods that the node runs by itself (kubelet's staticPodPath), or one such file",
			func(c *Config) string { return c.Static.Manifests },
			func(c *Config, v string) error { c.Static.Manifests = v; return nil }},
		{"pod-manifests-url", "URL that is asked for more of them every twenty seconds (kubelet's staticPodURL)",
			func(c *Config) string { return c.Static.URL },
			func(c *Config, v string) error { c.Static.URL = v; return nil }},
	}
}

// validate tells what is wrong, by the setting's name.
func (s Static) validate(bad func(name, format string, args ...any)) {
	if s.Manifests != "" && !filepath.IsAbs(s.Manifests) {
		bad("pod-manifests", "%q is not an absolute path", s.Manifests)
	}
	if s.URL == "" {
		return
	}
	if u, err := url.Parse(s.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		bad("pod-manifests-url", "%q is not a URL of http or https", s.URL)
	}
}
