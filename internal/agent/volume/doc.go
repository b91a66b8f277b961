// Package volume makes the volumes of a Pod on the node, keeps those that follow API objects up to date, and takes them away.
//
// It may import config, failpoint, health, sys, agent/downward, agent/localpath and the packages below it: csi for storage drivers, certificate for what Pods trust
// and are trusted by, mountpoint. Folders are laid out as kubelet's:
// <pods>/<uid>/volumes/kubernetes.io~<plugin>/<volume>. Invariants:
//   - every step may be repeated and completes what a crash left half done;
//   - a reader of a configMap, secret, downwardAPI or projected volume sees all of one version or all of another;
//   - nothing outside <pods>/<uid> is ever removed, nor anything that is mounted there, and no symbolic link that a container could have made is followed.
package volume
