// Package volume makes the volumes of a Pod on the node, keeps those that follow API objects up to date, and takes them away.
//
// It may import config, health, sys, agent/downward and agent/localpath. Folders are laid out as kubelet's:
// <pods>/<uid>/volumes/kubernetes.io~<plugin>/<volume>. Invariants:
//   - every step may be repeated and completes what a crash left half done;
//   - a reader of a configMap, secret, downwardAPI or projected volume sees all of one version or all of another;
//   - nothing outside <pods>/<uid> is ever removed, and no symbolic link that a container could have made is followed.
package volume
