// Package pod serves what Pods can do beyond being stored: being bound to a node and evicted, and the ways into a running Pod (log, exec,
// attach, portforward, proxy), which lead to the agent of the Pod's node or to the Pod itself.
//
// It imports the generic registry. Invariant: a Pod is given a node once.
package pod
