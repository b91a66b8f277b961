package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/cli"
	"carob.dev/carob/internal/config"
	"carob.dev/carob/internal/health"
	"carob.dev/carob/internal/runtime/cri"
)

const runtimeLong = `Runs the Pod runtime alone, without a control plane: a kubelet or crictl can use it by its CRI socket,
<run folder>/cri.sock. It goes on until it is told to end; its Pods go on without it, and it finds them again when it starts.

  carob runtime
  crictl --runtime-endpoint unix:///run/carob/cri.sock ps

Settings of the control plane (API server, services, datastore) have no meaning here. carob image and carob status work; carob down
stops all Pods, then this.`

func runtimeCommand() *cobra.Command {
	c := &cobra.Command{Use: "runtime", Short: "the Pod runtime alone, on a CRI socket", Long: runtimeLong, Args: cobra.NoArgs}
	src := config.AddFlags(c.Flags())
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := src.Load()
		if err != nil {
			return cli.Usage(err)
		}
		if cfg.RuntimeEndpoint != "" {
			return cli.Usage(errors.New("--runtime-endpoint names another runtime; this is one"))
		}
		ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
		defer stop()
		log, hush := logger(cfg, os.Stderr)
		defer hush()
		return runRuntime(ctx, cfg, log, func(s string) { fmt.Fprintln(c.OutOrStdout(), s) })
	}
	return c
}

// runRuntime opens images, network and runtime and serves them until ctx ends.
func runRuntime(ctx context.Context, cfg config.Config, log *slog.Logger, tell func(string)) (err error) {
	keepHeapSmall()
	usualUmask()
	c := &Carob{cfg: cfg, opt: Options{Log: log, Tell: tell}, stages: newStages(log, func(string) {}), ready: make(chan struct{}), downAsked: make(chan downRequest, 1)}
	defer func() { err = errors.Join(err, c.stages.end()) }()
	if err := c.checkHost(); err != nil {
		return err
	}
	if err := c.makeFolders(); err != nil {
		return err
	}
	if err := c.openRuntime(ctx); err != nil {
		return err
	}
	if err := c.remember(); err != nil {
		return err
	}
	if err := c.serveCRI(); err != nil {
		return err
	}
	if err := c.startAdmin(); err != nil {
		return err
	}
	close(c.ready)
	tell("the runtime serves unix://" + criSocket(cfg))
	c.stages.run("heap trimming", trimHeap)
	select {
	case <-ctx.Done():
		return nil
	case err := <-c.stages.failed:
		return err
	case d := <-c.downAsked:
		err := stopAll(ctx, c.runtime, d.tell)
		d.ended <- err
		return err
	}
}

func criSocket(cfg config.Config) string { return filepath.Join(cfg.RunDir(), "cri.sock") }

// serveCRI gives other processes of this machine's root the runtime that the agent has in process.
func (c *Carob) serveCRI() error {
	s, err := cri.Listen(cri.Config{Runtime: c.runtime, Images: c.images, Socket: criSocket(c.cfg), Log: c.opt.Log.With("part", "cri")})
	if err != nil {
		return &health.Problem{Code: "SocketUnusable", Severity: health.Error, What: "the CRI socket cannot be opened", Why: err.Error(),
			Fix: "see that " + c.cfg.RunDir() + " is a folder that root can write to"}
	}
	c.stages.run("CRI server", s.Serve)
	return nil
}
