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
	o := opened{docker: slices.ContainsFunc(chains, func(c *nftables.Chain) bool { return c.Name == dockerChain })}
	for _, r := range dockerRules(cfg) {
		o.docker = o.docker && exec.CommandContext(ctx, iptables(r), append([]string{"-w", "-C"}, r...)...).Run() == nil
	}
	pods := cfg.PodCIDRs[0].Masked().String()
	if zone, err := exec.CommandContext(ctx, "firewall-cmd", "--get-zone-of-source="+pods).Output(); err == nil {
		o.firewalld = strings.TrimSpace(string(zone)) == "trusted"
	}
	if rules, err := exec.CommandContext(ctx, "ufw", "show", "added").Output(); err == nil {
		o.ufw = strings.Contains(string(rules), "route allow from "+pods) && strings.Contains(string(rules), "route allow to "+pods)
	}
	return forwardProblems(cfg, chains, o)
}

// opened says which firewalls have been told to let Pod traffic through.
type opened struct{ docker, firewalld, ufw bool }

// forwardProblems decides which chains drop forwarded traffic, by policy or, as firewalld's, by their last rule.
func forwardProblems(cfg Config, chains []*nftables.Chain, o opened) []*health.Problem {
	has := func(name string) bool {
		return slices.ContainsFunc(chains, func(c *nftables.Chain) bool { return c.Name == name })
	}
	v6 := slices.ContainsFunc(cfg.PodCIDRs, func(p netip.Prefix) bool { return p.Addr().Is6() })
	var out []*health.Problem
	for _, c := range chains {
		if c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookForward || c.Table.Name == cfg.NFTable || c.Table.Family == nftables.TableFamilyIPv6 && !v6 {
			continue
		}
		drops, firewalld := c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop, c.Table.Name == "firewalld"
		iptables := c.Table.Name == "filter" && c.Name == "FORWARD"
		fix := ""
		switch {
		case firewalld && !o.firewalld:
			fix = "firewall-cmd --permanent --zone=trusted --add-source=%[1]s && firewall-cmd --reload"
		case firewalld || !drops || iptables && o.docker || iptables && has("ufw-user-forward") && o.ufw:
			continue
		case iptables && has("ufw-user-forward"):
			fix = "ufw route allow from %[1]s && ufw route allow to %[1]s"
		case iptables:
			fix = "iptables -I FORWARD -s %[1]s -j ACCEPT && iptables -I FORWARD -d %[1]s -j ACCEPT"
		default:
			fix = fmt.Sprintf("nft insert rule %s %s %s ip saddr %%[1]s accept && nft insert rule %[1]s %[2]s %[3]s ip daddr %%[1]s accept",
				families[c.Table.Family], c.Table.Name, c.Name)
		}
		out = append(out, &health.Problem{
			Code: "ForwardingBlocked", Severity: health.Warning,
			What: fmt.Sprintf("firewall chain %s of table %s drops forwarded traffic that no rule accepts", c.Name, c.Table.Name),
			Why:  "another program on this node sets up a firewall; Pods may not reach each other across nodes or the outside",
			Fix:  fmt.Sprintf(fix, cfg.PodCIDRs[0].Masked()),
		})
	}
	return out
}

// families are the names that nft has for them.
var families = map[nftables.TableFamily]string{
	nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet", nftables.TableFamilyBridge: "bridge",
}
