package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

func TestNormalPorts(t *testing.T) {
	in := []HostPort{
		{HostPort: 80, ContainerPort: 8080, HostIP: netip.MustParseAddr("0.0.0.0")},
		{HostPort: 80, ContainerPort: 8080, Protocol: "TCP"},
		{ContainerPort: 81},
		{HostPort: 53, ContainerPort: 53, Protocol: "UDP", HostIP: netip.MustParseAddr("::ffff:192.0.2.1")},
	}
	want := []HostPort{
		{Protocol: "TCP", HostPort: 80, ContainerPort: 8080},
		{Protocol: "UDP", HostPort: 53, ContainerPort: 53, HostIP: netip.MustParseAddr("192.0.2.1")},
	}
	got, err := normalPorts(in)
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for _, bad := range []HostPort{{HostPort: 1}, {HostPort: 1, ContainerPort: 1, Protocol: "ICMP"}} {
		if _, err := normalPorts([]HostPort{bad}); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestPortClaims(t *testing.T) {
	ip := netip.MustParseAddr
	held := HostPort{Protocol: "TCP", HostPort: 80, HostIP: ip("192.0.2.1")}
	for _, tc := range []struct {
		port     HostPort
		conflict bool
	}{
		{HostPort{Protocol: "TCP", HostPort: 80}, true},
		{HostPort{Protocol: "TCP", HostPort: 80, HostIP: ip("192.0.2.1")}, true},
		{HostPort{Protocol: "TCP", HostPort: 80, HostIP: ip("192.0.2.2")}, false},
		{HostPort{Protocol: "UDP", HostPort: 80}, false},
		{HostPort{Protocol: "TCP", HostPort: 81}, false},
	} {
		c := newPortClaims()
		if err := c.claim("a", []HostPort{held}); err != nil {
			t.Fatal(err)
		}
		err := c.claim("b", []HostPort{{Protocol: "TCP", HostPort: 9}, tc.port})
		if (err != nil) != tc.conflict {
			t.Errorf("%+v: %v", tc.port, err)
		}
		if _, ok := c.held["b"]; ok == tc.conflict {
			t.Errorf("%+v: claimed in part", tc.port)
		}
		c.release("b")
		c.release("a")
		if len(c.held)+len(c.holders) != 0 {
			t.Errorf("%+v: after release: %+v", tc.port, c)
		}
	}
}

// outsider is a namespace that the node reaches by a link of its own, as it does the world: node 192.0.2.1, outsider 192.0.2.2.
func outsider(t *testing.T) *testPod {
	t.Helper()
	p := newPod(t)
	link := netlink.NewVeth(netlink.NewLinkAttrs())
	link.Name, link.PeerName, link.PeerNamespace, link.Flags, link.MTU = "uplink", "out0", netlink.NsFd(int(p.ns.Fd())), net.FlagUp, 1400
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netlink.LinkDel(link) })
	set := func(name, addr string) error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetUp(l), netlink.AddrAdd(l, a))
	}
	if err := set("uplink", "192.0.2.1/24"); err != nil {
		t.Fatal(err)
	}
	p.run(t, func() error { return set("out0", "192.0.2.2/24") })
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Index, Gw: net.IPv4(192, 0, 2, 2)}); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestHostPortsAndMasquerade(t *testing.T) {
	needNode(t)
	out := outsider(t)
	n := newNetwork(t, testConfig(t))
	a, b := newPod(t), newPod(t)
	ipA := attach(t, n, a, idA, HostPort{HostPort: 8080, ContainerPort: 80}, HostPort{HostPort: 8081, ContainerPort: 80, HostIP: netip.MustParseAddr("192.0.2.1")})
	ipB := attach(t, n, b, idB)
	a.serve(t, 80)
	out.serve(t, 80)

	if got := out.ask(t, netip.MustParseAddrPort("192.0.2.1:8080")); got != "192.0.2.2" {
		t.Errorf("from outside the Pod sees %s, want the client's own address", got)
	}
	if got := out.ask(t, netip.MustParseAddrPort("192.0.2.1:8081")); got != "192.0.2.2" {
		t.Errorf("by host IP: %s", got)
	}
	if _, err := ask(netip.MustParseAddrPort("10.42.7.1:8081")); err == nil {
		t.Error("a port of one host IP answers on another")
	}
	if got := b.ask(t, netip.MustParseAddrPort("192.0.2.1:8080")); got != ipB.String() {
		t.Errorf("from another Pod: %s, want %s", got, ipB)
	}
	if got := a.ask(t, netip.MustParseAddrPort("192.0.2.1:8080")); got == "" {
		t.Error("the Pod does not reach itself through the node")
	}
	for _, addr := range []string{"127.0.0.1:8080", "192.0.2.1:8080"} {
		if got, err := ask(netip.MustParseAddrPort(addr)); err != nil {
			t.Errorf("from the node by %s: %s, %v", addr, got, err)
		}
	}
	if got := a.ask(t, netip.MustParseAddrPort("192.0.2.2:80")); got != "192.0.2.1" {
		t.Errorf("outside sees %s, want the node's address", got)
	}
	a.run(t, func() error {
		eth, err := netlink.LinkByName(podLink)
		if err == nil && eth.Attrs().MTU != 1400 {
			err = fmt.Errorf("MTU %d, the default route's link has 1400", eth.Attrs().MTU)
		}
		return err
	})

	var conflict *PortConflictError
	_, err := n.Attach(t.Context(), Request{SandboxID: "c1", NetNS: newPod(t).ns, HostPorts: []HostPort{{HostPort: 8080, ContainerPort: 1}}})
	if want := "host port 8080/TCP on every address is in use by sandbox " + idA; !errors.As(err, &conflict) || conflict.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := n.Detach(t.Context(), idA); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(netip.MustParseAddrPort("10.42.7.1:8080")); err == nil {
		t.Error("the host port answers after Detach")
	}
	_ = ipA
}

