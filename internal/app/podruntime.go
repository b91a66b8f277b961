package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"

	"carob.dev/carob/internal/agent/imagegc"
	"carob.dev/carob/internal/cli/admin"
	"carob.dev/carob/internal/config"
	"carob.dev/carob/internal/health"
	"carob.dev/carob/internal/runtime/image"
	"carob.dev/carob/internal/runtime/remote"
	"carob.dev/carob/internal/sys"
	"carob.dev/carob/internal/sys/systemd"
	"carob.dev/carob/internal/version"
)

// podRuntime is what Pods are made with.
type podRuntime struct {
	runtime   cri.RuntimeService
	images    cri.ImageManagerService
	streaming streaming.Runtime
	store     imageStore
	// name and version are those of a runtime that is not the embedded one; changed gets a value when it goes away or comes back.
	name, version, endpoint string
	changed                 <-chan struct{}
	// users lists the containers of all who use the runtime; nil where that is this Carob alone.
	users imagegc.Containers
	// systemd says that it has systemd make the cgroups.
	systemd bool
}

// String names the runtime for people.
func (p podRuntime) String() string {
	if p.name == "" {
		return "carob " + version.Get().Version
	}
	return p.name + " " + p.version + " at " + p.endpoint
}

// imageStore is what `carob image` asks for.
type imageStore interface {
	list(ctx context.Context) ([]admin.Image, error)
	// pull returns the image's ID. A store that knows how far it has come tells.
	pull(ctx context.Context, ref string, tell func(admin.Progress)) (string, error)
	remove(ctx context.Context, ref string) error
	// load reads an archive and returns the names it brought; save writes one of images for which may has returned no error.
	load(ctx context.Context, r io.Reader) ([]string, error)
	may(ctx context.Context, ref string) error
	save(ctx context.Context, w io.Writer, refs ...string) error
}

// ownImages is the embedded store.
type ownImages struct{ *image.Store }

func (s ownImages) list(ctx context.Context) ([]admin.Image, error) {
	list, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	out := []admin.Image{}
	for _, i := range list {
		unique := uint64(i.Unique)
		out = append(out, admin.Image{ID: i.ID, Tags: i.RepoTags, Digests: i.RepoDigests, SizeBytes: uint64(i.Size), UniqueBytes: &unique, Pinned: i.Pinned})
	}
	return out, nil
}

func (s ownImages) pull(ctx context.Context, ref string, tell func(admin.Progress)) (string, error) {
	img, err := s.Pull(ctx, ref, image.PullOptions{Progress: func(p image.Progress) {
		tell(admin.Progress{Image: p.Ref, Bytes: p.Bytes, Total: p.Total, Unpacked: p.Unpacked, Layers: p.Layers})
	}})
	if err != nil {
		return "", err
	}
	return img.ID, nil
}

func (s ownImages) remove(ctx context.Context, ref string) error {
	if err := s.may(ctx, ref); err != nil {
		return err
	}
	return s.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: ref})
}

func (s ownImages) load(ctx context.Context, r io.Reader) ([]string, error) {
	return s.Import(ctx, r, nil)
}

func (s ownImages) may(ctx context.Context, ref string) error {
	_, err := s.Resolve(ctx, ref)
	return err
}

func (s ownImages) save(ctx context.Context, w io.Writer, refs ...string) error {
	return s.Export(ctx, w, refs...)
}

// theirImages is the store of another runtime, as far as the CRI reaches.
type theirImages struct {
	cri     cri.ImageManagerService
	runtime string
}

func (s theirImages) list(ctx context.Context) ([]admin.Image, error) {
	list, err := s.cri.ListImages(ctx, nil)
	if err != nil {
		return nil, err
	}
	out := []admin.Image{}
	for _, i := range list {
		out = append(out, admin.Image{ID: i.GetId(), Tags: i.GetRepoTags(), Digests: i.GetRepoDigests(), SizeBytes: i.GetSize(), Pinned: i.GetPinned()})
	}
	return out, nil
}

func (s theirImages) pull(ctx context.Context, ref string, _ func(admin.Progress)) (string, error) {
	id, err := s.cri.PullImage(ctx, &runtimeapi.ImageSpec{Image: ref}, nil, nil)
	return id, plain(err)
}

// plain takes gRPC's dressing off an error of a runtime's, and gives it the kind that its code stands for.
func plain(err error) error {
	if err == nil {
		return nil
	}
	text := status.Convert(err).Message()
	switch status.Code(err) {
	case codes.NotFound:
		return fmt.Errorf("%w: %s", image.ErrNotFound, text)
	case codes.Unauthenticated, codes.PermissionDenied:
		return fmt.Errorf("%w: %s", image.ErrUnauthorized, text)
	case codes.Unavailable:
		return fmt.Errorf("%w: %s", image.ErrUnavailable, text)
	}
	return errors.New(text)
}

