package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"carob.dev/carob/internal/network/ipam"
)

const (
	idA = "aaaaaaaaaaaa0000000000000000000000000000000000000000000000000001"
	idB = "bbbbbbbbbbbb0000000000000000000000000000000000000000000000000002"
)

func TestPodsReachEachOtherAndTheNode(t *testing.T) {
	n := newNetwork(t, testConfig(t))
	a, b := newPod(t), newPod(t)
	ipA, ipB := attach(t, n, a, idA), attach(t, n, b, idB)
	if want := netip.MustParseAddr("10.42.7.2"); ipA != want {
		t.Errorf("first address %s, want %s", ipA, want)
	}
	b.serve(t, 80)
	if got := a.ask(t, netip.AddrPortFrom(ipB, 80)); got != ipA.String() {
		t.Errorf("Pod B sees %s, want %s", got, ipA)
	}
	got, err := ask(netip.AddrPortFrom(ipB, 80))
	if err != nil || got != "10.42.7.1" {
		t.Errorf("Pod B sees the node as %q, %v; want 10.42.7.1", got, err)
	}
	l, err := net.Listen("tcp", "10.42.7.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go answer(l)
	if got := a.ask(t, l.Addr().(*net.TCPAddr).AddrPort()); got != ipA.String() {
		t.Errorf("the node sees %s, want %s", got, ipA)
	}
	b.serve(t, 81)
	if got := b.ask(t, netip.MustParseAddrPort("127.0.0.1:81")); got != "127.0.0.1" {
		t.Errorf("lo of the Pod: %s", got)
	}
}

func TestDetachFreesTheAddressWhenTheLinkIsGone(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  bool
	}{{"the Pod ends", true}, {"the namespace stays", false}} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNetwork(t, testConfig(t))
			p := newPod(t)
			attach(t, n, p, idA)
			if err := n.Detach(t.Context(), idA); err != nil {
				t.Fatal(err)
			}
			if _, ok := n.ledger.Get(idA); !ok && len(links(t)) > 0 {
				t.Error("the address is free before the link is gone")
			}
			if tc.end {
				p.end()
			}
			eventually(t, "address free", func() bool { _, ok := n.ledger.Get(idA); return !ok })
			if got := links(t); len(got) > 0 {
				t.Errorf("links left: %v", got)
			}
			if err := n.Detach(t.Context(), idA); err != nil {
				t.Errorf("detach again: %v", err)
			}
		})
	}
}

func TestAttachAgainKeepsTheAddress(t *testing.T) {
	n := newNetwork(t, testConfig(t))
	p := newPod(t)
	first := attach(t, n, p, idA)
	if second := attach(t, n, p, idA); second != first {
		t.Errorf("address %s became %s", first, second)
	}
	if diff := cmp.Diff([]string{"cbaaaaaaaaaaaa"}, links(t)); diff != "" {
		t.Error(diff)
	}
}

func TestRestartReconciles(t *testing.T) {
	cfg := testConfig(t)
	n := newNetwork(t, cfg)
	a, b := newPod(t), newPod(t)
	port := HostPort{HostPort: 8080, ContainerPort: 80}
	ipA, ipB := attach(t, n, a, idA, port), attach(t, n, b, idB)
	n.Close()

	n = newNetwork(t, cfg)
	if err := n.Reconcile(t.Context(), []string{idA}); err != nil {
		t.Fatal(err)
	}
	if res, ok := n.Lookup(idA); !ok || !res.Linked || res.IPs[0] != ipA {
		t.Errorf("live sandbox after restart: %+v, %v", res, ok)
	}
	a.serve(t, 80)
	if _, err := ask(netip.AddrPortFrom(ipA, 80)); err != nil {
		t.Error(err)
	}
	if _, err := ask(netip.MustParseAddrPort("10.42.7.1:8080")); err != nil {
		t.Errorf("host port after restart: %v", err)
	}
	eventually(t, "the other's address free", func() bool { _, ok := n.ledger.Get(idB); return !ok })
	if c := newPod(t); attach(t, n, c, "c1") == ipA {
		t.Errorf("%s given out twice", ipA)
	}
	_ = ipB
	var conflict *PortConflictError
	_, err := n.Attach(t.Context(), Request{SandboxID: "d1", NetNS: newPod(t).ns, HostPorts: []HostPort{port}})
	if !errors.As(err, &conflict) || conflict.Holder != idA {
		t.Errorf("conflict after restart: %v", err)
	}
}

