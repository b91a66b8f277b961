// Package network gives every Pod one address that the node, other Pods and the outside can talk to, and takes it back.
//
// A Pod's network namespace gets one veth, eth0; its other end stays on the node, named cb and 12 hex digits. There is no
// bridge: the node has a route to each Pod's address through that Pod's veth, and the Pod has one default route through
// 169.254.1.1 (fe80::1), an address that nobody owns: fixed neighbour entries on both ends take the place of ARP. What a Pod
// sends must carry its own address, or it is dropped. Masquerade, host ports and that check are rules of one nftables table.
//
// It may import config, health and sys, and its own subpackages ipam and nft. Invariants:
//   - the lease of an address is on disk before the link exists, and is freed only after the link is gone, so that a crash
//     at any moment leaves nothing that Reconcile does not find;
//   - every link made here is in one link group derived from the table's name, so links of others are never touched;
//   - all work is done in the network namespace that the process itself is in; Close leaves everything running.
package network
