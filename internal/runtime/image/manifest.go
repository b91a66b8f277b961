package image

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types; OCI's are in its specification's package.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs."
	ociLayer       = "application/vnd.oci.image.layer."
)

// maxLayers is how many folders the kernel's overlay takes.
const maxLayers = 500

// manifestTypes is what a registry may answer with.
var manifestTypes = []string{ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, dockerIndex, dockerManifest}

// document is a manifest or an index, whichever of its parts are there.
type document struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	Config        ocispec.Descriptor   `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
}

func (d *document) isIndex() bool {
	return d.MediaType == ocispec.MediaTypeImageIndex || d.MediaType == dockerIndex
}

// parseDocument reads a manifest or index of either kind. declared is the media type that whoever served it gave, if any.
func parseDocument(data []byte, declared string) (*document, error) {
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrCorrupt, err)
	}
	if d.MediaType == "" && slices.Contains(manifestTypes, declared) {
		d.MediaType = declared
	}
	if d.MediaType == "" {
		d.MediaType = ocispec.MediaTypeImageManifest
		if d.Manifests != nil {
			d.MediaType = ocispec.MediaTypeImageIndex
		}
	}
	switch {
	case d.SchemaVersion == 1:
		return nil, fmt.Errorf("%w: manifest of schema version 1 is not supported; push the image again with a newer tool", ErrInvalid)
	case d.SchemaVersion != 2:
		return nil, fmt.Errorf("%w: manifest has schema version %d", ErrCorrupt, d.SchemaVersion)
	case !slices.Contains(manifestTypes, d.MediaType):
		return nil, fmt.Errorf("%w: %s is not an image's manifest", ErrInvalid, d.MediaType)
	case d.isIndex() && (len(d.Layers) > 0 || d.Config.Digest != ""):
		// One text that reads as both could show different images to different readers.
		return nil, fmt.Errorf("%w: index with layers", ErrCorrupt)
	case d.isIndex():
		return &d, nil
	case len(d.Manifests) > 0:
		return nil, fmt.Errorf("%w: manifest with manifests", ErrCorrupt)
	}
	if t := d.Config.MediaType; t != ocispec.MediaTypeImageConfig && t != dockerConfig {
		return nil, fmt.Errorf("%w: not a container image: its config is %q", ErrInvalid, t)
	}
	if len(d.Layers) > maxLayers {
		return nil, fmt.Errorf("%w image: %d layers, overlay takes %d", ErrInvalid, len(d.Layers), maxLayers)
	}
	for _, l := range d.Layers {
		if !strings.HasPrefix(l.MediaType, ociLayer) && !strings.HasPrefix(l.MediaType, dockerLayer) || strings.HasSuffix(l.MediaType, "+encrypted") {
			return nil, fmt.Errorf("%w: layers of type %q are not supported", ErrInvalid, l.MediaType)
		}
	}
	return &d, nil
}

// parseConfig reads an image's config and checks that it goes with the manifest.
func parseConfig(data []byte, m *document) (*ocispec.Image, error) {
	var cfg ocispec.Image
	if err := json.Unmarshal(data, &cfg); err != nil {
		return nil, fmt.Errorf("%w: config: %w", ErrCorrupt, err)
	}
	if got, want := len(cfg.RootFS.DiffIDs), len(m.Layers); got != want {
		return nil, fmt.Errorf("%w: config has %d layers, manifest %d", ErrCorrupt, got, want)
	}
	for _, d := range cfg.RootFS.DiffIDs {
		if err := d.Validate(); err != nil {
			return nil, fmt.Errorf("%w: diffID %q: %w", ErrCorrupt, d, err)
		}
	}
	return &cfg, nil
}

// chainIDs names each layer together with all below it, lowest first.
func chainIDs(diffIDs []digest.Digest) []string {
	var out []string
	for _, d := range identity.ChainIDs(slices.Clone(diffIDs)) {
		out = append(out, d.String())
	}
	return out
}

// candidates picks what an index has for a platform, best first: exact matches, then older variants of the processor that
// this one can run, then entries that do not name their platform (their config will).
func candidates(index []ocispec.Descriptor, want ocispec.Platform) []ocispec.Descriptor {
	type ranked struct {
		desc ocispec.Descriptor
		rank int
	}
	var fit []ranked
	for _, d := range index {
		if d.MediaType != "" && !slices.Contains(manifestTypes, d.MediaType) {
			continue
		}
		if d.Platform == nil || d.Platform.OS == "" && d.Platform.Architecture == "" {
			fit = append(fit, ranked{d, 100})
		} else if rank, ok := match(*d.Platform, want); ok {
			fit = append(fit, ranked{d, rank})
		}
	}
	slices.SortStableFunc(fit, func(a, b ranked) int { return cmp.Compare(a.rank, b.rank) })
	out := make([]ocispec.Descriptor, len(fit))
	for i, f := range fit {
		out[i] = f.desc
	}
	return out
}

// match says whether an image for one platform runs on another, and how far it is from the ideal (0).
func match(have, want ocispec.Platform) (rank int, ok bool) {
	if have.OS != want.OS {
		return 0, false
	}
	ha, hv := normal(have)
	wa, wv := normal(want)
	if ha != wa {
		return 0, false
	}
	if hv == wv {
		return 0, true
	}
	// A variant is a level: each runs what was built for lower ones. One that says none is for all.
	if wv == "" {
		return 0, false
	}
	if hv == "" {
		return 20, true
	}
	if len(hv) != len(wv) || hv > wv {
		return 0, false
	}
	return 1 + int(wv[len(wv)-1]) - int(hv[len(hv)-1]), true
}

// normal gives the usual names of architecture and variant.
func normal(p ocispec.Platform) (arch, variant string) {
	arch, variant = strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	switch arch {
	case "x86_64", "x86-64":
		arch = "amd64"
	case "aarch64":
		arch = "arm64"
	case "armhf":
		arch, variant = "arm", "v7"
	}
	if arch == "arm64" && (variant == "8" || variant == "v8") {
		variant = ""
	}
	if arch == "arm" && variant == "" {
		variant = "v7"
	}
	if arch == "amd64" && variant == "v1" {
		variant = ""
	}
	return arch, variant
}
