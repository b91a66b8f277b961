// Package version says which Carob this is. The linker fills the values in; it imports nothing of the project.
package version

import "runtime"

var (
	version = "0.0.0-dev"
	commit  = "unknown"
)

// KubernetesVersion is the version of the Kubernetes API that is served, as /version tells it.
const KubernetesVersion = "v1.37.2"

// Info is what `carob version` prints.
type Info struct {
	Version    string `json:"version"`
	Commit     string `json:"commit"`
	Kubernetes string `json:"kubernetes"`
	Go         string `json:"go"`
	Platform   string `json:"platform"`
}

// Get returns this build's Info.
func Get() Info {
	return Info{
		Version: version, Commit: commit, Kubernetes: KubernetesVersion,
		Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
}
