package network

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"carob.dev/carob/internal/failpoint"
)

// podLink is the name of a Pod's own end of its veth.
const podLink = "eth0"

// linkPrefix begins the name of the node's end.
const linkPrefix = "cb"

var (
	// hop4 and hop6 are the next hop of a Pod's default routes. No interface has them.
	hop4 = netip.MustParseAddr("169.254.1.1")
	hop6 = netip.MustParseAddr("fe80::1")
	// nodeMAC is the hardware address of the node's end of each veth: the two ends are a network of their own.
	nodeMAC = net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}
)

// linkName names the node's end of a sandbox's veth: cb and the first 12 hex digits of the ID, so that a link can be matched
// to its sandbox by eye; of its SHA-256 if the ID is not in hex.
func linkName(sandboxID string) string {
	const digits = 12
	if len(sandboxID) >= digits {
		if _, err := hex.DecodeString(sandboxID[:digits]); err == nil {
			return linkPrefix + strings.ToLower(sandboxID[:digits])
		}
	}
	sum := sha256.Sum256([]byte(sandboxID))
	return linkPrefix + hex.EncodeToString(sum[:])[:digits]
}

// podMAC is the hardware address of the Pod's end: locally administered, unicast, made of its first address.
func podMAC(addr netip.Addr) net.HardwareAddr {
	b := addr.As16()
	return net.HardwareAddr{0x0a, 0x58, b[12], b[13], b[14], b[15]}
}

// linkGroup is the kernel's group number of all links that belong to the Carob with this table name. Never 0, the default group.
func linkGroup(table string) uint32 {
	sum := sha256.Sum256([]byte(table))
	return binary.BigEndian.Uint32(sum[:4])&0x7fffffff | 1
}

// veth is what connect makes.
type veth struct {
	name  string
	group uint32
	mtu   int
	addrs []netip.Addr
	// sources are the node's own addresses towards Pods, one for each of addrs.
	sources []netip.Addr
}

// connect makes the veth between the node and the namespace pod, with addresses, routes and neighbours on both ends. What it
// made is gone again when it fails.
func connect(node *netlink.Handle, pod *os.File, v veth) (err error) {
	link := netlink.NewVeth(netlink.NewLinkAttrs())
	link.Name, link.PeerName = v.name, podLink
	link.Group, link.MTU = v.group, v.mtu
	link.HardwareAddr, link.PeerHardwareAddr = nodeMAC, podMAC(v.addrs[0])
	link.PeerNamespace = netlink.NsFd(int(pod.Fd()))
	link.Flags = net.FlagUp
	// A queue per CPU costs memory and time and gains nothing on a veth, whose transmission takes no lock.
	link.NumTxQueues, link.NumRxQueues = 1, 1
	if err := node.LinkAdd(link); err != nil {
		return fmt.Errorf("create veth %s: %w", v.name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeLink(node, v.name))
		}
	}()
	failpoint.Hit("network/link/added")
	if err := configurePod(pod, v); err != nil {
		return err
	}
	failpoint.Hit("network/link/configured")
	for i, addr := range v.addrs {
		neigh := &netlink.Neigh{LinkIndex: link.Index, Family: family(addr), State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: link.PeerHardwareAddr}
		if err := node.NeighSet(neigh); err != nil {
			return fmt.Errorf("set neighbour %s on %s: %w", addr, v.name, err)
		}
		route := &netlink.Route{LinkIndex: link.Index, Dst: host(addr), Scope: netlink.SCOPE_LINK, Src: v.sources[i].AsSlice()}
		if addr.Is6() {
			route.Scope = netlink.SCOPE_UNIVERSE
		}
		if err := node.RouteReplace(route); err != nil {
			return fmt.Errorf("set route to %s by %s: %w", addr, v.name, err)
		}
	}
	return nil
}

// configurePod brings up lo and eth0 inside the Pod's namespace.
func configurePod(ns *os.File, v veth) error {
	pod, err := netlink.NewHandleAt(netns.NsHandle(int(ns.Fd())), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer pod.Close()
	eth, err := pod.LinkByName(podLink)
	if err != nil {
		return fmt.Errorf("find %s in the Pod: %w", podLink, err)
	}
	index := eth.Attrs().Index
	for _, addr := range v.addrs {
		a := &netlink.Addr{IPNet: host(addr), Scope: unix.RT_SCOPE_UNIVERSE}
		if addr.Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := pod.AddrAdd(eth, a); err != nil {
			return fmt.Errorf("add address %s in the Pod: %w", addr, err)
		}
	}
	if err := pod.LinkSetUp(eth); err != nil {
		return fmt.Errorf("set %s up in the Pod: %w", podLink, err)
	}
	for _, addr := range v.addrs {
		hop := hop4
		if addr.Is6() {
			hop = hop6
		}
		neigh := &netlink.Neigh{LinkIndex: index, Family: family(addr), State: netlink.NUD_PERMANENT, IP: hop.AsSlice(), HardwareAddr: nodeMAC}
		if err := pod.NeighSet(neigh); err != nil {
			return fmt.Errorf("set neighbour %s in the Pod: %w", hop, err)
		}
		route := &netlink.Route{LinkIndex: index, Gw: hop.AsSlice(), Flags: int(netlink.FLAG_ONLINK), Src: addr.AsSlice()}
		if err := pod.RouteAdd(route); err != nil {
			return fmt.Errorf("add default route by %s in the Pod: %w", hop, err)
		}
	}
	return loopbackUp(pod)
}

func loopbackUp(h *netlink.Handle) error {
	lo := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// removeLink deletes a link by name. A link that is not there is no error.
func removeLink(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if isNoLink(err) {
		return nil
	}
	if err == nil {
		err = h.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}

// ownLinks lists the names of the links of one group that are named as ours are.
func ownLinks(h *netlink.Handle, group uint32) (map[string]bool, error) {
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := map[string]bool{}
	for _, link := range links {
		if a := link.Attrs(); a.Group == group && strings.HasPrefix(a.Name, linkPrefix) && link.Type() == "veth" {
			names[a.Name] = true
		}
	}
	return names, nil
}

func isNoLink(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing)
}

// host is the network that holds addr alone.
func host(addr netip.Addr) *net.IPNet {
	return &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}
}

func family(addr netip.Addr) int {
	if addr.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}