func TestPodsDoNotReachTheNodesLoopback(t *testing.T) {
	n := newNetwork(t, testConfig(t))
	a := newPod(t)
	attach(t, n, a, idA, HostPort{HostPort: 8080, ContainerPort: 80})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go answer(l)
	a.run(t, func() error {
		eth, err := netlink.LinkByName(podLink)
		if err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetDown(lo); err != nil {
			return err
		}
		err = netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: host(netip.MustParseAddr("127.0.0.1")), Gw: hop4.AsSlice(), Flags: int(netlink.FLAG_ONLINK), Table: 254})
		if err != nil {
			return nil // this kernel does not even let the Pod try
		}
		d := net.Dialer{Timeout: 200 * time.Millisecond}
		if c, err := d.Dial("tcp", l.Addr().String()); err == nil {
			c.Close()
			t.Error("the Pod reached 127.0.0.1 of the node")
		}
		return nil
	})
}

func TestDualStack(t *testing.T) {
	cfg := testConfig(t)
	cfg.NodeCIDRs = append(cfg.NodeCIDRs, netip.MustParsePrefix("fd42:0:0:7::/64"))
	cfg.PodCIDRs = append(cfg.PodCIDRs, netip.MustParsePrefix("fd42::/48"))
	n := newNetwork(t, cfg)
	a, b := newPod(t), newPod(t)
	attach(t, n, a, idA)
	res, err := n.Attach(t.Context(), Request{SandboxID: idB, NetNS: b.ns, HostPorts: []HostPort{{HostPort: 8080, ContainerPort: 80}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.IPs) != 2 || !res.IPs[1].Is6() {
		t.Fatalf("addresses %v", res.IPs)
	}
	b.serve(t, 80)
	if got := a.ask(t, netip.AddrPortFrom(res.IPs[1], 80)); got != "fd42:0:0:7::2" {
		t.Errorf("Pod to Pod: %s", got)
	}
	if got, err := ask(netip.AddrPortFrom(res.IPs[1], 80)); err != nil || got != "fd42:0:0:7::1" {
		t.Errorf("node to Pod: %s, %v", got, err)
	}
	if got := a.ask(t, netip.MustParseAddrPort("[fd42:0:0:7::1]:8080")); got != "fd42:0:0:7::2" {
		t.Errorf("host port: %s", got)
	}
}

func TestTableIsListable(t *testing.T) {
	n := newNetwork(t, testConfig(t))
	attach(t, n, newPod(t), idA, HostPort{HostPort: 8080, ContainerPort: 80})
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	out, err := exec.Command("nft", "list", "table", "inet", "carob_test").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{
		"elements = { 10.42.0.0/16 }", "tcp . 8080 : 10.42.7.2 . 80", "10.42.7.2 . 10.42.7.2", "fib daddr type local jump hostports",
		"ip saddr @pods4 ip daddr != @pods4 masquerade fully-random", "fib saddr . iif oif 0 drop",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}

// TestPortsComeAndGo holds that the ports of one Pod are told to the kernel without touching those of others, and that the kernel's table is put
// right when someone has changed it.
func TestPortsComeAndGo(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	n := newNetwork(t, testConfig(t))
	list := func() string {
		t.Helper()
		out, err := exec.Command("nft", "list", "map", "inet", "carob_test", "hostports-any4").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	holds := func(want map[string]bool) {
		t.Helper()
		got := list()
		for port, there := range want {
			if strings.Contains(got, port+" :") != there {
				t.Errorf("%s there: %v, want %v\n%s", port, !there, there, got)
			}
		}
	}
	a, b := newPod(t), newPod(t)
	attach(t, n, a, idA, HostPort{HostPort: 8080, ContainerPort: 80})
	attach(t, n, b, idB, HostPort{HostPort: 8081, ContainerPort: 80}, HostPort{Protocol: "UDP", HostPort: 8053, ContainerPort: 53})
	holds(map[string]bool{"tcp . 8080": true, "tcp . 8081": true, "udp . 8053": true})
	attach(t, n, a, idA, HostPort{HostPort: 8082, ContainerPort: 80}) // again, with another port
	holds(map[string]bool{"tcp . 8080": false, "tcp . 8082": true, "tcp . 8081": true, "udp . 8053": true})
	if out, err := exec.Command("nft", "flush", "map", "inet", "carob_test", "hostports-any4").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := n.Detach(t.Context(), idA); err != nil {
		t.Fatal(err)
	}
	holds(map[string]bool{"tcp . 8082": false, "tcp . 8081": true, "udp . 8053": true})
	if err := n.Detach(t.Context(), idB); err != nil {
		t.Fatal(err)
	}
	holds(map[string]bool{"tcp . 8081": false, "udp . 8053": false})
}
