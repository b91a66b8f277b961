// Package shutdown ends the node's Pods in order when the machine is about to be shut down, before anything else is taken from them (KEP-2000,
// KEP-2712). The machine's session manager, systemd-logind, waits for it by an inhibitor lock.
//
// It may import agent/podstate, the rules of Pods and client-go's recorder. It does nothing but wait while the machine stays up.
package shutdown
