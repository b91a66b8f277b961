package app

import (
	"net/netip"

	"github.com/vishvananda/netlink"

	"carob.dev/carob/internal/config"
)

// nodeCIDR is the range of the first node: the first of the cluster's ranges of that size.
func nodeCIDR(c config.Config) netip.Prefix {
	return netip.PrefixFrom(c.PodCIDR.Addr(), c.NodeCIDRMaskSize)
}

// nodeIPs are the addresses that the node is known by: that of the default route's link, else the first global one of any link, else
// the node's own address in its Pod range, which at least its Pods can reach.
func nodeIPs(c config.Config) []netip.Addr {
	own := nodeCIDR(c).Addr().Next()
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err == nil {
		for _, r := range routes {
			if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
				continue
			}
			if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
				if a, ok := globalAddr(link, own); ok {
					return []netip.Addr{a}
				}
			}
		}
	}
	links, err := netlink.LinkList()
	if err == nil {
		for _, l := range links {
			if a, ok := globalAddr(l, own); ok {
				return []netip.Addr{a}
			}
		}
	}
	return []netip.Addr{own}
}

func globalAddr(link netlink.Link, not netip.Addr) (netip.Addr, bool) {
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP.To4()); ok && ip.IsGlobalUnicast() && ip != not {
			return ip, true
		}
	}
	return netip.Addr{}, false
}
