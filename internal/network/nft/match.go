package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The first 32-bit register. Values of several words go into it and those that follow.
const reg = unix.NFT_REG32_00

type family byte

const (
	ip4 family = unix.NFPROTO_IPV4
	ip6 family = unix.NFPROTO_IPV6
)

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return ip4
	}
	return ip6
}

func (f family) suffix() string {
	if f == ip4 {
		return "4"
	}
	return "6"
}

// name is how nft(8) calls the family's header.
func (f family) name() string {
	if f == ip4 {
		return "ip"
	}
	return "ip6"
}

// words is the number of 32-bit registers that an address fills.
func (f family) words() uint32 {
	if f == ip4 {
		return 1
	}
	return 4
}

func (f family) saddr(to uint32) expr.Any { return f.addr(12, 8, to) }
func (f family) daddr(to uint32) expr.Any { return f.addr(16, 24, to) }

func (f family) addr(offset4, offset6, to uint32) expr.Any {
	p := &expr.Payload{DestRegister: to, Base: expr.PayloadBaseNetworkHeader, Offset: offset4, Len: 4}
	if f == ip6 {
		p.Offset, p.Len = offset6, 16
	}
	return p
}

// guard lets only packets of the family on: in a table of family inet an offset alone could mean either.
func (f family) guard() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{byte(f)}},
	}
}

// protocol is a transport protocol's name, TCP, UDP or SCTP.
type protocol string

func (p protocol) number() byte {
	switch p {
	case "UDP":
		return unix.IPPROTO_UDP
	case "SCTP":
		return unix.IPPROTO_SCTP
	default:
		return unix.IPPROTO_TCP
	}
}

// datum is the type of a part of a key.
type datum struct{ typ nftables.SetDatatype }

var (
	protoDatum = datum{nftables.TypeInetProto}
	portDatum  = datum{nftables.TypeInetService}
	loopback4  = netip.MustParsePrefix("127.0.0.0/8")
)

func addrDatum(f family) datum {
	if f == ip4 {
		return datum{nftables.TypeIPAddr}
	}
	return datum{nftables.TypeIP6Addr}
}

// encode lays values out as registers hold them: each part padded to 32 bits.
func encode(values []any) []byte {
	var out []byte
	for _, v := range values {
		switch v := v.(type) {
		case netip.Addr:
			out = append(out, v.AsSlice()...)
		case protocol:
			out = append(out, v.number(), 0, 0, 0)
		case uint16:
			out = append(binary.BigEndian.AppendUint16(out, v), 0, 0)
		}
	}
	return out
}

func iifGroup(group uint32) part {
	return part{fmt.Sprintf("iifgroup %d", group), metaIs(expr.MetaKeyIIFGROUP, group)}
}

func oifGroup(group uint32) part {
	return part{fmt.Sprintf("oifgroup %d", group), metaIs(expr.MetaKeyOIFGROUP, group)}
}

func metaIs(key expr.MetaKey, value uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(value)},
	}
}

func saddrIn(p netip.Prefix) part {
	f := familyOf(p.Addr())
	return part{fmt.Sprintf("%s saddr %s", f.name(), p), within(f, f.saddr(reg), p)}
}

func daddrIn(p netip.Prefix) part {
	f := familyOf(p.Addr())
	return part{fmt.Sprintf("%s daddr %s", f.name(), p), within(f, f.daddr(reg), p)}
}

func within(f family, load expr.Any, p netip.Prefix) []expr.Any {
	n := uint32(p.Addr().BitLen() / 8)
	mask := make([]byte, n)
	for bit := range p.Bits() {
		mask[bit/8] |= 1 << (7 - bit%8)
	}
	return append(f.guard(), load,
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: n, Mask: mask, Xor: make([]byte, n)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: p.Masked().Addr().AsSlice()})
}

func saddrInSet(f family, s Set, invert bool) part {
	return inSet(f, "saddr", f.saddr(reg), s, invert)
}

func daddrInSet(f family, s Set, invert bool) part {
	return inSet(f, "daddr", f.daddr(reg), s, invert)
}

func inSet(f family, field string, load expr.Any, s Set, invert bool) part {
	op := ""
	if invert {
		op = "!= "
	}
	return part{
		fmt.Sprintf("%s %s %s@%s", f.name(), field, op, s.Name),
		append(f.guard(), load, &expr.Lookup{SourceRegister: reg, SetName: s.Name, Invert: invert}),
	}
}

// pairIn matches when source and destination together are in s.
func pairIn(f family, s Set) part {
	return part{
		fmt.Sprintf("%[1]s saddr . %[1]s daddr @%[2]s", f.name(), s.Name),
		append(f.guard(), f.saddr(reg), f.daddr(reg+f.words()), &expr.Lookup{SourceRegister: reg, SetName: s.Name}),
	}
}

// fibDaddrLocal matches packets to one of the node's own addresses.
func fibDaddrLocal() part {
	return part{"fib daddr type local", []expr.Any{
		&expr.Fib{Register: reg, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}}
}

// fibNoReturn matches packets whose source the node would not reach through the interface they came by.
func fibNoReturn() part {
	return part{"fib saddr . iif oif 0", []expr.Any{
		&expr.Fib{Register: reg, ResultOIF: true, FlagSADDR: true, FlagIIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(0)},
	}}
}

func drop() part {
	return part{"drop", []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}}
}

func jump(chain string) part {
	return part{"jump " + chain, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}}
}

func masquerade() part {
	return part{"masquerade fully-random", []expr.Any{&expr.Masq{FullyRandom: true}}}
}

// dnatExact translates by destination address, protocol and port.
func dnatExact(f family, m Set) part {
	w := f.words()
	exprs := append(f.guard(), f.daddr(reg),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg + w},
		&expr.Payload{DestRegister: reg + w + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
	return part{
		fmt.Sprintf("dnat %[1]s to %[1]s daddr . meta l4proto . th dport map @%[2]s", f.name(), m.Name),
		append(exprs, translate(f, m)...),
	}
}

// dnatAny translates by protocol and port.
func dnatAny(f family, m Set) part {
	exprs := append(f.guard(),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Payload{DestRegister: reg + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
	return part{
		fmt.Sprintf("dnat %[1]s to meta l4proto . th dport map @%[2]s", f.name(), m.Name),
		append(exprs, translate(f, m)...),
	}
}

func translate(f family, m Set) []expr.Any {
	return []expr.Any{
		&expr.Lookup{SourceRegister: reg, DestRegister: reg, IsDestRegSet: true, SetName: m.Name},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f), RegAddrMin: reg, RegProtoMin: reg + f.words(), Specified: true},
	}
}

// afterRange is the first address after p, not valid if p ends the family's space.
func afterRange(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last.Next()
}
