package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// HostPort says that traffic to one port of the node goes to a port of the Pod.
type HostPort struct {
	// Protocol is TCP, UDP or SCTP. Empty means TCP.
	Protocol string `json:"protocol"`
	// HostIP is the node's address that listens; the zero value, 0.0.0.0 or :: mean every one.
	HostIP netip.Addr `json:"hostIP,omitzero"`
	// HostPort is the node's port. A mapping without one asks for nothing.
	HostPort uint16 `json:"hostPort"`
	// ContainerPort is the Pod's port.
	ContainerPort uint16 `json:"containerPort"`
}

// PortConflictError says that a host port is another sandbox's already.
type PortConflictError struct {
	Port   HostPort
	Holder string
}

// Error names the port and who has it.
func (e *PortConflictError) Error() string {
	ip := "every address"
	if e.Port.HostIP.IsValid() {
		ip = e.Port.HostIP.String()
	}
	return fmt.Sprintf("host port %d/%s on %s is in use by sandbox %s", e.Port.HostPort, e.Port.Protocol, ip, e.Holder)
}

// normalPorts checks the mappings of one sandbox and returns them in one form: with protocol, without those that ask for
// nothing, wildcard addresses as the zero value.
func normalPorts(in []HostPort) ([]HostPort, error) {
	var out []HostPort
	for _, p := range in {
		if p.HostPort == 0 {
			continue
		}
		p.Protocol = cmp.Or(p.Protocol, "TCP")
		if p.Protocol != "TCP" && p.Protocol != "UDP" && p.Protocol != "SCTP" {
			return nil, fmt.Errorf("host port %d: protocol %q is not TCP, UDP or SCTP", p.HostPort, p.Protocol)
		}
		if p.ContainerPort == 0 {
			return nil, fmt.Errorf("host port %d/%s: the container's port is missing", p.HostPort, p.Protocol)
		}
		p.HostIP = p.HostIP.Unmap().WithZone("")
		if p.HostIP.IsValid() && p.HostIP.IsUnspecified() {
			p.HostIP = netip.Addr{}
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out, nil
}

// portClaims remembers which sandbox has which host ports. It is not safe for concurrent use; the zero value is not usable.
type portClaims struct {
	held map[string][]HostPort
	// holders are the sandboxes that have a port, on one address or another.
	holders map[portNumber][]string
}

// portNumber is a port without its address.
type portNumber struct {
	protocol string
	port     uint16
}

func newPortClaims() portClaims {
	return portClaims{held: map[string][]HostPort{}, holders: map[portNumber][]string{}}
}

func (p HostPort) number() portNumber { return portNumber{p.Protocol, p.HostPort} }

// claim takes ports for the sandbox, all or none. The error is a *PortConflictError.
func (c portClaims) claim(sandboxID string, ports []HostPort) error {
	for _, port := range ports {
		for _, holder := range c.holders[port.number()] {
			if holder != sandboxID && slices.ContainsFunc(c.held[holder], func(h HostPort) bool { return overlap(h, port) }) {
				return &PortConflictError{Port: port, Holder: holder}
			}
		}
	}
	c.release(sandboxID)
	if len(ports) == 0 {
		return nil
	}
	c.held[sandboxID] = ports
	for _, port := range ports {
		if n := port.number(); !slices.Contains(c.holders[n], sandboxID) {
			c.holders[n] = append(c.holders[n], sandboxID)
		}
	}
	return nil
}

func (c portClaims) release(sandboxID string) {
	for _, port := range c.held[sandboxID] {
		n := port.number()
		c.holders[n] = slices.DeleteFunc(c.holders[n], func(id string) bool { return id == sandboxID })
		if len(c.holders[n]) == 0 {
			delete(c.holders, n)
		}
	}
	delete(c.held, sandboxID)
}

func overlap(a, b HostPort) bool {
	return a.Protocol == b.Protocol && a.HostPort == b.HostPort && (a.HostIP == b.HostIP || !a.HostIP.IsValid() || !b.HostIP.IsValid())
}