func (s theirImages) remove(ctx context.Context, ref string) error {
	resp, err := s.cri.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: ref}, false)
	if err != nil {
		return err
	}
	if resp.GetImage() == nil {
		return fmt.Errorf("%s has no image %s: %w", s.runtime, ref, image.ErrNotFound)
	}
	return s.cri.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: ref})
}

func (s theirImages) load(context.Context, io.Reader) ([]string, error) {
	return nil, s.elsewhere("import", map[string]string{"containerd": "ctr --namespace k8s.io images import FILE",
		"cri-o": "skopeo copy docker-archive:FILE containers-storage:NAME", "carob": "carob image import FILE, with the --root of that carob"})
}

func (s theirImages) may(context.Context, string) error {
	return s.elsewhere("export", map[string]string{"containerd": "ctr --namespace k8s.io images export FILE NAME",
		"cri-o": "skopeo copy containers-storage:NAME docker-archive:FILE", "carob": "carob image export NAME, with the --root of that carob"})
}

func (s theirImages) save(ctx context.Context, _ io.Writer, _ ...string) error { return s.may(ctx, "") }

// elsewhere names the runtime's own tool for what the CRI has no words for.
func (s theirImages) elsewhere(verb string, tools map[string]string) error {
	p := &health.Problem{Code: "ImagesElsewhere", Severity: health.Error, What: "images cannot be " + verb + "ed here",
		Why: "they are " + s.runtime + "'s (--runtime-endpoint), and the CRI has no call to " + verb + " them", Fix: "use the tool of " + s.runtime + " for its images"}
	if tool, ok := tools[s.runtime]; ok {
		p.Fix = tool
	}
	return p
}

func remoteConfig(cfg config.Config, log *slog.Logger) remote.Config {
	return remote.Config{Endpoint: cfg.RuntimeEndpoint, ImageEndpoint: cfg.ImageEndpoint, Owner: cfg.CgroupRoot(), Log: log.With("part", "runtime")}
}

// dialRuntime connects to the runtime that is used instead of the embedded one, and tells it the node's range of Pod addresses.
func (c *Carob) dialRuntime(ctx context.Context) error {
	client, err := remote.Dial(ctx, remoteConfig(c.cfg, c.opt.Log))
	if err != nil {
		return err
	}
	c.stages.onEnd("connection to the runtime", client.Close)
	if client.Systemd {
		if err := systemd.Check(ctx); err != nil {
			return err
		}
	}
	r := client.Runtime
	c.pods = podRuntime{runtime: r, images: client.Images, streaming: r.Streaming(), store: theirImages{client.Images, client.Name},
		name: client.Name, version: client.Version, endpoint: c.cfg.RuntimeEndpoint, changed: r.Changed(), users: r.RuntimeService, systemd: client.Systemd}
	if err := r.UpdateRuntimeConfig(ctx, &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: nodeCIDR(c.cfg).String()}}); err != nil {
		return fmt.Errorf("tell %s the range of Pod addresses: %w", client.Name, err)
	}
	c.stages.run("events of the runtime", r.Run)
	return nil
}

// leaveRuntime sees to it, when another runtime is to be used than last time, that no Pod goes on twice: nothing may run any more, and
// what the old runtime keeps of this Carob's is removed.
func (c *Carob) leaveRuntime(ctx context.Context) error {
	old, ran, err := c.cfg.Remembered()
	if err != nil {
		c.opt.Log.Warn("the settings of the last start are not understood", "error", err) // another version's, perhaps
		return nil
	}
	if !ran || old.RuntimeEndpoint == c.cfg.RuntimeEndpoint {
		return nil
	}
	left, err := sys.Processes(func(_ int, cgroups []string) bool { return c.inOurs(cgroups) })
	if err != nil {
		return err
	}
	if len(left) > 0 {
		was := "carob's own"
		if old.RuntimeEndpoint != "" {
			was = "the one at " + old.RuntimeEndpoint
		}
		return &health.Problem{Code: "PodsElsewhere", Severity: health.Error, What: "Pods still run on the runtime that was used before, " + was,
			Why: "they would be started a second time", Fix: "stop them first: carob down --root " + c.cfg.Root}
	}
	if old.RuntimeEndpoint == "" {
		return nil // what it keeps is in the root
	}
	client, err := remote.Dial(ctx, remoteConfig(old, c.opt.Log))
	if err == nil {
		err = errors.Join(client.Runtime.RemoveAll(ctx), client.Close())
	}
	if err != nil {
		c.opt.Log.Warn("what the runtime that was used before keeps of the Pods is left there", "endpoint", old.RuntimeEndpoint, "error", err)
	}
	return nil
}
