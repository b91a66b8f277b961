// Package app puts the parts of a Carob together: read Run first. It says in which order they start and, in reverse, stop.
//
// It may import every other package but cmd. It holds no logic of its own beyond that order.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/agent"
	"carob.dev/carob/internal/agent/localpath"
	"carob.dev/carob/internal/apiserver"
	"carob.dev/carob/internal/apiserver/inproc"
	"carob.dev/carob/internal/cli/admin"
	"carob.dev/carob/internal/cli/check"
	"carob.dev/carob/internal/config"
	"carob.dev/carob/internal/health"
	"carob.dev/carob/internal/network"
	"carob.dev/carob/internal/network/nft"
	"carob.dev/carob/internal/pki"
	"carob.dev/carob/internal/runtime"
	"carob.dev/carob/internal/runtime/image"
	"carob.dev/carob/internal/store"
	"carob.dev/carob/internal/sys"
)

// Options are what a command adds to the Config.
type Options struct {
	Log *slog.Logger
	// Tell is called with one line for each step of the start and each event after it.
	Tell func(string)
	// Events says that a line is told for each event of the cluster.
	Events bool
	// Ending is called when everything is about to be stopped.
	Ending func()
	// Ready is called once the node is Ready and the default service account exists.
	Ready func()
	// Down says that the Pods should be stopped gracefully before the end. Nil for never.
	Down <-chan struct{}
}

// Carob is one running control plane and node.
type Carob struct {
	cfg    config.Config
	opt    Options
	stages *stages
	node   []netip.Addr

	pki     *pki.PKI
	store   *store.Store
	images  *image.Store
	network *network.Network
	runtime *runtime.Runtime
	api     *apiserver.Server
	agent   *agent.Agent
	local   *localpath.Keeper
	kube    kubernetes.Interface
	shared  informers.SharedInformerFactory
	// pods is the runtime that Pods are made with: the embedded one, or another. Images, network and runtime are nil for another.
	pods podRuntime
	// recorder gives a component the means to write events.
	recorder func(component string) record.EventRecorder

	agentListener *inproc.Listener
	// agentFrom is how many stages had been started before the agent.
	agentFrom int

	ready chan struct{}
	// downAsked takes the one request of the admin socket.
	downAsked chan downRequest
	downOnce  sync.Once
}

// Run starts everything, tells when it is usable, and goes on until ctx ends (Pods go on running) or until down is asked for (Pods are
// stopped first). A part that fails ends the whole with its error.
func Run(ctx context.Context, cfg config.Config, opt Options) (err error) {
	keepHeapSmall()
	usualUmask()
	if _, err := pressurePolicy(cfg.Node.Eviction); err != nil {
		return err
	}
	c := &Carob{cfg: cfg, opt: opt, stages: newStages(opt.Log, opt.Tell), ready: make(chan struct{}), downAsked: make(chan downRequest, 1)}
	defer func() {
		if opt.Ending != nil {
			opt.Ending()
		}
		err = errors.Join(err, c.stages.end())
	}()
	if err := c.start(ctx); err != nil {
		return err
	}
	opt.Tell(fmt.Sprintf("%-46s %6d ms", "usable after", time.Since(c.stages.began).Milliseconds()))
	close(c.ready)
	c.stages.run("heap trimming", trimHeap)
	if opt.Ready != nil {
		opt.Ready()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-c.stages.failed:
		return err
	case <-opt.Down:
		return c.stopPods(ctx, opt.Tell)
	case d := <-c.downAsked:
		err := c.stopPods(ctx, d.tell)
		d.ended <- err
		return err
	}
}

// start is the main path. What the Pods need comes up beside the control plane; the agent needs both.
func (c *Carob) start(ctx context.Context) error {
	st := c.stages
	if err := st.step("check this host", c.checkHost); err != nil {
		return err
	}
	if err := c.leaveRuntime(ctx); err != nil {
		return err
	}
	if err := st.step("make folders", c.makeFolders); err != nil {
		return err
	}
	c.node = nodeIPs(c.cfg)
	if err := st.step("open the store", func() error { return c.openStore(ctx) }); err != nil {
		return err
	}
	var wg sync.WaitGroup
	var nodeErr error
	wg.Go(func() {
		if c.cfg.RuntimeEndpoint != "" {
			nodeErr = st.step("connect to the container runtime", func() error { return c.dialRuntime(ctx) })
		} else {
			nodeErr = st.step("open images, network and runtime", func() error { return c.openRuntime(ctx) })
		}
	})
	apiErr := st.step("start the API server", func() error { return c.startAPI(ctx) })
	wg.Wait()
	if err := errors.Join(nodeErr, apiErr); err != nil {
		return err
	}
	if err := st.step("write the kubeconfig", c.writeKubeconfig); err != nil {
		return err
	}
	if err := st.step("start controllers and scheduler", func() error { return c.startControllers(ctx) }); err != nil {
		return err
	}
	if err := st.step("listen for commands", c.startAdmin); err != nil {
		return err
	}
	if err := st.step("start the node agent", func() error { return c.startAgent(ctx) }); err != nil {
		return err
	}
	if c.runtime != nil {
		if err := c.serveCRI(); err != nil {
			return err
		}
	}
	return st.step("wait for the node and the service account", func() error { return c.waitUsable(ctx) })
}

func (c *Carob) checkHost() error {
	for _, p := range check.Decide(c.cfg, check.Gather(c.cfg, false)) {
		if p.Severity == health.Error {
			if p.Code == "PortInUse" {
				if _, err := admin.NewClient(c.cfg).Status(context.Background()); err == nil {
					return alreadyRunning(c.cfg)
				}
			}
			return &p
		}
		c.opt.Tell(fmt.Sprintf("warning %s: %s (fix: %s)", p.Code, p.What, p.Fix))
	}
	return nil
}

