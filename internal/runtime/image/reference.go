package image

import (
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// shortID is how many hex digits of an image ID name the image by themselves. Fewer could be meant as a repository
// ("cafe"), and a Pod must never run another image than the one it names.
const shortID = 12

// Normalize completes a reference as every Kubernetes node does: "nginx" is docker.io/library/nginx:latest. A tag beside a
// digest is dropped, for the digest alone decides.
func Normalize(ref string) (string, error) {
	n, err := parse(ref)
	if err != nil {
		return "", err
	}
	return n.String(), nil
}

func parse(ref string) (reference.Named, error) {
	n, err := reference.ParseDockerRef(ref)
	if err != nil {
		return nil, fmt.Errorf("%w image reference %q: %w", ErrInvalid, ref, err)
	}
	return n, nil
}

// tagOf is the tag of a reference, or none when it names a digest.
func tagOf(n reference.Named) string {
	if _, ok := n.(reference.Digested); ok {
		return ""
	}
	if t, ok := n.(reference.Tagged); ok {
		return t.Tag()
	}
	return ""
}

// lookup finds the image that a reference means: an ID, a name with tag or digest, in any form, or the first digits of an ID.
// A name wins over an ID that begins with the same letters.
func (st *state) lookup(ref string) (*record, bool) {
	if d, err := digest.Parse(ref); err == nil {
		r, ok := st.Images[d.String()]
		return r, ok
	}
	if n, err := parse(ref); err == nil {
		if r, ok := st.byName(n.String()); ok {
			return r, true
		}
	}
	return st.byPrefix(strings.TrimPrefix(ref, "sha256:"))
}

// find is lookup, and knows an image also by the digests of its repository that it has never been asked for by: that of this platform's
// manifest where the name has the index's, or the other way round.
func (st *state) find(ref string) (*record, bool) {
	if r, ok := st.lookup(ref); ok {
		return r, true
	}
	n, err := parse(ref)
	if err != nil {
		return nil, false
	}
	d, ok := n.(reference.Digested)
	if !ok {
		return nil, false
	}
	for _, r := range st.Images {
		if r.Manifest != d.Digest().String() && !slices.Contains(r.Indexes, d.Digest().String()) {
			continue
		}
		if slices.ContainsFunc(slices.Concat(r.Tags, r.Digests), func(name string) bool { return repository(name) == n.Name() }) {
			return r, true
		}
	}
	return nil, false
}

func (st *state) byName(name string) (*record, bool) {
	for _, r := range st.Images {
		for _, names := range [][]string{r.Tags, r.Digests} {
			for _, n := range names {
				if n == name {
					return r, true
				}
			}
		}
	}
	return nil, false
}

func (st *state) byPrefix(prefix string) (*record, bool) {
	if len(prefix) < shortID || strings.Trim(prefix, "0123456789abcdef") != "" {
		return nil, false
	}
	var found *record
	for id, r := range st.Images {
		if strings.HasPrefix(id, "sha256:"+prefix) {
			if found != nil {
				return nil, false
			}
			found = r
		}
	}
	return found, found != nil
}
