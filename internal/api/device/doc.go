// Package device is the rules for the objects of dynamic resource allocation (resource.k8s.io): what may be in claims, their templates and
// classes, in the slices by which drivers tell what devices there are, and in rules that taint devices.
//
// It imports rule and pod. Every function is pure. Field paths and messages are Kubernetes' own.
package device