func alreadyRunning(cfg config.Config) error {
	return &health.Problem{Code: "AlreadyRunning", Severity: health.Error, What: "a carob with the root " + cfg.Root + " is running already",
		Fix: "use it (carob status --root " + cfg.Root + "), stop it (carob down), or give this one another --root and --api-port"}
}

func (c *Carob) makeFolders() error {
	for _, dir := range []string{c.cfg.Root, c.cfg.Path("pods"), c.cfg.RunDir()} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return &health.Problem{Code: "RootUnusable", Severity: health.Error, What: "a folder cannot be made", Why: err.Error(), Fix: "choose another folder with --root"}
		}
	}
	return nil
}

// remember lets later commands know what they need of the settings.
func (c *Carob) remember() error {
	return c.cfg.Remember(func(path string, data []byte) error { return sys.WriteFileAtomic(path, data, 0o600) })
}

func (c *Carob) openStore(ctx context.Context) (err error) {
	c.pki, err = pki.Open(c.cfg.Path("pki"), pki.Config{NodeName: c.cfg.NodeName, IPs: c.servingIPs(c.node), DNSNames: servingNames, Clock: clock.RealClock{}})
	if err != nil {
		return err
	}
	c.store, err = store.Open(ctx, store.Config{Dir: c.cfg.Path("store"), Endpoints: c.cfg.DatastoreEndpoints, Log: c.opt.Log.With("part", "store")})
	if err != nil {
		return err
	}
	c.stages.onEnd("store", c.store.Close)
	return c.remember() // the root is ours now
}

var servingNames = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}

func (c *Carob) servingIPs(node []netip.Addr) []netip.Addr {
	ips := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"), c.cfg.ServiceCIDR.Addr().Next(), nodeCIDR(c.cfg).Addr().Next()}
	return append(ips, node...)
}

// networkConfig lets the ClusterIP of the Service kubernetes lead to the API server, where there is one that Pods can reach.
func (c *Carob) networkConfig() network.Config {
	n := networkConfig(c.cfg, c.opt.Log)
	n.Services = c.services(c.node)
	return n
}

func (c *Carob) services(node []netip.Addr) []nft.Service {
	ip := c.cfg.ServiceCIDR.Masked().Addr().Next()
	if len(node) == 0 || c.cfg.APIBind.Addr().IsLoopback() || node[0].Is4() != ip.Is4() {
		return nil
	}
	return []nft.Service{{Address: netip.AddrPortFrom(ip, 443), Target: netip.AddrPortFrom(node[0], c.cfg.APIBind.Port())}}
}

func networkConfig(cfg config.Config, log *slog.Logger) network.Config {
	return network.Config{
		NFTable: cfg.NFTable(), Dir: cfg.Path("network"), NodeCIDRs: []netip.Prefix{nodeCIDR(cfg)}, PodCIDRs: []netip.Prefix{cfg.PodCIDR},
		Log: log.With("part", "network"),
	}
}

func (c *Carob) writeKubeconfig() error {
	raw, err := c.pki.AdminKubeconfig(c.serverURL())
	if err != nil {
		return err
	}
	return writeKubeconfig(c.cfg, raw)
}

func (c *Carob) serverURL() string {
	host := c.cfg.APIBind.Addr()
	if host.IsUnspecified() {
		host = netip.MustParseAddr("127.0.0.1")
	}
	u := url.URL{Scheme: "https", Host: netip.AddrPortFrom(host, c.cfg.APIBind.Port()).String()}
	return u.String()
}

// writeKubeconfig keeps a copy in the root, for the commands that know only that.
func writeKubeconfig(cfg config.Config, raw []byte) error {
	for _, path := range []string{cfg.Path("admin.kubeconfig"), cfg.Kubeconfig} {
		if path == "" {
			continue
		}
		if err := os.MkdirAll(parent(path), 0o755); err != nil {
			return err
		}
		if err := sys.WriteFileAtomic(path, raw, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// waitUsable watches until the node is Ready and the default namespace has its service account.
func (c *Carob) waitUsable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	nodeReady := func(o any) bool {
		n, ok := o.(*corev1.Node)
		if !ok || n.Name != c.cfg.NodeName {
			return false
		}
		for _, cond := range n.Status.Conditions {
			if cond.Type == corev1.NodeReady {
				return cond.Status == corev1.ConditionTrue
			}
		}
		return false
	}
	account := func(o any) bool {
		a, ok := o.(*corev1.ServiceAccount)
		return ok && a.Name == "default" && a.Namespace == metav1.NamespaceDefault
	}
	if err := c.waitFor(ctx, c.shared.Core().V1().Nodes().Informer(), nodeReady); err != nil {
		return &health.Problem{Code: "NodeNotReady", Severity: health.Error, What: "the node did not become Ready within a minute", Why: err.Error(), Fix: "look at the log, then at: carob check"}
	}
	if err := c.waitFor(ctx, c.shared.Core().V1().ServiceAccounts().Informer(), account); err != nil {
		return fmt.Errorf("the default service account did not appear: %w", err)
	}
	return nil
}

// nodeTransport leads the API server to the agent in this process; a node that is not this one is not known.
func nodeTransport(node string, rt http.RoundTripper) func(context.Context, string) (*url.URL, http.RoundTripper, error) {
	base := &url.URL{Scheme: "http", Host: "agent"}
	return func(_ context.Context, name string) (*url.URL, http.RoundTripper, error) {
		if name != node {
			return nil, nil, fmt.Errorf("no agent is known for node %q", name)
		}
		return base, rt, nil
	}
}
