package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/network/nft"
)

// fallbackMTU is used when the node has no default route.
const fallbackMTU = 1500

// prepareNode turns forwarding on and gives the node its own address in each range, on lo: the address that Pods see the node
// come from, whichever other addresses it has.
func (n *Network) prepareNode() error {
	if err := loopbackUp(n.node); err != nil {
		return err
	}
	lo, err := n.node.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	for _, addr := range n.sources {
		a := &netlink.Addr{IPNet: host(addr)}
		if addr.Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := n.node.AddrReplace(lo, a); err != nil {
			return fmt.Errorf("add the node's Pod network address %s: %w", addr, err)
		}
		key := "net/ipv4/ip_forward"
		if addr.Is6() {
			key = "net/ipv6/conf/all/forwarding"
		}
		if err := setSysctl(key, "1"); err != nil {
			return err
		}
	}
	return nil
}

// allowLoopback lets the node's own 127.0.0.1 be the source of traffic to one Pod, which a host port on localhost needs.
func allowLoopback(link string) error {
	return setSysctl("net/ipv4/conf/"+link+"/route_localnet", "1")
}

// setSysctl writes a kernel setting unless it has the value already: then a read-only /proc/sys is no obstacle.
func setSysctl(key, value string) error {
	path := filepath.Join("/proc/sys", key)
	if old, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(old)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set %s to %s: %w", strings.ReplaceAll(key, "/", "."), value, err)
	}
	return nil
}

// defaultMTU is the MTU of the link that the node's default route goes by.
func defaultMTU(h *netlink.Handle) (int, error) {
	for _, fam := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := h.RouteList(nil, fam)
		if err != nil {
			return 0, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst != nil && !r.Dst.IP.IsUnspecified() || r.Dst != nil && !isZeroMask(r.Dst.Mask) || r.LinkIndex == 0 {
				continue
			}
			link, err := h.LinkByIndex(r.LinkIndex)
			if err != nil {
				return 0, fmt.Errorf("find the link of the default route: %w", err)
			}
			if mtu := link.Attrs().MTU; mtu > 0 && link.Type() != "loopback" {
				return min(mtu, 65535), nil
			}
		}
	}
	return fallbackMTU, nil
}

func isZeroMask(mask []byte) bool {
	for _, b := range mask {
		if b != 0 {
			return false
		}
	}
	return true
}

// plan is the rules for the leases as they are, without those of sandboxes that are leaving.
func (n *Network) plan() nft.Ruleset {
	leases := n.ledger.List()
	n.mu.Lock()
	defer n.mu.Unlock()
	in := nft.Input{Table: n.cfg.NFTable, Group: n.group, PodCIDRs: n.cfg.PodCIDRs, Services: n.cfg.Services}
	for _, lease := range leases {
		in.Ports = append(in.Ports, targets(n.ports.held[lease.Owner], lease.Addrs)...)
	}
	return nft.Plan(in)
}

// planOf is the rules for one Pod's ports alone.
func (n *Network) planOf(ports []HostPort, addrs []netip.Addr) nft.Ruleset {
	return nft.Plan(nft.Input{Table: n.cfg.NFTable, Group: n.group, PodCIDRs: n.cfg.PodCIDRs, Ports: targets(ports, addrs)})
}

// targets are the host ports of one Pod, for each family that it has an address of.
func targets(ports []HostPort, addrs []netip.Addr) []nft.Port {
	var out []nft.Port
	for _, p := range ports {
		for _, addr := range addrs {
			if p.HostIP.IsValid() && p.HostIP.Is4() != addr.Is4() {
				continue
			}
			out = append(out, nft.Port{Protocol: p.Protocol, HostIP: p.HostIP, HostPort: p.HostPort, Target: netip.AddrPortFrom(addr, p.ContainerPort)})
		}
	}
	return out
}

// SetServices replaces the addresses that lead elsewhere.
func (n *Network) SetServices(services []nft.Service) error {
	n.mu.Lock()
	n.cfg.Services = services
	n.mu.Unlock()
	return n.applyRules()
}

func (n *Network) applyRules() error {
	n.rules.Lock()
	defer n.rules.Unlock()
	return nft.Apply(n.plan())
}

// refreshPorts brings the host ports of one Pod in the kernel up to date after they were claimed, or with gone released. Only they are told to
// the kernel. If what should be there is not, because someone took it away, everything is made again.
func (n *Network) refreshPorts(ports []HostPort, addrs []netip.Addr, gone bool) error {
	n.rules.Lock()
	defer n.rules.Unlock()
	change := nft.Add
	if gone {
		change = nft.Remove
	}
	err := change(n.planOf(ports, addrs))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) {
		err = nft.Apply(n.plan())
	}
	if err != nil {
		return err
	}
	if err := forgetFlows(ports); err != nil {
		// Only flows that go on without a pause for longer than the kernel's timeout would notice.
		n.log.Warn("old flows to a host port may go on to where they went", "err", err)
	}
	return nil
}

// forgetFlows drops what the kernel remembers of UDP traffic to ports that changed hands; it would follow the old way as long
// as packets keep coming.
func forgetFlows(changed []HostPort) error {
	for _, p := range changed {
		if p.Protocol != "UDP" {
			continue
		}
		for _, fam := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			filter := &netlink.ConntrackFilter{}
			if err := filter.AddProtocol(unix.IPPROTO_UDP); err != nil {
				return fmt.Errorf("forget flows: %w", err)
			}
			if err := filter.AddPort(netlink.ConntrackOrigDstPort, p.HostPort); err != nil {
				return fmt.Errorf("forget flows: %w", err)
			}
			if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, fam, filter); err != nil {
				return fmt.Errorf("forget flows to UDP port %d: %w", p.HostPort, err)
			}
		}
	}
	return nil
}
