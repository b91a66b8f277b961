package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"syscall"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PullOptions go with a pull. All are optional.
type PullOptions struct {
	// Auth are the registry's credentials. One that names a ServerAddress is used for that registry only.
	Auth *runtimeapi.AuthConfig
	// Progress is told how far the pull has come, from any goroutine.
	Progress func(Progress)
}

// Pull makes sure that the image ref names in its registry now is on the node, and gives it that name. Callers that want the
// same image with the same credentials share one pull, which ends when the last of them gives up. Errors wrap ErrNotFound,
// ErrUnauthorized, ErrUnavailable, ErrCorrupt, ErrPlatform or ErrInvalid where one of these is the cause.
func (s *Store) Pull(ctx context.Context, ref string, opts PullOptions) (*Image, error) {
	named, err := parse(ref)
	if err != nil {
		return nil, s.wrap("pull", ref, err)
	}
	key := named.String() + " " + fingerprint(opts.Auth)
	id, err := s.pulls.do(ctx, key, opts.Progress, func(ctx context.Context, tell func(Progress)) (string, error) {
		return s.pull(ctx, named, opts.Auth, tell)
	})
	if err != nil {
		return nil, s.wrap("pull", named.String(), err)
	}
	return s.Resolve(ctx, id)
}

// fingerprint tells credentials apart without keeping them: who has none must not share the pull of who has.
func fingerprint(a *runtimeapi.AuthConfig) string {
	if a == nil {
		return ""
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q %q", a.Username, a.Password, a.Auth, a.ServerAddress, a.IdentityToken, a.RegistryToken))
	return hex.EncodeToString(sum[:])
}

func (s *Store) pull(ctx context.Context, ref reference.Named, auth *runtimeapi.AuthConfig, tell func(Progress)) (string, error) {
	defer s.beginIngest()()
	auths := []*runtimeapi.AuthConfig{auth}
	if anonymous(auth) {
		own, err := s.cfg.Login.For(ctx, ref.String())
		if err != nil {
			return "", fmt.Errorf("%w %w", ErrInvalid, err)
		}
		if len(own) > 0 {
			auths = own
		}
	}
	start := s.cfg.Clock.Now()
	var r *record
	var err error
	for _, a := range auths {
		if r, err = s.pullAs(ctx, ref, a, tell); !errors.Is(err, ErrUnauthorized) {
			break
		}
	}
	if err != nil {
		// What arrived helps the next attempt, unless there is no room for it.
		if errors.Is(err, syscall.ENOSPC) {
			s.short.Store(true)
			s.stale.Store(true)
		}
		return "", err
	}
	s.log.Info("pulled image", "image", ref.String(), "id", r.ID, "size", r.Size, "took", s.cfg.Clock.Since(start))
	return r.ID, nil
}

func anonymous(c *runtimeapi.AuthConfig) bool {
	return c == nil || c.Username+c.Password+c.Auth+c.IdentityToken+c.RegistryToken == ""
}

func (s *Store) pullAs(ctx context.Context, ref reference.Named, auth *runtimeapi.AuthConfig, tell func(Progress)) (*record, error) {
	src, err := newRemote(s.cfg.RegistryConfigDir, ref, auth)
	if err != nil {
		return nil, err
	}
	desc, data, err := src.resolve(ctx, s, ref)
	if err != nil {
		return nil, err
	}
	m := &meter{tell: tell, clock: s.cfg.Clock, p: Progress{Ref: ref.String()}}
	return s.pullResolved(ctx, src, ref, desc, data, m)
}

func (s *Store) pullResolved(ctx context.Context, src *remote, ref reference.Named, desc ocispec.Descriptor, data []byte, m *meter) (*record, error) {
	if _, err := s.addBlob(bytes.NewReader(data), desc.Digest); err != nil {
		return nil, err
	}
	var tags []string
	if tagOf(ref) != "" {
		tags = []string{ref.String()}
	}
	digests := []string{ref.Name() + "@" + desc.Digest.String()}
	return s.ingest(ctx, src, desc, tags, digests, m)
}
