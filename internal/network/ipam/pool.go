// Package ipam gives out the addresses of one node's range, one per owner and family, and remembers them on disk.
//
// It imports the standard library and sys only. Invariants: an address has one owner at most; what Acquire returned is on
// disk before it returns; an address is free again only after Release; freed addresses are the last to be given out again.
package ipam

import (
	"errors"
	"fmt"
	"net/netip"
)

// ErrExhausted says that every address of the range is taken.
var ErrExhausted = errors.New("no address is left")

// Pool is the addresses of one range, in memory. It is not safe for concurrent use.
//
// The network address, the gateway (the first address after it) and, for IPv4, the broadcast address are never given out.
type Pool struct {
	prefix      netip.Prefix
	first, last netip.Addr
	next        netip.Addr
	used        map[netip.Addr]bool
}

// NewPool makes a Pool of prefix. The prefix must hold the reserved addresses and one more: a /30 or a /126 at the smallest.
func NewPool(prefix netip.Prefix) (*Pool, error) {
	if !prefix.IsValid() {
		return nil, errors.New("address range is not valid")
	}
	prefix = prefix.Masked()
	if prefix.Addr().BitLen()-prefix.Bits() < 2 {
		return nil, fmt.Errorf("address range %s is too small: it must be a /%d or larger", prefix, prefix.Addr().BitLen()-2)
	}
	last := lastAddr(prefix)
	if prefix.Addr().Is4() {
		last = last.Prev()
	}
	first := Gateway(prefix).Next()
	return &Pool{prefix: prefix, first: first, last: last, next: first, used: map[netip.Addr]bool{}}, nil
}

// Gateway is the address of the node itself in its range: the first after the network address.
func Gateway(prefix netip.Prefix) netip.Addr { return prefix.Masked().Addr().Next() }

// Prefix is the range.
func (p *Pool) Prefix() netip.Prefix { return p.prefix }

// Take gives out a free address. It looks on from the one it gave last, so that an address is used again as late as can be.
// The error wraps ErrExhausted when none is free.
func (p *Pool) Take() (netip.Addr, error) {
	addr := p.next
	for range len(p.used) + 1 {
		if !p.used[addr] {
			p.used[addr] = true
			p.next = p.after(addr)
			return addr, nil
		}
		addr = p.after(addr)
		if addr == p.next {
			break
		}
	}
	return netip.Addr{}, fmt.Errorf("range %s with %d addresses given out: %w", p.prefix, len(p.used), ErrExhausted)
}

// Claim marks one address as taken. It is an error if the address is outside the usable part of the range or taken already.
func (p *Pool) Claim(addr netip.Addr) error {
	if addr.Less(p.first) || p.last.Less(addr) || addr.BitLen() != p.first.BitLen() {
		return fmt.Errorf("address %s is not in the usable part of %s", addr, p.prefix)
	}
	if p.used[addr] {
		return fmt.Errorf("address %s is taken", addr)
	}
	p.used[addr] = true
	return nil
}

// Free gives addr back. Freeing a free address does nothing.
func (p *Pool) Free(addr netip.Addr) { delete(p.used, addr) }

func (p *Pool) after(addr netip.Addr) netip.Addr {
	if addr == p.last {
		return p.first
	}
	return addr.Next()
}

func lastAddr(prefix netip.Prefix) netip.Addr {
	b := prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}
