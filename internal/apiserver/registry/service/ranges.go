package service

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// The range of node ports, as in Kubernetes.
const (
	firstNodePort = 30000
	lastNodePort  = 32767
)

// addresses hands out the addresses of a range. Neither the first (the network's name) nor, in IPv4, the last (broadcast) is given.
type addresses struct {
	prefix netip.Prefix
	pool   *pool
}

// maxAddresses bounds the part of a very large range that is handed out.
const maxAddresses = 1 << 20

func newAddresses(prefix netip.Prefix) (*addresses, error) {
	prefix = prefix.Masked()
	host := prefix.Addr().BitLen() - prefix.Bits()
	if host < 2 {
		return nil, fmt.Errorf("the service range %s has too few addresses", prefix)
	}
	size := maxAddresses
	if host < 20 {
		size = 1 << host
	}
	last := size - 1
	if prefix.Addr().Is4() && host < 20 {
		last--
	}
	// Offsets 1..last are usable and become 0..last-1 of the pool.
	return &addresses{prefix: prefix, pool: newPool(last, min(max(16, size/16), 256))}, nil
}

// at is the address of a number of the pool.
func (a *addresses) at(n int) netip.Addr {
	raw := a.prefix.Addr().As16()
	low := binary.BigEndian.Uint64(raw[8:])
	binary.BigEndian.PutUint64(raw[8:], low+uint64(n)+1)
	return netip.AddrFrom16(raw).Unmap()
}

// number is the reverse of at; false if the address cannot be given.
func (a *addresses) number(ip netip.Addr) (int, bool) {
	if !a.prefix.Contains(ip) {
		return 0, false
	}
	raw, base := ip.As16(), a.prefix.Addr().As16()
	off := binary.BigEndian.Uint64(raw[8:]) - binary.BigEndian.Uint64(base[8:])
	if binary.BigEndian.Uint64(raw[:8]) != binary.BigEndian.Uint64(base[:8]) || off == 0 || off > uint64(a.pool.size) {
		return 0, false
	}
	return int(off) - 1, true
}
