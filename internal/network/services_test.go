package network

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"carob.dev/carob/internal/network/nft"
)

func TestServiceAddressLeadsWhereItIsServed(t *testing.T) {
	cfg := testConfig(t)
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go answer(l)
	service := netip.MustParseAddrPort("10.43.0.1:443")
	cfg.Services = []nft.Service{{Address: service, Target: netip.AddrPortFrom(netip.MustParseAddr("10.42.7.1"), uint16(l.Addr().(*net.TCPAddr).Port))}}
	n := newNetwork(t, cfg)
	p := newPod(t)
	ip := attach(t, n, p, idA)
	if got := p.ask(t, service); got != ip.String() {
		t.Errorf("a Pod is seen as %s, want %s", got, ip)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	_, world, _ := net.ParseCIDR("10.43.0.0/16")
	route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: world}
	if err := netlink.RouteAdd(route); err != nil {
		t.Fatal(err)
	}
	defer netlink.RouteDel(route)
	if _, err := ask(service); err != nil {
		t.Errorf("the node: %v", err)
	}
	attach(t, n, newPod(t), idB, HostPort{HostPort: 18080, ContainerPort: 80}) // changes of host ports leave it alone
	if err := n.Detach(t.Context(), idB); err != nil {
		t.Fatal(err)
	}
	if got := p.ask(t, service); got != ip.String() {
		t.Errorf("after another Pod came and went: %s", got)
	}
}
