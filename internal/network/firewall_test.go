package network

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

func TestDockerUser(t *testing.T) {
	needNode(t)
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("iptables is not installed")
	}
	iptables := func(args string) string {
		out, err := exec.Command("iptables", strings.Fields(args)...).CombinedOutput()
		if err != nil {
			t.Fatalf("iptables %s: %v: %s", args, err, out)
		}
		return string(out)
	}
	iptables("-N DOCKER-USER")
	iptables("-P FORWARD DROP")
	iptables("-A FORWARD -j DOCKER-USER")
	t.Cleanup(func() {
		iptables("-P FORWARD ACCEPT")
		iptables("-F")
		iptables("-X")
		// The tool leaves its tables behind, empty.
		exec.Command("nft", "delete", "table", "ip", "filter").Run()
	})
	before := iptables("-S")

	cfg := testConfig(t)
	cfg.LeaveFirewalls = true
	newNetwork(t, cfg).Close()
	if got := iptables("-S"); got != before {
		t.Errorf("told to leave it alone, but now:\n%s", got)
	}
	if got := Problems(t.Context(), cfg); len(got) != 1 || got[0].Code != "ForwardingBlocked" {
		t.Errorf("problems: %v", got)
	}

	cfg.LeaveFirewalls = false
	n := newNetwork(t, cfg)
	if got := Problems(t.Context(), cfg); len(got) > 0 {
		t.Errorf("problems: %v", got)
	}
	a, b := newPod(t), newPod(t)
	ipA, ipB := attach(t, n, a, idA), attach(t, n, b, idB)
	b.serve(t, 80)
	if got := a.ask(t, netip.AddrPortFrom(ipB, 80)); got != ipA.String() {
		t.Errorf("Pod to Pod: %s", got)
	}
	n.Close()
	n = newNetwork(t, cfg) // adds nothing twice
	if got := strings.Count(iptables("-S"), "carob_test: Pod network"); got != 2 {
		t.Errorf("%d rules of ours, want 2", got)
	}
	if err := n.Uninstall(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := iptables("-S"); got != before {
		t.Errorf("after Uninstall:\n%s\nwant\n%s", got, before)
	}
}
