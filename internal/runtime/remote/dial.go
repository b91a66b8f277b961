// Package remote drives Pods through another CRI: containerd, CRI-O, or a Carob that runs as `carob runtime`, on a unix socket.
//
// It may import health, k8s.io/cri-client and client-go's ends of exec, attach and port-forward. Invariants:
//
//   - what it lists, tells and stops is this Carob's own, known by a label: a runtime may serve others beside it;
//   - who asks for events misses none: a runtime's own are passed on; where it has none, or was away, its states are compared.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	criclient "k8s.io/cri-client/pkg"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/health"
)

const (
	// patience is how long a runtime may take for one call: kubelet's runtimeRequestTimeout. Pulls take as long as they take.
	patience = 2 * time.Minute
	// firstPatience is how long it may take for the very first one.
	firstPatience = 5 * time.Second
)

// Config says which runtime, and whose Pods.
type Config struct {
	// Endpoint is the runtime's socket as unix:///path; ImageEndpoint that of the image service, empty for the same.
	Endpoint, ImageEndpoint string
	// Owner is the label of what is this Carob's, such as carob-1a2b3c4d.
	Owner string
	Log   *slog.Logger
	// Clock is the wall clock when nil.
	Clock clock.Clock
}

// Client is a connection to a runtime that was there when it was made. It connects anew by itself.
type Client struct {
	Runtime *Runtime
	Images  cri.ImageManagerService
	// Name and Version are the runtime's own: containerd, v2.4.2.
	Name, Version string
	// Systemd says that it has systemd make the cgroups.
	Systemd bool
}

// Dial connects. Errors are health.Problems: NoRuntime, NoCRI.
func Dial(ctx context.Context, cfg Config) (_ *Client, err error) {
	if cfg.ImageEndpoint == "" {
		cfg.ImageEndpoint = cfg.Endpoint
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	for _, endpoint := range []string{cfg.Endpoint, cfg.ImageEndpoint} {
		if err := reach(ctx, endpoint); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, firstPatience)
	defer cancel()
	c := &Client{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close(context.WithoutCancel(ctx)))
		}
	}()
	service, err := criclient.NewRemoteRuntimeServiceBuilder().WithEndpoint(cfg.Endpoint).WithConnectionTimeout(patience).WithTracerProvider(nil).Build(ctx)
	if err != nil {
		return nil, noCRI(cfg.Endpoint, "runtime.v1.RuntimeService", err)
	}
	c.Runtime = newRuntime(service, cfg)
	c.Images, err = criclient.NewRemoteImageServiceBuilder().WithEndpoint(cfg.ImageEndpoint).WithConnectionTimeout(patience).WithTracerProvider(nil).Build(ctx)
	if err != nil {
		return nil, noCRI(cfg.ImageEndpoint, "runtime.v1.ImageService", err)
	}
	v, err := service.Version(ctx, "")
	if err != nil {
		return nil, noCRI(cfg.Endpoint, "runtime.v1.RuntimeService", err)
	}
	c.Name, c.Version = v.GetRuntimeName(), v.GetRuntimeVersion()
	c.Systemd, err = bySystemd(ctx, service, c.Name)
	return c, err
}

// Close ends the connections.
func (c *Client) Close() error { return c.close(context.Background()) }

func (c *Client) close(ctx context.Context) error {
	var errs []error
	if c.Runtime != nil {
		errs = append(errs, c.Runtime.Close(ctx))
	}
	if c.Images != nil {
		errs = append(errs, c.Images.Close(ctx))
	}
	return errors.Join(errs...)
}

// reach says what stands in the way to a socket: gRPC only says that it is not there yet.
func reach(ctx context.Context, endpoint string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(endpoint, "unix://"))
	if err == nil {
		return conn.Close()
	}
	p := &health.Problem{Code: "NoRuntime", Severity: health.Error, What: "no container runtime can be reached at " + endpoint, Why: err.Error(),
		Fix: "see that it is the socket of a runtime and that root may use it, or name another with --runtime-endpoint"}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.Why, p.Fix = "there is no such socket", "start the runtime (systemctl start containerd), or name its socket with --runtime-endpoint"
	case errors.Is(err, syscall.ECONNREFUSED):
		p.Why, p.Fix = "nobody listens there any more", "start the runtime that left the socket behind (systemctl start containerd)"
	}
	return p
}

func noCRI(endpoint, service string, err error) error {
	p := &health.Problem{Code: "NoCRI", Severity: health.Error, What: "what listens at " + endpoint + " does not speak the CRI, v1", Why: err.Error(),
		Fix: "name the socket of a CRI runtime with --runtime-endpoint, such as unix:///run/containerd/containerd.sock"}
	switch status.Code(err) {
	case codes.Unimplemented:
		p.Why = "it does not serve " + service
		p.Fix = `containerd: take "cri" out of disabled_plugins in /etc/containerd/config.toml and start it again; one older than 1.6 must be replaced`
	case codes.DeadlineExceeded:
		p.Why = fmt.Sprintf("it gave no answer within %s", firstPatience)
	}
	return p
}

// bySystemd says whether the runtime has systemd make the cgroups.
func bySystemd(ctx context.Context, service cri.RuntimeService, name string) (bool, error) {
	resp, err := service.RuntimeConfig(ctx)
	if status.Code(err) == codes.Unimplemented {
		return false, nil // an old one; a Pod's events tell if the drivers differ
	}
	if err != nil {
		return false, fmt.Errorf("ask %s for its cgroup driver: %w", name, err)
	}
	linux := resp.GetLinux()
	return linux != nil && linux.GetCgroupDriver() == runtimeapi.CgroupDriver_SYSTEMD, nil
}
