// Package volume is the rules for PersistentVolumes and the claims for them: defaults, validation, and the few questions that those who
// bind the two to each other ask (class, size, access modes).
//
// It imports rule. Every function is pure. Field paths and messages are Kubernetes' own.
package volume
