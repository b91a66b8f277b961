package agent

import "net/netip"

// SetNodeIPs says that the node has other addresses now, the main one first: the Node and the Pods tell them.
func (a *Agent) SetNodeIPs(ips []netip.Addr) {
	a.ips.Store(&ips)
	a.node.Urgent()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.workers {
		w.post(func() { w.facts.HostIPs = a.hostIPs() })
	}
}

// hostIPs are the node's addresses as Pods tell them.
func (a *Agent) hostIPs() []string {
	var list []string
	for _, ip := range *a.ips.Load() {
		list = append(list, ip.String())
	}
	return list
}
