package app

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
)

// settle is how long addresses must stay as they are before they are believed: a lease that is renewed takes one away and gives it back.
const settle = time.Second

// followAddresses has the agent tell the node's addresses as they are, until ctx ends. The kernel says when one comes or goes; nothing polls.
func (c *Carob) followAddresses(ctx context.Context) error {
	done := make(chan struct{})
	defer close(done)
	addrs, routes := make(chan netlink.AddrUpdate, 64), make(chan netlink.RouteUpdate, 64)
	for _, err := range []error{netlink.AddrSubscribe(addrs, done), netlink.RouteSubscribe(routes, done)} {
		if err != nil {
			c.opt.Log.Warn("the node's addresses are not followed", "error", err)
			<-ctx.Done()
			return ctx.Err()
		}
	}
	timer := time.NewTimer(settle) // they may have changed before anyone listened
	defer timer.Stop()
	now := c.node
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-addrs:
			if !ok {
				addrs = nil
			}
			timer.Reset(settle)
		case r, ok := <-routes:
			if !ok {
				routes = nil
			}
			if ok && (r.Dst == nil || r.Dst.IP.IsUnspecified()) { // the others are mostly those of Pods
				timer.Reset(settle)
			}
		case <-timer.C:
			if fresh := nodeIPs(c.cfg); !slices.Equal(fresh, now) {
				c.opt.Log.Info("the node has other addresses", "before", now, "now", fresh)
				now = fresh
				c.moved(fresh)
			}
		}
	}
}

// moved tells everyone the node's addresses: certificates, the rule and the endpoints of the Service kubernetes, the Node and its Pods.
func (c *Carob) moved(node []netip.Addr) {
	c.pki.SetIPs(c.servingIPs(node))
	if c.network != nil {
		if err := c.network.SetServices(c.services(node)); err != nil {
			c.opt.Log.Warn("the address of the Service kubernetes leads nowhere until the next start", "error", err)
		}
	}
	c.api.Advertise(node[:1])
	c.agent.SetNodeIPs(node)
}
