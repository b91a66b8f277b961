package network

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/network/ipam"
	"carob.dev/carob/internal/network/nft"
)

// Uninstall removes all that a Network with this Config made: links, the node's addresses, rules, leases. It needs no running
// Network, works after a crash, and may be repeated. Kernel settings (forwarding) stay: others may rely on them by now.
func Uninstall(ctx context.Context, cfg Config) error {
	node, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("uninstall Pod network: open netlink: %w", err)
	}
	defer node.Close()
	names, err := ownLinks(node, linkGroup(cfg.NFTable))
	errs := []error{err}
	for name := range names {
		errs = append(errs, removeLink(node, name))
	}
	errs = append(errs, removeNodeAddrs(node, cfg), nft.Delete(cfg.NFTable), closeDockerUser(ctx, cfg))
	if err := os.RemoveAll(leaseDir(cfg.Dir)); err != nil {
		errs = append(errs, err)
	}
	if err := os.Remove(cfg.Dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("uninstall Pod network: %w", err)
	}
	return nil
}

// Uninstall closes the Network and removes all that it made.
func (n *Network) Uninstall(ctx context.Context) error {
	return errors.Join(n.Close(), Uninstall(ctx, n.cfg))
}

func removeNodeAddrs(node *netlink.Handle, cfg Config) error {
	lo, err := node.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	var errs []error
	for _, r := range cfg.NodeCIDRs {
		addr := ipam.Gateway(r)
		err := node.AddrDel(lo, &netlink.Addr{IPNet: host(addr)})
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("remove address %s: %w", addr, err))
		}
	}
	return errors.Join(errs...)
}
