package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// userAgent is how registries know this program.
const userAgent = "carob"

// remote is one repository, at all hosts that may serve it. It is used for one pull.
type remote struct {
	repository string // path in the registry: library/nginx
	sessions   []*session
}

// session is one host, asked at most once how it wants to be talked to.
type session struct {
	endpoint
	auth  authn.Authenticator
	scope string

	slot   chan struct{} // one place; who fills it may set client
	client *http.Client
}

func newRemote(dir string, ref reference.Named, auth *runtimeapi.AuthConfig) (*remote, error) {
	registry := reference.Domain(ref)
	eps, err := endpoints(dir, registry)
	if err != nil {
		return nil, err
	}
	r := &remote{repository: reference.Path(ref)}
	for _, ep := range eps {
		a, err := credentials(auth, registry, ep.host)
		if err != nil {
			return nil, err
		}
		r.sessions = append(r.sessions, &session{endpoint: ep, auth: a, scope: "repository:" + r.repository + ":pull", slot: make(chan struct{}, 1)})
	}
	return r, nil
}

// credentials are what a host is shown. Those that name a server go to that registry and its mirrors only.
func credentials(c *runtimeapi.AuthConfig, registry, host string) (authn.Authenticator, error) {
	if anonymous(c) {
		return authn.Anonymous, nil
	}
	if c.ServerAddress != "" {
		if server := serverHost(c.ServerAddress); server != serverHost(registry) && server != serverHost(host) {
			return authn.Anonymous, nil
		}
	}
	a := authn.AuthConfig{Username: c.Username, Password: c.Password, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken}
	if c.Auth != "" && a.Username == "" {
		plain, err := base64.StdEncoding.DecodeString(strings.TrimRight(c.Auth, "\x00"))
		if err != nil {
			return nil, fmt.Errorf("%w registry credentials: auth is not base64", ErrInvalid)
		}
		user, password, ok := strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
		if !ok {
			return nil, fmt.Errorf("%w registry credentials: auth is not user:password", ErrInvalid)
		}
		a.Username, a.Password = user, password
	}
	return authn.FromConfig(a), nil
}

// serverHost is the host of an address as it stands in docker's config files, with Docker Hub's many names made one.
func serverHost(address string) string {
	if _, rest, ok := strings.Cut(address, "://"); ok {
		address = rest
	}
	host, _, _ := strings.Cut(address, "/")
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return host
}

// resolve asks the hosts in turn what a reference means, and returns the manifest's descriptor and bytes. That host comes
// first from then on.
func (r *remote) resolve(ctx context.Context, s *Store, ref reference.Named) (ocispec.Descriptor, []byte, error) {
	what := tagOf(ref)
	var want digest.Digest
	if d, ok := ref.(reference.Digested); ok {
		want = d.Digest()
		what = want.String()
	}
	var errs []error
	for i, h := range r.sessions {
		if want == "" && !h.resolve || !h.pull {
			continue
		}
		var desc ocispec.Descriptor
		var data []byte
		err := s.retry(ctx, func() (err error) {
			desc, data, err = h.manifest(ctx, r.repository, what, want)
			return err
		})
		if err == nil {
			r.sessions = append([]*session{h}, slices.Delete(r.sessions, i, i+1)...)
			return desc, data, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 0 {
		return ocispec.Descriptor{}, nil, fmt.Errorf("%w configuration: no host of the registry may resolve tags", ErrInvalid)
	}
	return ocispec.Descriptor{}, nil, worst(errs)
}

func (r *remote) hosts() int { return len(r.sessions) }

// open implements source.
func (r *remote) open(ctx context.Context, host int, desc ocispec.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	h := r.sessions[host]
	if !h.pull {
		return nil, 0, fmt.Errorf("%s: %w", h.host, ErrNotFound)
	}
	kind := "blobs"
	if slices.Contains(manifestTypes, desc.MediaType) {
		kind, offset = "manifests", 0
	}
	header := http.Header{}
	if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, desc.Size-1))
	}
	if kind == "manifests" {
		header["Accept"] = []string{desc.MediaType}
	}
	resp, err := h.get(ctx, r.repository, kind, desc.Digest.String(), header)
	if e, ok := errors.AsType[*httpError](err); ok && e.status == http.StatusRequestedRangeNotSatisfiable && offset > 0 {
		return r.open(ctx, host, desc, 0) // a registry without ranges, or another blob than last time
	}
	if err != nil {
		return nil, 0, err
	}
	if resp.StatusCode != http.StatusPartialContent {
		offset = 0
	} else if !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset)) {
		resp.Body.Close()
		return nil, 0, fmt.Errorf("%w: %s answers with range %q, asked was %d-", ErrCorrupt, h.host, resp.Header.Get("Content-Range"), offset)
	}
	if n := resp.ContentLength; n >= 0 && n != desc.Size-offset {
		resp.Body.Close()
		return nil, 0, fmt.Errorf("%w: %s has %d bytes of it, the manifest says %d", ErrCorrupt, h.host, n+offset, desc.Size)
	}
	return resp.Body, offset, nil
}

