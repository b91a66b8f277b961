package config

import (
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Images says how the node gets its images, and when it drops them. The names of its settings are kubelet's where it has such.
type Images struct {
	// Downloads is how many blobs are downloaded at once, over all pulls.
	Downloads int
	// Pinned are references of images that are never collected.
	Pinned []string
	// Logins is a Docker config.json with the node's own logins; it need not be there.
	Logins string
	// ProviderConfig is a CredentialProviderConfig of kubelet's, ProviderDir the folder of the plugins that it names. Empty: none.
	ProviderConfig, ProviderDir string
	// HighPercent of the images' disk in use has unused images removed, until LowPercent is in use; 100 never does.
	HighPercent, LowPercent int
	// MinAge is how long an unused image stays at least, MaxAge how long at most; a MaxAge of zero is no limit.
	MinAge, MaxAge time.Duration
}

func defaultImages() Images {
	return Images{Downloads: 6, Logins: "/etc/carob/config.json", HighPercent: 85, LowPercent: 80, MinAge: 2 * time.Minute}
}

func imageSettings() []setting {
	return []setting{
		{"max-parallel-downloads", "number of parts of images that are downloaded at once",
			func(c *Config) string { return strconv.Itoa(c.Images.Downloads) },
			func(c *Config, v string) (err error) { c.Images.Downloads, err = strconv.Atoi(v); return err }},
		{"pinned-images", "images that are never removed to make room, separated by commas",
			func(c *Config) string { return strings.Join(c.Images.Pinned, ",") },
			func(c *Config, v string) error { c.Images.Pinned = list(v); return nil }},
		{"registry-logins", "Docker config.json with the node's own logins and credential helpers",
			func(c *Config) string { return c.Images.Logins },
			func(c *Config, v string) error { c.Images.Logins = v; return nil }},
		{"image-credential-provider-config", "file that names kubelet's credential provider plugins",
			func(c *Config) string { return c.Images.ProviderConfig },
			func(c *Config, v string) error { c.Images.ProviderConfig = v; return nil }},
		{"image-credential-provider-bin-dir", "folder of the credential provider plugins",
			func(c *Config) string { return c.Images.ProviderDir },
			func(c *Config, v string) error { c.Images.ProviderDir = v; return nil }},
		{"image-gc-high-threshold", "percent of the images' disk in use that have unused images removed; 100 for never",
			func(c *Config) string { return strconv.Itoa(c.Images.HighPercent) },
			func(c *Config, v string) (err error) { c.Images.HighPercent, err = strconv.Atoi(v); return err }},
		{"image-gc-low-threshold", "percent of the images' disk that may be in use when that ends",
			func(c *Config) string { return strconv.Itoa(c.Images.LowPercent) },
			func(c *Config, v string) (err error) { c.Images.LowPercent, err = strconv.Atoi(v); return err }},
		{"image-minimum-gc-age", "how long an unused image stays at least",
			func(c *Config) string { return c.Images.MinAge.String() },
			func(c *Config, v string) (err error) { c.Images.MinAge, err = time.ParseDuration(v); return err }},
		{"image-maximum-gc-age", "how long an unused image stays at most; 0s for as long as there is room",
			func(c *Config) string { return c.Images.MaxAge.String() },
			func(c *Config, v string) (err error) { c.Images.MaxAge, err = time.ParseDuration(v); return err }},
	}
}

// validate tells what is wrong, by the setting's name.
func (i Images) validate(bad func(name, format string, args ...any)) {
	if i.Downloads < 1 {
		bad("max-parallel-downloads", "must be at least 1")
	}
	for name, v := range map[string]int{"image-gc-high-threshold": i.HighPercent, "image-gc-low-threshold": i.LowPercent} {
		if v < 0 || v > 100 {
			bad(name, "%d is not between 0 and 100", v)
		}
	}
	if i.LowPercent > i.HighPercent {
		bad("image-gc-low-threshold", "%d is more than --image-gc-high-threshold, %d", i.LowPercent, i.HighPercent)
	}
	if i.MinAge < 0 {
		bad("image-minimum-gc-age", "%s is negative", i.MinAge)
	}
	if i.MaxAge < 0 || i.MaxAge > 0 && i.MaxAge < i.MinAge {
		bad("image-maximum-gc-age", "%s is less than --image-minimum-gc-age, %s", i.MaxAge, i.MinAge)
	}
	if (i.ProviderConfig == "") != (i.ProviderDir == "") {
		bad("image-credential-provider-config", "needs --image-credential-provider-bin-dir, and the other way round")
	}
	for name, v := range map[string]string{"registry-logins": i.Logins, "image-credential-provider-config": i.ProviderConfig, "image-credential-provider-bin-dir": i.ProviderDir} {
		if v != "" && !filepath.IsAbs(v) {
			bad(name, "%q is not an absolute path", v)
		}
	}
}
