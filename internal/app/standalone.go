package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"carob.dev/carob/internal/agent"
	"carob.dev/carob/internal/cli"
	"carob.dev/carob/internal/config"
)

const agentLong = `Runs the node agent without any API server: the Pods of --pod-manifests and --pod-manifests-url run, are started again when they
end, and go on when the agent does not run. Whoever wants to look at them uses the CRI socket, <run folder>/cri.sock.

  carob agent --standalone --pod-manifests /etc/carob/manifests
  crictl --runtime-endpoint unix:///run/carob/cri.sock ps

Such Pods may not name objects of an API (ConfigMaps, Secrets, service accounts). Settings of the control plane have no meaning here. carob image and
carob status work; carob down stops all Pods, then this.`

func agentCommand() *cobra.Command {
	c := &cobra.Command{Use: "agent", Short: "the node agent without an API server", Long: agentLong, Args: cobra.NoArgs}
	src := config.AddFlags(c.Flags())
	standalone := c.Flags().Bool("standalone", false, "run the Pods of manifests, without an API server")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := src.Load()
		switch {
		case err != nil:
			return cli.Usage(err)
		case !*standalone:
			return cli.Usage(errors.New("an agent runs with --standalone only; carob server is a node with an API server"))
		case cfg.Static == (config.Static{}):
			return cli.Usage(errors.New("there is nothing to run: --pod-manifests or --pod-manifests-url says where the Pods are"))
		}
		ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
		defer stop()
		log, hush := logger(cfg, os.Stderr)
		defer hush()
		return runStandalone(ctx, cfg, log, func(s string) { fmt.Fprintln(c.OutOrStdout(), s) })
	}
	return c
}

// runStandalone opens the runtime and runs an agent on it until ctx ends.
func runStandalone(ctx context.Context, cfg config.Config, log *slog.Logger, tell func(string)) (err error) {
	keepHeapSmall()
	usualUmask()
	c := &Carob{cfg: cfg, opt: Options{Log: log, Tell: tell}, stages: newStages(log, func(string) {}), ready: make(chan struct{}), downAsked: make(chan downRequest, 1)}
	defer func() { err = errors.Join(err, c.stages.end()) }()
	c.cfg.APIBind, c.cfg.Node.Bind = anyPort, anyPort // nobody listens there
	if err := c.checkHost(); err != nil {
		return err
	}
	if err := c.leaveRuntime(ctx); err != nil {
		return err
	}
	if err := c.makeFolders(); err != nil {
		return err
	}
	c.node = nodeIPs(cfg)
	open := c.openRuntime
	if cfg.RuntimeEndpoint != "" {
		open = c.dialRuntime
	}
	if err := open(ctx); err != nil {
		return err
	}
	c.cfg = cfg
	if err := c.remember(); err != nil {
		return err
	}
	if err := c.startAdmin(); err != nil {
		return err
	}
	if err := c.startStandalone(); err != nil {
		return err
	}
	if c.runtime != nil {
		if err := c.serveCRI(); err != nil {
			return err
		}
	}
	close(c.ready)
	c.stages.run("heap trimming", trimHeap)
	select {
	case <-ctx.Done():
		return nil
	case err := <-c.stages.failed:
		return err
	case d := <-c.downAsked:
		err := c.stopPods(ctx, d.tell)
		d.ended <- err
		return err
	}
}

// startStandalone runs an agent that has no API: its events are lines.
func (c *Carob) startStandalone() error {
	client, err := kubernetes.NewForConfig(&rest.Config{Host: "http://localhost", Transport: noAPI{}})
	if err != nil {
		return err
	}
	b := record.NewBroadcaster()
	b.StartEventWatcher(func(e *corev1.Event) {
		o := e.InvolvedObject
		c.opt.Tell(fmt.Sprintf("%-7s %-18s %s  %s", e.Type, e.Reason, strings.ToLower(o.Kind)+"/"+strings.TrimPrefix(o.Namespace+"/"+o.Name, "/"), e.Message))
	})
	c.stages.onEnd("events", func() error { b.Shutdown(); return nil })
	cfg, err := c.agentConfig(client, b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: c.cfg.NodeName}))
	if err != nil {
		return err
	}
	cfg.Standalone, cfg.Port = true, 0
	if c.agent, err = agent.New(cfg); err != nil {
		return err
	}
	c.agentFrom = c.stages.count()
	c.stages.run("node agent", c.agent.Run)
	return nil
}

// anyPort is an address that is always free.
var anyPort = netip.MustParseAddrPort("127.0.0.1:0")

// noAPI is the way to an API server that there is not.
type noAPI struct{}

func (noAPI) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("there is no API server: this agent stands alone")
}
