// Package nft is the rules of the Pod network: a pure plan of one nftables table, and a thin executor that makes the kernel's
// table equal to it in one transaction.
//
// It imports google/nftables and nothing of the project. The table may hold chains, sets and maps of others of this project
// too (services, policy): only what a plan names is touched.
package nft

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/google/nftables"
)

// Names of what the plan puts into the table. Other packages that add to the table keep clear of them.
const (
	chainSource      = "pod-source"
	chainPrerouting  = "hostport-prerouting"
	chainOutput      = "hostport-output"
	chainHostPorts   = "hostports"
	chainPostrouting = "pod-postrouting"
)

// Port sends one port of the node to a Pod.
type Port struct {
	// Protocol is TCP, UDP or SCTP.
	Protocol string
	// HostIP is the node's address, the zero value for all of them.
	HostIP   netip.Addr
	HostPort uint16
	// Target is the Pod's address and port. Its family decides the family of the rule.
	Target netip.AddrPort
}

// Service leads TCP connections to an address that nobody has to where they are served.
type Service struct{ Address, Target netip.AddrPort }

// Input is what the rules depend on.
type Input struct {
	// Table is the table's name.
	Table string
	// Group is the link group of all Pod links.
	Group uint32
	// PodCIDRs are the ranges of the whole cluster: traffic between them is never masqueraded.
	PodCIDRs []netip.Prefix
	// Services are virtual addresses, for Pods and the node itself. Both addresses of one are of the same family.
	Services []Service
	// Ports are the host ports of this node's Pods, without conflicts.
	Ports []Port
}

// Plan makes the table for in. The same input in any order gives the same plan.
func Plan(in Input) Ruleset {
	ports := slices.SortedFunc(slices.Values(in.Ports), comparePorts)
	rs := Ruleset{Table: in.Table}
	source := Chain{Name: chainSource, Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw}
	pre := Chain{Name: chainPrerouting, Type: nftables.ChainTypeNAT, Hook: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest}
	output := Chain{Name: chainOutput, Type: nftables.ChainTypeNAT, Hook: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest}
	dest := []Rule{rule(fibDaddrLocal(), jump(chainHostPorts))}
	hostPorts := Chain{Name: chainHostPorts}
	post := Chain{Name: chainPostrouting, Type: nftables.ChainTypeNAT, Hook: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource}

	// The node's loopback opens to Pods that have host ports (route_localnet); only what the node itself sends may use that.
	source.Rules = append(source.Rules, rule(iifGroup(in.Group), daddrIn(loopback4), drop()))
	source.Rules = append(source.Rules, rule(iifGroup(in.Group), fibNoReturn(), drop()))

	for _, fam := range []family{ip4, ip6} {
		pods := Set{Name: "pods" + fam.suffix(), Key: []datum{addrDatum(fam)}, Interval: true}
		exact := Set{Name: "hostports-exact" + fam.suffix(), Key: []datum{addrDatum(fam), protoDatum, portDatum}, Data: []datum{addrDatum(fam), portDatum}}
		anyIP := Set{Name: "hostports-any" + fam.suffix(), Key: []datum{protoDatum, portDatum}, Data: []datum{addrDatum(fam), portDatum}}
		services := Set{Name: "services" + fam.suffix(), Key: []datum{addrDatum(fam), protoDatum, portDatum}, Data: []datum{addrDatum(fam), portDatum}}
		hairpin := Set{Name: "hairpin" + fam.suffix(), Key: []datum{addrDatum(fam), addrDatum(fam)}}
		for _, prefix := range in.PodCIDRs {
			if familyOf(prefix.Addr()) == fam {
				pods.Elements = append(pods.Elements, Element{Range: prefix.Masked()})
			}
		}
		for _, s := range in.Services {
			if familyOf(s.Address.Addr()) == fam {
				services.Elements = append(services.Elements, Element{
					Key: []any{s.Address.Addr(), protocol("TCP"), s.Address.Port()}, Data: []any{s.Target.Addr(), s.Target.Port()},
				})
			}
		}
		for _, p := range ports {
			addr := p.Target.Addr()
			if familyOf(addr) != fam {
				continue
			}
			target := []any{addr, p.Target.Port()}
			switch {
			case !p.HostIP.IsValid():
				anyIP.Elements = append(anyIP.Elements, Element{Key: []any{protocol(p.Protocol), p.HostPort}, Data: target})
			case familyOf(p.HostIP) == fam:
				exact.Elements = append(exact.Elements, Element{Key: []any{p.HostIP, protocol(p.Protocol), p.HostPort}, Data: target})
			default:
				continue
			}
			if pair := (Element{Key: []any{addr, addr}}); !slices.ContainsFunc(hairpin.Elements, func(e Element) bool { return e.Key[0] == pair.Key[0] }) {
				hairpin.Elements = append(hairpin.Elements, pair)
			}
		}
		rs.Sets = append(rs.Sets, pods, exact, anyIP, services, hairpin)
		dest = append(dest, rule(dnatExact(fam, services)))
		hostPorts.Rules = append(hostPorts.Rules, rule(dnatExact(fam, exact)), rule(dnatAny(fam, anyIP)))
		// A Pod that reaches itself through the node, and the node that reaches a Pod through its own loopback, would be
		// answered past the translation.
		post.Rules = append(post.Rules, rule(pairIn(fam, hairpin), masquerade()))
		if fam == ip4 {
			post.Rules = append(post.Rules, rule(oifGroup(in.Group), saddrIn(loopback4), masquerade()))
		}
		post.Rules = append(post.Rules, rule(saddrInSet(fam, pods, false), daddrInSet(fam, pods, true), masquerade()))
	}
	pre.Rules, output.Rules = dest, dest
	rs.Chains = []Chain{hostPorts, source, pre, output, post}
	return rs
}

func comparePorts(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.HostPort, b.HostPort), a.HostIP.Compare(b.HostIP), a.Target.Compare(b.Target))
}
