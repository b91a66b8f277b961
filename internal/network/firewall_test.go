package network

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
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

func TestForwardProblems(t *testing.T) {
	drop, accept := nftables.ChainPolicyDrop, nftables.ChainPolicyAccept
	chain := func(family nftables.TableFamily, table, name string, hook *nftables.ChainHook, policy *nftables.ChainPolicy) *nftables.Chain {
		return &nftables.Chain{Table: &nftables.Table{Family: family, Name: table}, Name: name, Hooknum: hook, Policy: policy}
	}
	forward := nftables.ChainHookForward
	iptables := chain(nftables.TableFamilyIPv4, "filter", "FORWARD", forward, &drop)
	firewalld := chain(nftables.TableFamilyINet, "firewalld", "filter_FORWARD", forward, &accept)
	ufw := chain(nftables.TableFamilyIPv4, "filter", "ufw-user-forward", nil, nil)
	for name, tc := range map[string]struct {
		chains []*nftables.Chain
		opened opened
		want   []string
	}{
		"accepts":      {[]*nftables.Chain{chain(nftables.TableFamilyIPv4, "filter", "FORWARD", forward, &accept)}, opened{}, nil},
		"another hook": {[]*nftables.Chain{chain(nftables.TableFamilyINet, "fw", "input", nftables.ChainHookInput, &drop)}, opened{}, nil},
		"our own":      {[]*nftables.Chain{chain(nftables.TableFamilyINet, "carob", "x", forward, &drop)}, opened{}, nil},
		"only IPv6":    {[]*nftables.Chain{chain(nftables.TableFamilyIPv6, "filter", "FORWARD", forward, &drop)}, opened{}, nil},
		"iptables": {[]*nftables.Chain{iptables}, opened{}, []string{
			"iptables -I FORWARD -s 10.42.0.0/16 -j ACCEPT && iptables -I FORWARD -d 10.42.0.0/16 -j ACCEPT"}},
		"nftables": {[]*nftables.Chain{chain(nftables.TableFamilyINet, "fw", "forward", forward, &drop)}, opened{}, []string{
			"nft insert rule inet fw forward ip saddr 10.42.0.0/16 accept && nft insert rule inet fw forward ip daddr 10.42.0.0/16 accept"}},
		"Docker, opened":    {[]*nftables.Chain{iptables}, opened{docker: true}, nil},
		"ufw":               {[]*nftables.Chain{iptables, ufw}, opened{}, []string{"ufw route allow from 10.42.0.0/16 && ufw route allow to 10.42.0.0/16"}},
		"ufw, opened":       {[]*nftables.Chain{iptables, ufw}, opened{ufw: true}, nil},
		"firewalld":         {[]*nftables.Chain{firewalld}, opened{}, []string{"firewall-cmd --permanent --zone=trusted --add-source=10.42.0.0/16 && firewall-cmd --reload"}},
		"firewalld, opened": {[]*nftables.Chain{firewalld}, opened{firewalld: true}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, p := range forwardProblems(Config{NFTable: "carob", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}}, tc.chains, tc.opened) {
				got = append(got, p.Fix)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}
