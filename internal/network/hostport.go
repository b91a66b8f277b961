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

// portClaims remembers which sandbox has which host ports. It is not safe for concurrent use.
type portClaims map[string][]HostPort

// claim takes ports for the sandbox, all or none. The error is a *PortConflictError.
func (c portClaims) claim(sandboxID string, ports []HostPort) error {
	for _, port := range ports {
		for holder, held := range c {
			if holder == sandboxID {
				continue
			}
			if i := slices.IndexFunc(held, func(h HostPort) bool { return overlap(h, port) }); i >= 0 {
				return &PortConflictError{Port: port, Holder: holder}
			}
		}
	}
	if len(ports) > 0 {
		c[sandboxID] = ports
	}
	return nil
}

func (c portClaims) release(sandboxID string) { delete(c, sandboxID) }

func overlap(a, b HostPort) bool {
	return a.Protocol == b.Protocol && a.HostPort == b.HostPort && (a.HostIP == b.HostIP || !a.HostIP.IsValid() || !b.HostIP.IsValid())
}
