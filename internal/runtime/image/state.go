package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"carob.dev/carob/internal/sys"
)

// stateVersion is the form of state.json. A newer one is refused, never guessed at.
const stateVersion = 1

// state is all that outlives the process. A value that was published is never changed; see Store.update.
type state struct {
	Version int                `json:"version"`
	Images  map[string]*record `json:"images"` // by ID
	Layers  map[string]*layer  `json:"layers"` // by chain ID
	Blobs   map[string]int64   `json:"blobs"`  // digest to size in bytes
}

// record is one image.
type record struct {
	ID        string    `json:"id"`                // digest of the config
	Tags      []string  `json:"tags,omitempty"`    // docker.io/library/nginx:latest
	Digests   []string  `json:"digests,omitempty"` // docker.io/library/nginx@sha256:…
	Manifest  string    `json:"manifest"`          // digest of this platform's manifest
	MediaType string    `json:"mediaType"`         // its media type
	Indexes   []string  `json:"indexes,omitempty"` // digests of the indexes that led to it, kept as blobs
	Chains    []string  `json:"chains"`            // chain IDs, lowest first
	Blobs     []string  `json:"blobs"`             // layer blobs, lowest first
	Size      int64     `json:"size"`              // bytes on disk, unpacked and packed, shared parts counted in full
	User      string    `json:"user,omitempty"`    // the config's user
	Since     time.Time `json:"since"`             // when it came to this node
}

// layer is one unpacked layer on top of its chain.
type layer struct {
	Dir    string `json:"dir"`              // folder under layers/
	DiffID string `json:"diffID"`           // digest of the unpacked tar
	Blob   string `json:"blob"`             // digest of the blob it was unpacked from
	Size   int64  `json:"size"`             // bytes on disk
	Inodes int64  `json:"inodes"`           // files and folders
	Opaque bool   `json:"opaque,omitempty"` // hides every layer below
}

func newState() *state {
	return &state{Version: stateVersion, Images: map[string]*record{}, Layers: map[string]*layer{}, Blobs: map[string]int64{}}
}

// loadState reads the state; a missing file is an empty store.
func loadState(path string) (*state, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return newState(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read image store: %w", err)
	}
	st := newState()
	if err := json.Unmarshal(data, st); err != nil {
		return nil, fmt.Errorf("read image store %s: %w: %w", path, ErrCorrupt, err)
	}
	if st.Version != stateVersion {
		return nil, fmt.Errorf("read image store %s: version %d, this program knows %d", path, st.Version, stateVersion)
	}
	for id, r := range st.Images {
		for _, c := range r.Chains {
			if st.Layers[c] == nil {
				return nil, fmt.Errorf("read image store %s: %w: image %s lacks layer %s", path, ErrCorrupt, id, c)
			}
		}
	}
	return st, nil
}

func (st *state) save(path string) error {
	data, err := json.MarshalIndent(st, "", " ")
	if err != nil {
		return err
	}
	return sys.WriteFileAtomic(path, data, 0o600)
}

// clone copies all that an update may change.
func (st *state) clone() *state {
	c := &state{Version: st.Version, Images: make(map[string]*record, len(st.Images)), Layers: maps.Clone(st.Layers), Blobs: maps.Clone(st.Blobs)}
	for id, r := range st.Images {
		r2 := *r
		r2.Tags, r2.Digests, r2.Indexes = slices.Clone(r.Tags), slices.Clone(r.Digests), slices.Clone(r.Indexes)
		c.Images[id] = &r2
	}
	return c
}

// put adds an image, or refreshes the one with the same ID, and moves the names to it.
func (st *state) put(r *record, tags, digests []string) {
	old := st.Images[r.ID]
	st.Images[r.ID] = r
	if old != nil {
		r.Tags, r.Digests, r.Since = old.Tags, old.Digests, old.Since
		r.Indexes = union(old.Indexes, r.Indexes)
	}
	for _, t := range tags {
		st.dropName(t)
		r.Tags = union(r.Tags, []string{t})
	}
	for _, d := range digests {
		st.dropName(d)
		r.Digests = union(r.Digests, []string{d})
	}
}

// dropName takes one exact name from whichever image has it.
func (st *state) dropName(name string) {
	for _, r := range st.Images {
		is := func(n string) bool { return n == name }
		r.Tags, r.Digests = slices.DeleteFunc(r.Tags, is), slices.DeleteFunc(r.Digests, is)
	}
}

// untag drops a name; when it was the last tag of its repository, the repository's digests go with it.
// It reports whether the image has no name left.
func (st *state) untag(r *record, name string) bool {
	st.dropName(name)
	repo := repository(name)
	if !slices.ContainsFunc(r.Tags, func(t string) bool { return repository(t) == repo }) {
		r.Digests = slices.DeleteFunc(r.Digests, func(d string) bool { return repository(d) == repo })
	}
	return len(r.Tags)+len(r.Digests) == 0
}

// unname drops the names that a reference to the image stands for; see Store.RemoveImage. It reports whether the image has no name left.
func (st *state) unname(r *record, ref string) bool {
	n, err := parse(ref)
	switch {
	case err == nil && slices.Contains(r.Tags, n.String()):
		return st.untag(r, n.String())
	case err == nil && strings.Contains(n.String(), "@"):
		of := func(name string) bool { return repository(name) == n.Name() }
		r.Tags, r.Digests = slices.DeleteFunc(r.Tags, of), slices.DeleteFunc(r.Digests, of)
		return len(r.Tags)+len(r.Digests) == 0
	}
	r.Tags, r.Digests = nil, nil // by ID
	return true
}

// repository is a normalised name without tag and digest.
func repository(name string) string {
	if repo, _, ok := strings.Cut(name, "@"); ok {
		return repo
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}

// prune forgets layers and blobs that no image needs.
func (st *state) prune() {
	layers, blobs := map[string]bool{}, map[string]bool{}
	for _, r := range st.Images {
		for _, b := range r.needs() {
			blobs[b] = true
		}
		for _, c := range r.Chains {
			layers[c] = true
		}
	}
	maps.DeleteFunc(st.Layers, func(c string, _ *layer) bool { return !layers[c] })
	maps.DeleteFunc(st.Blobs, func(d string, _ int64) bool { return !blobs[d] })
}

// needs lists the blobs of an image.
func (r *record) needs() []string {
	return slices.Concat([]string{r.ID, r.Manifest}, r.Indexes, r.Blobs)
}

// unique tells, by image ID, the bytes that would become free if that image went alone.
func (st *state) unique() map[string]int64 {
	blobs, layers := map[string]int{}, map[string]int{}
	for _, r := range st.Images {
		for _, b := range union(r.needs(), nil) {
			blobs[b]++
		}
		for _, c := range union(r.Chains, nil) {
			layers[c]++
		}
	}
	out := map[string]int64{}
	for id, r := range st.Images {
		for _, b := range union(r.needs(), nil) {
			if blobs[b] == 1 {
				out[id] += st.Blobs[b]
			}
		}
		for _, c := range union(r.Chains, nil) {
			if l := st.Layers[c]; layers[c] == 1 && l != nil {
				out[id] += l.Size
			}
		}
	}
	return out
}

// usage sums up what the store takes on disk.
func (st *state) usage() (bytes, inodes int64) {
	for _, n := range st.Blobs {
		bytes += n
		inodes++
	}
	for _, l := range st.Layers {
		bytes += l.Size
		inodes += l.Inodes
	}
	return bytes, inodes
}

// union adds what is missing and keeps the result sorted.
func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}
