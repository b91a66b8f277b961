package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
)

var _ cri.ImageManagerService = (*Store)(nil)

// ListImages lists all images, or the one the filter names. It implements cri.ImageManagerService, as do the methods below.
func (s *Store) ListImages(ctx context.Context, filter *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	st := s.current.Load()
	if ref := filter.GetImage().GetImage(); ref != "" {
		r, ok := st.find(ref)
		if !ok {
			return nil, nil
		}
		return []*runtimeapi.Image{s.criImage(r)}, nil
	}
	out := make([]*runtimeapi.Image, 0, len(st.Images))
	for _, r := range st.Images {
		out = append(out, s.criImage(r))
	}
	slices.SortFunc(out, func(a, b *runtimeapi.Image) int { return strings.Compare(a.Id, b.Id) })
	return out, nil
}

// ImageStatus tells about one image. For one that is not on the node the answer has no Image; that is no error.
// Verbose adds Info["info"]: chain ID and config as JSON.
func (s *Store) ImageStatus(ctx context.Context, spec *runtimeapi.ImageSpec, verbose bool) (*runtimeapi.ImageStatusResponse, error) {
	r, ok := s.current.Load().find(spec.GetImage())
	if !ok {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	resp := &runtimeapi.ImageStatusResponse{Image: s.criImage(r)}
	if !verbose {
		return resp, nil
	}
	cfg, err := s.config(r)
	if err != nil {
		return nil, s.wrap("read", spec.GetImage(), err)
	}
	info, err := json.Marshal(struct {
		ChainID string        `json:"chainID"`
		Spec    ocispec.Image `json:"imageSpec"`
	}{identity.ChainID(cfg.RootFS.DiffIDs).String(), *cfg})
	if err != nil {
		return nil, s.wrap("read", spec.GetImage(), err)
	}
	resp.Info = map[string]string{"info": string(info)}
	return resp, nil
}

// PullImage is Pull in the CRI's terms; it returns the image's ID. An error of a registry that cannot be reached begins with the name that
// kubelet looks for.
func (s *Store) PullImage(
	ctx context.Context, spec *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig,
) (string, error) {
	img, err := s.Pull(ctx, spec.GetImage(), PullOptions{Auth: auth})
	if errors.Is(err, ErrUnavailable) {
		err = fmt.Errorf("%w: %w", crierrors.ErrRegistryUnavailable, err)
	}
	if err != nil {
		return "", err
	}
	return img.ID, nil
}

// RemoveImage removes an image given by ID with all its names, one given by digest with all that its repository calls it, or else just
// the name, and the image with its last one. So ImageStatus does not find afterwards what was removed, and other tags stay. One that a container uses keeps its layers, and with them its ID. Removing what is not there is no error.
func (s *Store) RemoveImage(ctx context.Context, spec *runtimeapi.ImageSpec) error {
	ref := spec.GetImage()
	if ref == "" {
		return s.wrap("remove", ref, fmt.Errorf("%w image reference: empty", ErrInvalid))
	}
	removed := ""
	err := s.update(ctx, func(st *state) error {
		r, ok := st.find(ref)
		if !ok || !st.unname(r, ref) {
			return nil
		}
		if s.inUse(r.ID) {
			return nil
		}
		delete(st.Images, r.ID)
		st.prune()
		removed = r.ID
		return nil
	})
	if err != nil {
		return s.wrap("remove", ref, err)
	}
	if removed != "" {
		s.log.Info("removed image", "image", ref, "id", removed)
		s.stale.Store(true)
		s.trySweep()
	}
	return nil
}

// ImageFsInfo tells what the images take on disk. Containers' writable layers are counted by those who keep them.
func (s *Store) ImageFsInfo(context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	bytes, inodes := s.current.Load().usage()
	fs := &runtimeapi.FilesystemUsage{
		Timestamp:  s.cfg.Clock.Now().UnixNano(),
		FsId:       &runtimeapi.FilesystemIdentifier{Mountpoint: s.dir},
		UsedBytes:  &runtimeapi.UInt64Value{Value: uint64(bytes)},
		InodesUsed: &runtimeapi.UInt64Value{Value: uint64(inodes)},
	}
	return &runtimeapi.ImageFsInfoResponse{
		ImageFilesystems: []*runtimeapi.FilesystemUsage{fs}, ContainerFilesystems: []*runtimeapi.FilesystemUsage{fs},
	}, nil
}

func (s *Store) criImage(r *record) *runtimeapi.Image {
	uid, name := user(r.User)
	return &runtimeapi.Image{
		Id: r.ID, RepoTags: slices.Clone(r.Tags), RepoDigests: slices.Clone(r.Digests), Size: uint64(max(r.Size, 1)),
		Uid: uid, Username: name, Spec: &runtimeapi.ImageSpec{Image: r.ID}, Pinned: s.pinned(r),
	}
}

// user splits the user of an image's config, "name", "uid", "name:group" or "uid:gid", into what the CRI wants: a number or a name.
func user(u string) (*runtimeapi.Int64Value, string) {
	u, _, _ = strings.Cut(u, ":")
	if u == "" {
		return nil, ""
	}
	if n, err := strconv.ParseInt(u, 10, 64); err == nil {
		return &runtimeapi.Int64Value{Value: n}, ""
	}
	return nil, u
}
