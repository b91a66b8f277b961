// Package csi is the node's side of CSI: it hears of drivers, tells the API of them, and has them stage and publish volumes for Pods and take
// them away again.
//
// It may import sys, agent/volume/mountpoint, client-go, the CSI's messages and kubelet's registration API. Folders are laid out as kubelet's:
// <root>/plugins_registry for the registration sockets, <root>/plugins/kubernetes.io/csi/<driver>/<sha256 of the volume>/globalmount for what
// is staged, <pod>/volumes/kubernetes.io~csi/<volume>/mount for what is published. Drivers know <root> by the name Config.Shown. Invariants:
//   - a record lies beside each mount before the driver is asked for it, and goes after the driver has taken it away, so that nothing is
//     forgotten however the agent ends;
//   - no volume is staged by one call while another unstages it.
package csi