// manifest reads a manifest by tag or digest and checks what the host says of it.
func (h *session) manifest(ctx context.Context, repository, what string, want digest.Digest) (ocispec.Descriptor, []byte, error) {
	var desc ocispec.Descriptor
	resp, err := h.get(ctx, repository, "manifests", what, http.Header{"Accept": {strings.Join(manifestTypes, ", ")}})
	if err != nil {
		return desc, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return desc, nil, fmt.Errorf("manifest %s from %s: %w", what, h.host, err)
	}
	if len(data) > maxManifest {
		return desc, nil, fmt.Errorf("manifest %s from %s: %w: longer than %d bytes", what, h.host, ErrCorrupt, maxManifest)
	}
	said := want
	if said == "" {
		said = digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	}
	desc = ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	desc.MediaType, _, _ = strings.Cut(resp.Header.Get("Content-Type"), ";")
	if said != "" {
		if err := said.Validate(); err != nil {
			return desc, nil, fmt.Errorf("manifest %s from %s: %w: digest %q: %w", what, h.host, ErrCorrupt, said, err)
		}
		if desc.Digest = said.Algorithm().FromBytes(data); desc.Digest != said {
			return desc, nil, fmt.Errorf("manifest %s from %s: %w: its digest is %s, not %s", what, h.host, ErrCorrupt, desc.Digest, said)
		}
	}
	return desc, data, nil
}

// get makes one request. An answer that is not success is an error.
func (h *session) get(ctx context.Context, repository, kind, what string, header http.Header) (*http.Response, error) {
	client, err := h.connect(ctx)
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "https", Host: h.host, Path: "/v2/" + repository + "/" + kind + "/" + what}
	if h.only {
		u.Scheme = "http"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = header
	resp, err := client.Do(req)
	if err != nil {
		return nil, plainError(err)
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
		return resp, nil
	}
	defer resp.Body.Close()
	e := &httpError{url: u.Host + u.Path, status: resp.StatusCode, message: registryMessage(resp.Body)}
	e.retryAt = resp.Header.Get("Retry-After")
	return nil, e
}

// registryMessage is the reason in a registry's answer, in its own words.
func registryMessage(body io.Reader) string {
	data, _ := io.ReadAll(io.LimitReader(body, 8<<10))
	var answer struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(data, &answer) != nil || len(answer.Errors) == 0 {
		return ""
	}
	e := answer.Errors[0]
	return strings.ToLower(e.Code) + ": " + e.Message
}

// plainError turns what the libraries below answer into our terms.
func plainError(err error) error {
	if t, ok := errors.AsType[*transport.Error](err); ok {
		e := &httpError{status: t.StatusCode}
		if t.Request != nil {
			e.url = t.Request.URL.Host + t.Request.URL.Path
		}
		if len(t.Errors) > 0 {
			e.message = t.Errors[0].Message
		}
		return e
	}
	return err
}

// connect asks the host, once, how it wants to be talked to, and logs in.
func (h *session) connect(ctx context.Context) (*http.Client, error) {
	select {
	case h.slot <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-h.slot }()
	if h.client != nil {
		return h.client, nil
	}
	reg, err := name.NewRegistry(h.host)
	if err != nil {
		return nil, fmt.Errorf("%w registry host: %w", ErrInvalid, err)
	}
	rt, err := transport.NewWithContext(ctx, reg, h.auth, transport.NewUserAgent(h.transport(), userAgent), []string{h.scope})
	if err != nil {
		return nil, plainError(err)
	}
	h.client = &http.Client{Transport: rt}
	return h.client, nil
}

// transport speaks to the endpoint as configured: its path, headers, certificates, and plain http only where allowed.
func (h *session) transport() http.RoundTripper {
	dial := h.dial
	if dial == 0 {
		dial = 30 * time.Second
	}
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dial, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       h.tls,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		IdleConnTimeout:       10 * time.Second,
		MaxIdleConnsPerHost:   8,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true,
	}
	return &pathTransport{endpoint: &h.endpoint, inner: t}
}

type pathTransport struct {
	*endpoint
	inner *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (t *pathTransport) RoundTrip(in *http.Request) (*http.Response, error) {
	req := in.Clone(in.Context())
	if req.URL.Host == t.host {
		if t.only {
			req.URL.Scheme = "http"
		}
		if rest, ok := strings.CutPrefix(req.URL.Path, "/v2/"); ok {
			req.URL.Path, req.URL.RawPath = t.path+"/"+rest, ""
		}
		for k, v := range t.header {
			req.Header[k] = v
		}
		if t.host != origin(t.registry).host && req.Method == http.MethodGet {
			q := req.URL.Query()
			q.Set("ns", t.registry)
			req.URL.RawQuery = q.Encode()
		}
	}
	if req.URL.Scheme == "http" && !t.plain {
		return nil, fmt.Errorf("%w: %s wants plain http, which is not configured for %s", ErrUnavailable, req.URL.Host, t.registry)
	}
	return t.inner.RoundTrip(req)
}
