package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/nftables"

	"carob.dev/carob/internal/health"
)

// dockerChain is the chain that Docker calls before its own rules and keeps free for others.
const dockerChain = "DOCKER-USER"

// dockerRules are the rules that let Pod traffic past Docker, as arguments after iptables -I, -C or -D.
func dockerRules(cfg Config) [][]string {
	var rules [][]string
	for _, r := range cfg.PodCIDRs {
		for _, way := range []string{"-s", "-d"} {
			rules = append(rules, []string{dockerChain, way, r.Masked().String(), "-m", "comment", "--comment", cfg.NFTable + ": Pod network", "-j", "ACCEPT"})
		}
	}
	return rules
}

func iptables(r []string) string {
	if p, err := netip.ParsePrefix(r[2]); err == nil && p.Addr().Is6() {
		return "ip6tables"
	}
	return "iptables"
}

// openDockerUser adds the accept rules where Docker drops forwarded traffic. That some firewall could not be opened does not
// stop Pods from running: it is logged, and Problems tells of it.
func openDockerUser(ctx context.Context, cfg Config, log *slog.Logger) {
	if !hasDocker(ctx) {
		return
	}
	for _, r := range dockerRules(cfg) {
		tool := iptables(r)
		if exec.CommandContext(ctx, tool, append([]string{"-w", "-C"}, r...)...).Run() == nil {
			continue
		}
		if out, err := exec.CommandContext(ctx, tool, append([]string{"-w", "-I"}, r...)...).CombinedOutput(); err != nil {
			log.Warn("Docker's firewall could not be opened for Pods", "command", tool, "rule", r, "output", string(out), "err", err)
		}
	}
}

func closeDockerUser(ctx context.Context, cfg Config) error {
	if !hasDocker(ctx) {
		return nil
	}
	var errs []error
	for _, r := range dockerRules(cfg) {
		tool := iptables(r)
		if exec.CommandContext(ctx, tool, append([]string{"-w", "-C"}, r...)...).Run() != nil {
			continue
		}
		if out, err := exec.CommandContext(ctx, tool, append([]string{"-w", "-D"}, r...)...).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("remove rule from %s: %w: %s", dockerChain, err, out))
		}
	}
	return errors.Join(errs...)
}

// hasDocker says whether Docker's chain is there, in nftables or, by the kernel's list of tables, in the older iptables.
func hasDocker(ctx context.Context) bool {
	chains, err := listChains()
	if err == nil && slices.ContainsFunc(chains, func(c *nftables.Chain) bool { return c.Name == dockerChain }) {
		return true
	}
	legacy, err := os.ReadFile("/proc/net/ip_tables_names")
	if err != nil || !slices.Contains(strings.Fields(string(legacy)), "filter") {
		return false
	}
	return exec.CommandContext(ctx, "iptables", "-w", "-n", "-L", dockerChain).Run() == nil
}

func listChains() ([]*nftables.Chain, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	return chains, nil
}

// Problems tells of firewalls of others on this node that drop what Pods send through it. It changes nothing.
func Problems(ctx context.Context, cfg Config) []*health.Problem {
	chains, err := listChains()
	if err != nil {
		return []*health.Problem{{
			Code: "NFTablesUnavailable", Severity: health.Error, What: "nftables cannot be used",
			Why: err.Error(), Fix: "run as root on a kernel with nf_tables (modprobe nf_tables)",
		}}
	}
	opened := slices.ContainsFunc(chains, func(c *nftables.Chain) bool { return c.Name == dockerChain })
	for _, r := range dockerRules(cfg) {
		opened = opened && exec.CommandContext(ctx, iptables(r), append([]string{"-w", "-C"}, r...)...).Run() == nil
	}
	return forwardProblems(cfg, chains, opened)
}

// forwardProblems decides which chains drop forwarded traffic by policy. dockerOpened says that our accept rules are there.
func forwardProblems(cfg Config, chains []*nftables.Chain, dockerOpened bool) []*health.Problem {
	var out []*health.Problem
	for _, c := range chains {
		drops := c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
		firewalld := c.Table.Name == "firewalld" && c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward
		if c.Table.Name == cfg.NFTable || !drops && !firewalld {
			continue
		}
		p := &health.Problem{
			Code: "ForwardingBlocked", Severity: health.Warning,
			What: fmt.Sprintf("firewall chain %s of table %s drops forwarded traffic that no rule accepts", c.Name, c.Table.Name),
			Why:  "another program on this node sets up a firewall; Pods may not reach each other across nodes or the outside",
		}
		switch {
		case firewalld:
			p.Fix = fmt.Sprintf("firewall-cmd --permanent --zone=trusted --add-source=%s && firewall-cmd --reload", cfg.PodCIDRs[0])
		case slices.ContainsFunc(chains, func(o *nftables.Chain) bool { return o.Name == "ufw-user-forward" }):
			p.Fix = fmt.Sprintf("ufw route allow from %[1]s && ufw route allow to %[1]s", cfg.PodCIDRs[0])
		case dockerOpened:
			continue
		default:
			p.Fix = fmt.Sprintf("iptables -I FORWARD -s %[1]s -j ACCEPT && iptables -I FORWARD -d %[1]s -j ACCEPT", cfg.PodCIDRs[0])
		}
		out = append(out, p)
	}
	return out
}
