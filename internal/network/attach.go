package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"carob.dev/carob/internal/failpoint"
	"carob.dev/carob/internal/network/ipam"
)

// note is what a lease remembers besides addresses.
type note struct {
	HostPorts []HostPort `json:"hostPorts,omitempty"`
}

func notePorts(lease ipam.Lease) []HostPort {
	var n note
	if json.Unmarshal(lease.Note, &n) != nil {
		return nil
	}
	return n.HostPorts
}

// Attach gives the sandbox's namespace its address, link and routes and opens its host ports. Attaching a sandbox again
// completes what was begun, with the same addresses. The error wraps ipam.ErrExhausted when the node's range is full, and is a
// *PortConflictError when a host port is taken; nothing is left behind on any error.
func (n *Network) Attach(ctx context.Context, req Request) (Result, error) {
	res, err := n.attach(ctx, req)
	if err != nil {
		return Result{}, fmt.Errorf("attach sandbox %s to the network: %w", req.SandboxID, err)
	}
	return res, nil
}

func (n *Network) attach(ctx context.Context, req Request) (Result, error) {
	if req.NetNS == nil {
		return Result{}, errors.New("network namespace is missing")
	}
	ports, err := normalPorts(req.HostPorts)
	if err != nil {
		return Result{}, err
	}
	unlock := n.seq.lock(req.SandboxID)
	defer unlock()
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	if err := n.claim(req.SandboxID, ports); err != nil {
		return Result{}, err
	}
	data, err := json.Marshal(note{HostPorts: ports})
	if err != nil {
		return Result{}, err
	}
	before, _ := n.ledger.Get(req.SandboxID)
	lease, err := n.ledger.Acquire(req.SandboxID, data)
	if err != nil {
		n.unclaim(req.SandboxID)
		return Result{}, err
	}
	failpoint.Hit("network/attach/leased")
	if err := n.link(req, lease, ports); err != nil {
		return Result{}, errors.Join(err, n.undo(lease, ports))
	}
	if old := notePorts(before); len(old) > 0 && !slices.Equal(old, ports) {
		if err := n.applyRules(); err != nil { // ports that it had go
			return Result{}, errors.Join(err, n.undo(lease, ports))
		}
	}
	return Result{IPs: lease.Addrs, Link: linkName(req.SandboxID), Linked: true}, nil
}

func (n *Network) link(req Request, lease ipam.Lease, ports []HostPort) error {
	name := linkName(req.SandboxID)
	there, err := n.hasLink(name)
	if err != nil {
		return err
	}
	if there {
		// Left by a process that died in the middle. What it had done is unknown: begin again.
		if err := removeLink(n.node, name); err != nil {
			return err
		}
	}
	v := veth{name: name, group: n.group, mtu: n.mtu, addrs: lease.Addrs, sources: n.sources}
	if err := connect(n.node, req.NetNS, v); err != nil {
		return err
	}
	failpoint.Hit("network/attach/connected")
	if len(ports) == 0 {
		return nil
	}
	if err := allowLoopback(name); err != nil {
		return err
	}
	failpoint.Hit("network/attach/loopback-allowed")
	return n.refreshPorts(ports, lease.Addrs, false)
}

func (n *Network) undo(lease ipam.Lease, ports []HostPort) error {
	n.unclaim(lease.Owner)
	errs := []error{removeLink(n.node, linkName(lease.Owner))}
	if len(ports) > 0 {
		errs = append(errs, n.refreshPorts(ports, lease.Addrs, true))
	}
	return errors.Join(append(errs, n.ledger.Release(lease.Owner))...)
}

// Lookup returns what the sandbox was given, and whether its link is still there.
func (n *Network) Lookup(sandboxID string) (Result, bool) {
	lease, ok := n.ledger.Get(sandboxID)
	if !ok || n.isLeaving(sandboxID) {
		return Result{}, false
	}
	name := linkName(sandboxID)
	there, err := n.hasLink(name)
	return Result{IPs: slices.Clone(lease.Addrs), Link: name, Linked: there && err == nil}, true
}

// Detach closes the sandbox's host ports at once and frees its address when its link is gone, which the kernel sees to when
// the last process of the namespace ends; a link that stays is deleted after a short while. It does not wait for that.
// Detaching what is not attached does nothing.
func (n *Network) Detach(ctx context.Context, sandboxID string) error {
	unlock := n.seq.lock(sandboxID)
	defer unlock()
	lease, ok := n.ledger.Get(sandboxID)
	if !ok || n.isLeaving(sandboxID) {
		return nil
	}
	if err := n.leave(lease); err != nil {
		return fmt.Errorf("detach sandbox %s from the network: %w", sandboxID, err)
	}
	return nil
}

func (n *Network) leave(lease ipam.Lease) error {
	name := linkName(lease.Owner)
	n.mu.Lock()
	n.leaving[lease.Owner] = leaving{link: name, since: n.cfg.Clock.Now()}
	n.ports.release(lease.Owner)
	n.mu.Unlock()
	if ports := notePorts(lease); len(ports) > 0 {
		if err := n.refreshPorts(ports, lease.Addrs, true); err != nil {
			return err
		}
	}
	failpoint.Hit("network/detach/ports-closed")
	there, err := n.hasLink(name)
	if err != nil {
		return err
	}
	if !there {
		return n.free(lease.Owner)
	}
	select {
	case n.wake <- struct{}{}:
	default:
	}
	return nil
}

// free gives the address of a sandbox back whose link is gone.
func (n *Network) free(sandboxID string) error {
	if err := n.ledger.Release(sandboxID); err != nil {
		return err
	}
	failpoint.Hit("network/detach/released")
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.leaving, sandboxID)
	return nil
}

func (n *Network) isLeaving(sandboxID string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.leaving[sandboxID]
	return ok
}

func (n *Network) claim(sandboxID string, ports []HostPort) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.leaving[sandboxID]; ok {
		return errors.New("it is being detached")
	}
	n.ports.release(sandboxID)
	return n.ports.claim(sandboxID, ports)
}

func (n *Network) unclaim(sandboxID string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports.release(sandboxID)
}

func (n *Network) hasLink(name string) (bool, error) {
	_, err := n.node.LinkByName(name)
	if isNoLink(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for link %s: %w", name, err)
	}
	return true, nil
}