func TestExhaustion(t *testing.T) {
	cfg := testConfig(t)
	cfg.NodeCIDRs = []netip.Prefix{netip.MustParsePrefix("10.42.7.0/30")}
	n := newNetwork(t, cfg)
	attach(t, n, newPod(t), idA)
	_, err := n.Attach(t.Context(), Request{SandboxID: idB, NetNS: newPod(t).ns})
	if !errors.Is(err, ipam.ErrExhausted) {
		t.Fatalf("got %v", err)
	}
	if diff := cmp.Diff([]string{"cbaaaaaaaaaaaa"}, links(t)); diff != "" {
		t.Error(diff)
	}
}

func TestAttachFailureLeavesNothing(t *testing.T) {
	n := newNetwork(t, testConfig(t))
	p := newPod(t)
	p.run(t, func() error { // eth0 is taken in the Pod
		return netlink.LinkAdd(&netlink.Ifb{LinkAttrs: netlink.LinkAttrs{Name: podLink, TxQLen: -1}})
	})
	if _, err := n.Attach(t.Context(), Request{SandboxID: idA, NetNS: p.ns, HostPorts: []HostPort{{HostPort: 1, ContainerPort: 1}}}); err == nil {
		t.Fatal("no error")
	}
	if got := n.ledger.List(); len(got) > 0 {
		t.Errorf("leases left: %v", got)
	}
	if got := links(t); len(got) > 0 {
		t.Errorf("links left: %v", got)
	}
	attach(t, n, newPod(t), idB, HostPort{HostPort: 1, ContainerPort: 1})
}

func TestForeignSourceIsDropped(t *testing.T) {
	n := newNetwork(t, testConfig(t))
	a, b := newPod(t), newPod(t)
	attach(t, n, a, idA)
	ipB := attach(t, n, b, idB)
	b.serve(t, 80)
	a.run(t, func() error {
		eth, err := netlink.LinkByName(podLink)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(eth, &netlink.Addr{IPNet: host(netip.MustParseAddr("10.42.7.77"))}); err != nil {
			return err
		}
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 42, 7, 77)}, Timeout: 200 * time.Millisecond}
		if c, err := d.Dial("tcp", netip.AddrPortFrom(ipB, 80).String()); err == nil {
			c.Close()
			t.Error("a foreign source address passed")
		}
		return nil
	})
}

func TestUninstallLeavesNothing(t *testing.T) {
	cfg := testConfig(t)
	n := newNetwork(t, cfg)
	attach(t, n, newPod(t), idA, HostPort{HostPort: 8080, ContainerPort: 80})
	n.Close() // as if killed
	for range 2 {
		if err := Uninstall(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	if got := links(t); len(got) > 0 {
		t.Errorf("links left: %v", got)
	}
	chains, err := listChains()
	if err != nil || len(chains) > 0 {
		t.Errorf("chains left: %v, %v", chains, err)
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if !a.IP.IsLoopback() {
			t.Errorf("address left: %v", a)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	n := newNetwork(t, testConfig(t))
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[netip.Addr]string{}
	for i := range 12 {
		p := newPod(t)
		id := fmt.Sprintf("%012x", i)
		wg.Go(func() {
			res, err := n.Attach(t.Context(), Request{SandboxID: id, NetNS: p.ns, HostPorts: []HostPort{{HostPort: uint16(9000 + i), ContainerPort: 80}}})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			if other, ok := seen[res.IPs[0]]; ok {
				t.Errorf("%s went to %s and %s", res.IPs[0], other, id)
			}
			seen[res.IPs[0]] = id
			mu.Unlock()
			if err := n.Detach(t.Context(), id); err != nil {
				t.Error(err)
			}
			p.end()
		})
	}
	wg.Wait()
	eventually(t, "all gone", func() bool { return len(n.ledger.List()) == 0 && len(links(t)) == 0 })
	if plan := n.plan().String(); strings.Contains(plan, "tcp . 90") {
		t.Errorf("host ports left: %s", plan)
	}
}

func BenchmarkAttach(b *testing.B) {
	n := newNetwork(b, testConfig(b))
	for b.Loop() {
		b.StopTimer()
		p := newPod(b)
		b.StartTimer()
		attach(b, n, p, idA)
		b.StopTimer()
		n.Detach(b.Context(), idA)
		p.end()
		eventually(b, "gone", func() bool { _, ok := n.ledger.Get(idA); return !ok })
		b.StartTimer()
	}
}
