package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// linger is how long a link may outlive Detach before it is deleted. The kernel removes it by itself, without making anyone
// wait, as soon as the namespace's last process is gone.
const linger = time.Second

// Reconcile takes back everything that belongs to no sandbox in liveSandboxIDs: leases, links, host ports. Call it once the
// runtime knows its sandboxes, before the first Attach.
func (n *Network) Reconcile(ctx context.Context, liveSandboxIDs []string) error {
	names, err := ownLinks(n.node, n.group)
	if err != nil {
		return fmt.Errorf("reconcile Pod network: %w", err)
	}
	var errs []error
	known := map[string]bool{}
	for _, lease := range n.ledger.List() {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("reconcile Pod network: %w", err)
		}
		name := linkName(lease.Owner)
		known[name] = true
		if slices.Contains(liveSandboxIDs, lease.Owner) {
			if !names[name] {
				n.log.Warn("a live sandbox has lost its link", "sandbox", lease.Owner, "link", name)
			}
			continue
		}
		n.log.Info("taking back the address of a sandbox that is gone", "sandbox", lease.Owner, "addresses", lease.Addrs)
		errs = append(errs, n.Detach(ctx, lease.Owner))
	}
	for name := range names {
		if !known[name] {
			n.log.Info("deleting a link that belongs to no sandbox", "link", name)
			errs = append(errs, removeLink(n.node, name))
		}
	}
	errs = append(errs, n.applyRules())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("reconcile Pod network: %w", err)
	}
	return nil
}

// listen frees addresses as the kernel tells of links that are gone.
func (n *Network) listen() {
	buf := make([]byte, 64<<10)
	for {
		names, lost, err := n.events.next(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			n.log.Error("listening for links failed; addresses are freed late from now on", "err", err)
			return
		}
		n.mu.Lock()
		var gone []string
		for id, l := range n.leaving {
			if lost || slices.Contains(names, l.link) {
				gone = append(gone, id)
			}
		}
		n.mu.Unlock()
		for _, id := range gone {
			n.settle(id, false)
		}
	}
}

// reap deletes links that outlive their sandbox. It sleeps unless a sandbox is leaving.
func (n *Network) reap() {
	for {
		var due <-chan time.Time
		stop := func() bool { return false }
		if wait, any := n.nextDeadline(); any {
			timer := n.cfg.Clock.NewTimer(wait)
			due, stop = timer.C(), timer.Stop
		}
		select {
		case <-n.done:
			stop()
			return
		case <-n.wake:
			stop()
		case <-due:
			for _, id := range n.overdue() {
				n.settle(id, true)
			}
		}
	}
}

// settle frees the address of a leaving sandbox if its link is gone; with force it deletes the link first.
func (n *Network) settle(sandboxID string, force bool) {
	unlock := n.seq.lock(sandboxID)
	defer unlock()
	n.mu.Lock()
	l, ok := n.leaving[sandboxID]
	n.mu.Unlock()
	if !ok {
		return
	}
	var err error
	if force {
		err = removeLink(n.node, l.link)
	}
	there := false
	if err == nil {
		there, err = n.hasLink(l.link)
	}
	if err == nil && !there {
		err = n.free(sandboxID)
	}
	if err != nil {
		select {
		case <-n.done:
			return
		default:
		}
		n.log.Warn("freeing an address failed, trying again", "sandbox", sandboxID, "err", err)
		n.mu.Lock()
		n.leaving[sandboxID] = leaving{link: l.link, since: n.cfg.Clock.Now()}
		n.mu.Unlock()
	}
}

func (n *Network) nextDeadline() (wait time.Duration, any bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.cfg.Clock.Now()
	for _, l := range n.leaving {
		if w := max(l.since.Add(linger).Sub(now), 0); !any || w < wait {
			wait, any = w, true
		}
	}
	return wait, any
}

func (n *Network) overdue() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.cfg.Clock.Now()
	var ids []string
	for id, l := range n.leaving {
		if !now.Before(l.since.Add(linger)) {
			ids = append(ids, id)
		}
	}
	return ids
}
