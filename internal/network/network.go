package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"

	"carob.dev/carob/internal/network/ipam"
	"carob.dev/carob/internal/network/nft"
)

// Config says which network a node's Pods are in.
type Config struct {
	// NFTable is the name of the nftables table, unique for each Carob on the machine. It names the link group too.
	NFTable string
	// Dir holds what outlives the process: the leases.
	Dir string
	// NodeCIDRs are the ranges that this node's Pods get addresses from, one of each family at most. The first usable address
	// of each is the node's own.
	NodeCIDRs []netip.Prefix
	// PodCIDRs are the ranges of the whole cluster; what leaves them is masqueraded. NodeCIDRs must be inside.
	PodCIDRs []netip.Prefix
	// Services are addresses that lead elsewhere, for this node and its Pods. The node itself needs a route to them, whatever it is.
	Services []nft.Service
	// LeaveFirewalls says that no rule is added to a firewall of others (DOCKER-USER).
	LeaveFirewalls bool
	// Log must not be nil.
	Log *slog.Logger
	// Clock is the wall clock when nil.
	Clock clock.WithDelayedExecution
}

// Network attaches sandboxes to the node. It is safe for concurrent use.
type Network struct {
	cfg     Config
	log     *slog.Logger
	group   uint32
	mtu     int
	sources []netip.Addr
	node    *netlink.Handle
	ledger  *ipam.Ledger
	events  *linkEvents
	done    chan struct{}
	wake    chan struct{}
	closing sync.Once
	wg      sync.WaitGroup
	seq     sequence

	// rules is held while the table is brought up to date, so that two updates do not overtake one another.
	rules sync.Mutex

	mu      sync.Mutex // guards ports and leaving
	ports   portClaims
	leaving map[string]leaving
}

// leaving is a sandbox that was detached and whose link is not gone yet.
type leaving struct {
	link string
	// since is when it was detached.
	since time.Time
}

// Request says which namespace to attach, and how.
type Request struct {
	// SandboxID names the attachment: up to 128 letters, digits, dots, dashes.
	SandboxID string
	// NetNS is the Pod's network namespace. Attach does not keep it.
	NetNS *os.File
	// HostPorts are the ports of the node to send to the Pod.
	HostPorts []HostPort
}

// Result is what a Pod got.
type Result struct {
	// IPs has one address of each of the node's ranges, in their order.
	IPs []netip.Addr
	// Link is the name of the node's end of the veth.
	Link string
	// Linked says that this link exists. It is always so after Attach.
	Linked bool
}

// New brings up what Pods share: forwarding, the node's own address in its range, the rules. Pods attached by an earlier
// process stay as they are; call Reconcile when it is known which of them live. The caller must Close it.
func New(ctx context.Context, cfg Config) (*Network, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up Pod network: %w", err)
	}
	n := &Network{
		cfg: cfg, log: cfg.Log, group: linkGroup(cfg.NFTable),
		done: make(chan struct{}), wake: make(chan struct{}, 1),
		ports: newPortClaims(), leaving: map[string]leaving{},
	}
	for _, r := range cfg.NodeCIDRs {
		n.sources = append(n.sources, ipam.Gateway(r))
	}
	if err := n.open(ctx); err != nil {
		if n.events != nil {
			n.events.close()
		}
		if n.node != nil {
			n.node.Close()
		}
		return nil, fmt.Errorf("set up Pod network: %w", err)
	}
	n.wg.Go(n.listen)
	n.wg.Go(n.reap)
	return n, nil
}

func (c Config) validate() error {
	if c.NFTable == "" || c.Dir == "" || c.Log == nil {
		return errors.New("table, folder or log is missing")
	}
	if len(c.NodeCIDRs) == 0 {
		return errors.New("the node has no range of Pod addresses")
	}
	families := map[bool]bool{}
	for _, r := range c.NodeCIDRs {
		if families[r.Addr().Is4()] {
			return fmt.Errorf("two node ranges of one family: %v", c.NodeCIDRs)
		}
		families[r.Addr().Is4()] = true
		inside := false
		for _, p := range c.PodCIDRs {
			inside = inside || p.Bits() <= r.Bits() && p.Contains(r.Addr())
		}
		if !inside {
			return fmt.Errorf("node range %s is in none of the cluster's ranges %v", r, c.PodCIDRs)
		}
	}
	return nil
}

func (n *Network) open(ctx context.Context) (err error) {
	if n.ledger, err = ipam.Open(leaseDir(n.cfg.Dir), n.cfg.NodeCIDRs, n.log); err != nil {
		return err
	}
	for _, lease := range n.ledger.List() {
		if err := n.ports.claim(lease.Owner, notePorts(lease)); err != nil {
			n.log.Warn("two leases hold one host port", "err", err)
		}
	}
	if n.node, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	if n.events, err = openLinkEvents(); err != nil {
		return err
	}
	if err := n.prepareNode(); err != nil {
		return err
	}
	if n.mtu, err = defaultMTU(n.node); err != nil {
		return err
	}
	if err := n.applyRules(); err != nil {
		return err
	}
	if !n.cfg.LeaveFirewalls {
		openDockerUser(ctx, n.cfg, n.log)
	}
	return nil
}

// Close stops listening. Links, addresses and rules stay, so that Pods go on. It may be called more
// than once, and not while Attach or Detach are at work.
func (n *Network) Close() error {
	n.closing.Do(func() {
		close(n.done)
		n.events.close()
		n.wg.Wait()
		n.node.Close()
	})
	return nil
}

func leaseDir(dir string) string { return filepath.Join(dir, "leases") }
